"""What came of a run, in a few figures and a sentence."""

from typing import Any

from actfocus.compare.arms import label
from actfocus.config import FocusConfig
from actfocus.report.summary.cost import total_seconds
from actfocus.report.summary.record import RunRecord, number


def headline(record: RunRecord) -> dict[str, Any]:
    """Settings in a word each, the evaluations that count, state and warnings."""
    config, evaluations = record.config, record.evaluations()
    before = evaluations[0] if evaluations and evaluations[0]["step"] == 0 else None
    # The first of equal peaks: that is where it was reached.
    peak = max(evaluations, key=lambda found: found["success"], default=None)
    final = evaluations[-1] if evaluations and evaluations[-1] is not before else None
    state, words, command = run_state(record)
    return {
        "env": config.env.name,
        "env_settings": config.env.settings(),
        "algorithm": config.algorithm.name,
        "arm": arm_words(config.focus),
        "model": config.model.name,
        "seed": config.seed,
        "state": state,
        "state_words": words,
        "command": command,
        "before": before,
        "final": final,
        "peak": peak,
        "gain": None if before is None or final is None else final["success"] - before["success"],
        "steps": record.last_step or 0,
        "planned_steps": config.steps,
        "seconds": total_seconds(record),
        "warnings": _warnings(record),
    }


def arm_words(focus: FocusConfig) -> str:
    """The token weights: their name, and the settings that make them."""
    other = "" if focus.other_weight is None else f", other {focus.other_weight:g}"
    signal = f", signal {focus.signal}" if focus.beta > 0 else ""
    settings = f"α {focus.alpha:g}, β {focus.beta:g}{signal}{other}"
    name = {"uniform": "Uniform", "actfocus": "ActFocus"}.get(label(focus))
    return f"{name}: {settings}" if name else settings


def run_state(record: RunRecord) -> tuple[str, str, str | None]:
    """`finished`, `stopped` or `unfinished`; a sentence; the command that goes on."""
    planned, last = record.config.steps, record.last_step
    broken = [step for step in record.failed if step > (last or 0)]
    if last is not None and last >= planned:
        return "finished", f"Finished: all {planned} steps.", None
    if broken:
        return (
            "stopped",
            f"Stopped in step {broken[0]} of {planned}: a figure was not finite (a reward, log-probability,"
            f" loss or gradient). The batch is in failed/step_{broken[0]}.jsonl.gz, the last healthy state in"
            " checkpoints/. Start a new run with a lower optimizer.lr.",
            None,
        )
    go_on, command = "It is still going, or was interrupted; then go on with:", "actfocus train --resume RUN"
    if last is None:
        return "unfinished", f"Unfinished: nothing is recorded yet of {planned} steps. {go_on}", command
    return "unfinished", f"Unfinished: {last} of {planned} steps are recorded. {go_on}", command


def _warnings(record: RunRecord) -> list[str]:
    found = []
    skipped = sum(number(line.get("skipped_updates")) or 0 for line in record.metrics)
    if skipped:
        found.append(f"{skipped:g} updates were skipped, because every token's weight in them was 0.")
    cut = sum(number(line.get("cut_by_context")) or 0 for line in record.metrics)
    if cut:
        found.append(
            f"{cut:g} training episodes ended because the context was full (rollout.context ="
            f" {record.config.rollout.context})."
        )
    return found
