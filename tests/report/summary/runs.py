"""Runs for the report, made without training: metrics of a few steps, records of the viewer's tests."""

import json
from pathlib import Path
from typing import Any

from actfocus.config import Config
from actfocus.report.summary.page import write_report
from tests.report.viewer.runs import Record, small_step, write_run


def evaluation(success: float, **others: float) -> dict[str, float]:
    return {"success": success, "low": success - 0.1, "high": success + 0.1, "return": 1.5, **others}


def metrics_of(steps: int) -> list[dict[str, Any]]:
    """Lines of a run that is evaluated before, in the middle and at the end."""
    successes = {0: 0.25, steps // 2: 0.75, steps: 0.5}
    lines: list[dict[str, Any]] = []
    for step in range(steps + 1):
        line: dict[str, Any] = {"schema": 1, "step": step}
        if step:
            line |= {"success": 0.3, "return": step / 10, "policy_loss": -0.01, "entropy": 0.5}
            line |= {"sampled_tokens": 1000, "reasoning_share": 0.75, "action_share": 0.125}
        if step in successes:
            line["evaluation"] = evaluation(successes[step], episodes=64, problem_share=0.1)
        lines.append(line)
    return lines


def write_lines(run: Path, name: str, lines: list[dict[str, Any]]) -> None:
    (run / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def make(
    path: Path,
    episodes: dict[int, list[Record]] | None = None,
    metrics: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> Path:
    """A run of four steps, made without training."""
    config = Config.model_validate({"steps": 4, **settings})
    write_run(path, {4: small_step(4)} if episodes is None else episodes, config=config)
    metrics = metrics_of(4) if metrics is None else metrics
    write_lines(path, "metrics.jsonl", metrics)
    seconds = {"rollout": 4.0, "score": 1.0, "update": 2.0, "step": 8.0}
    timing = [
        {"step": line["step"], "seconds": seconds if line["step"] else {}, "peak_memory_bytes": 3.0 * 2**30}
        for line in metrics
    ]
    write_lines(path, "timing.jsonl", timing)
    (path / "environment.json").write_text('{"torch": "2.11", "threads": 1}')
    return path


def page(run: Path) -> str:
    return Path(write_report(run)["out"]).read_text(encoding="utf-8")
