"""Run directories made by hand, with figures that are known."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actfocus.config import Config, FocusConfig, to_toml

UNIFORM = FocusConfig(alpha=1.0, beta=0.0)
ENVIRONMENT = {"actfocus": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "initial_weights": "abc"}


def settings(focus: FocusConfig | None = None, seed: int = 0, **changes: Any) -> Config:
    """A small configuration; `changes` are sections or root keys."""
    tree: dict[str, Any] = {
        "steps": 2,
        "seed": seed,
        "focus": focus or FocusConfig(),
        "evaluation": {"every": 1},
    }
    return Config.model_validate(tree | changes)


def make_run(
    path: Path,
    config: Config,
    success: Sequence[float],
    *,
    seconds: Sequence[Mapping[str, float]] = (),
    memory: int = 2**30,
    environment: Mapping[str, Any] = ENVIRONMENT,
    checkpoint: bool = True,
) -> Path:
    """A run whose evaluations stand at steps 0, every, 2 · every, … with these successes."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text(to_toml(config))
    (path / "environment.json").write_text(json.dumps(environment))
    lines, timing = [], []
    for number, share in enumerate(success):
        step = number * config.evaluation.every
        found = {"success": share, "low": 0.0, "high": 1.0, "return": share, "episodes": 64}
        lines.append({"schema": 1, "step": step, "evaluation": found})
        spent = seconds[number - 1] if number and seconds else {}
        if number and not seconds:
            spent = {"step": 3.0, "evaluation": 1.0}
        timing.append({"schema": 1, "step": step, "seconds": spent, "peak_memory_bytes": float(memory)})
    for name, rows in {"metrics.jsonl": lines, "timing.jsonl": timing}.items():
        (path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    if checkpoint and lines and lines[-1]["step"] == config.steps:
        (path / "checkpoints" / f"step_{config.steps}").mkdir(parents=True)
    return path
