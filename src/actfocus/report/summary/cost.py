"""What a run cost: seconds per part of a step, tokens, memory."""

import math
from typing import Any

from actfocus.report.summary.record import RunRecord, number

PARTS = ("rollout", "score", "gradients", "update", "evaluation")
"""In the order of a step; what timing.jsonl names besides comes after them."""
REST = "the rest"
"""Seconds of a step that are in none of its parts."""


def step_seconds(record: RunRecord) -> list[dict[str, float]]:
    """Seconds by part of each step that was timed as a whole."""
    found = []
    for line in record.timing:
        seconds = line.get("seconds")
        if not isinstance(seconds, dict):
            continue
        parts = {str(part): value for part, given in seconds.items() if (value := number(given)) is not None}
        if "step" in parts:
            found.append(parts)
    return found


def total_seconds(record: RunRecord) -> float | None:
    """Of all timed steps, their evaluations included; None if none was timed."""
    steps = step_seconds(record)
    return math.fsum(parts["step"] for parts in steps) if steps else None


def cost(record: RunRecord) -> dict[str, Any]:
    """The table of parts, and the totals."""
    steps, total = step_seconds(record), total_seconds(record)
    memory = [found for line in record.timing if (found := number(line.get("peak_memory_bytes"))) is not None]
    tokens = [found for line in record.metrics if (found := number(line.get("sampled_tokens"))) is not None]
    rollout = math.fsum(parts.get("rollout", 0.0) for parts in steps)
    sampled = sum(tokens)
    return {
        "parts": _parts(steps, total or 0.0),
        "steps": len(steps),
        "seconds": total,
        "sampled_tokens": sampled if tokens else None,
        "tokens_per_second": sampled / total if tokens and total else None,
        "tokens_per_rollout_second": sampled / rollout if tokens and rollout else None,
        "peak_memory_bytes": max(memory, default=None),
    }


def _parts(steps: list[dict[str, float]], total: float) -> list[dict[str, Any]]:
    if not steps:
        return []
    others = sorted({part for parts in steps for part in parts} - {*PARTS, "step"})
    rows = []
    for part in (*PARTS, *others):
        timed = [parts[part] for parts in steps if part in parts]
        if timed:
            rows.append((part, math.fsum(timed), len(timed)))
    named = math.fsum(seconds for _, seconds, _ in rows)
    rows.append((REST, max(0.0, total - named), len(steps)))
    return [
        {
            "part": part,
            "seconds": seconds,
            "share": seconds / total if total else None,
            "mean": seconds / len(steps),
            "times": times,
        }
        for part, seconds, times in rows
    ]
