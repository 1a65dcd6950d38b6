"""What a run directory tells a comparison, and which runs may stand beside each other."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from actfocus.compare.arms import UNIFORM, Arm, canonical, label
from actfocus.compare.grid import varies
from actfocus.config import Config, FocusConfig, differences
from actfocus.errors import RunError
from actfocus.run_directory import RunDirectory


@dataclass(frozen=True)
class Point:
    """One evaluation."""

    step: int
    success: float


@dataclass(frozen=True)
class Record:
    """One run, as far as it went."""

    path: Path
    arm: str
    config: Config
    points: list[Point]
    last_step: int
    """The last step that was recorded, evaluated or not."""
    episodes: int
    """Of one evaluation."""
    seconds: float
    """Of all steps and the evaluations after them: no start, no evaluation before training, no checkpoint."""
    step_seconds: float | None
    """Median of one training step without evaluation."""
    evaluation_seconds: float | None
    """Median of one evaluation."""
    peak_memory: int | None
    """Bytes."""
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The last evaluated step; -1 if there is none."""
        return self.points[-1].step if self.points else -1

    @property
    def finished(self) -> bool:
        """Whether the last step has been evaluated."""
        return self.step == self.config.steps

    @property
    def before(self) -> float | None:
        """Success before training, if it was evaluated."""
        return self.points[0].success if self.points and self.points[0].step == 0 else None

    @property
    def final(self) -> float:
        """Success after the last step."""
        return self.points[-1].success

    @property
    def peak(self) -> float:
        """The largest success of any evaluation, the first one included."""
        return max(point.success for point in self.points)


Key = tuple[str, str, float]
"""Environment, algorithm, learning rate."""


@dataclass
class Group:
    """The runs of one comparison: equal but for seed and arm."""

    env: str
    algorithm: str
    lr: float
    arms: dict[str, FocusConfig]
    runs: dict[str, dict[int, Record]]
    """Arm → seed → run."""


def read_run(path: Path, arm: str | None = None) -> Record:
    """A run directory; raises `RunError` or `ConfigError` if it is none or is damaged.

    Args:
        path: The run directory.
        arm: What its token weights are called; if None, their own label.
    """
    run = RunDirectory.open(path)
    config = run.config()
    lines = run.lines()
    evaluated = [line for line in lines if "evaluation" in line]
    points = [_point(line, path) for line in evaluated]
    last = lines[-1]["step"] if lines else 0
    due = [step for step in evaluation_steps(config) if lines and step <= last]
    if [point.step for point in points] != due:
        raise _damaged(path / "metrics.jsonl", f"evaluations should be of steps {', '.join(map(str, due))}")
    timing = _timing(run)
    steps = [figures for figures in timing if "step" in figures]
    evaluations = [figures["evaluation"] for figures in steps if "evaluation" in figures]
    memory = [figures["peak_memory_bytes"] for figures in timing if "peak_memory_bytes" in figures]
    return Record(
        path=path,
        arm=arm or label(config.focus),
        config=config,
        points=points,
        last_step=last,
        episodes=evaluated[-1]["evaluation"]["episodes"] if evaluated else 0,
        seconds=math.fsum(seconds["step"] for seconds in steps),
        step_seconds=median(s["step"] - s.get("evaluation", 0.0) for s in steps) if steps else None,
        evaluation_seconds=median(evaluations) if evaluations else None,
        peak_memory=int(max(memory)) if memory else None,
        environment=_environment(path),
    )


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """The run directories that these are, or that lie in them; raises `RunError` where there is none."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise RunError(f"there is no run directory {path}")
        inside = [path] if (path / "config.toml").is_file() else []
        # What begins with a dot is a run that was killed before it was one.
        inside = inside or sorted(config.parent for config in path.glob("[!.]*/config.toml"))
        inside = inside or sorted(config.parent for config in path.glob("runs/[!.]*/config.toml"))
        if not inside:
            raise RunError(f"{path} is not a run directory and holds none: no config.toml in it")
        found += [run for run in inside if run not in found]
    return found


def group_runs(records: Sequence[Record], *, lr_varies: bool | None = None) -> list[Group]:
    """The comparisons that some runs make, in order of appearance.

    Within an environment and an algorithm everything but seed and token weights must agree. Learning rates
    may differ too if every arm has all of them; `lr_varies` says that they do so by plan.

    Raises:
        RunError: If the runs differ in other keys, or two are the same arm and seed.
    """
    groups: dict[Key, Group] = {}
    for name in dict.fromkeys((r.config.env.name, r.config.algorithm.name) for r in records):
        runs = [r for r in records if (r.config.env.name, r.config.algorithm.name) == name]
        _refuse_mixed(runs, lr_varies)
        for run in runs:
            lr = run.config.optimizer.lr
            group = groups.setdefault((*name, lr), Group(*name, lr, {}, {}))
            group.arms.setdefault(run.arm, canonical(run.config.focus))
            seeds = group.runs.setdefault(run.arm, {})
            if run.config.seed in seeds:
                twin = seeds[run.config.seed].path
                raise RunError(
                    f"{twin} and {run.path} are the same arm ({run.arm}) and seed: leave one of them out"
                )
            seeds[run.config.seed] = run
    for group in groups.values():  # resamples must not depend on the order in which runs were named
        group.runs = {arm: dict(sorted(seeds.items())) for arm, seeds in group.runs.items()}
    return list(groups.values())


def _refuse_mixed(runs: Sequence[Record], lr_varies: bool | None) -> None:
    first = runs[0]
    rates: dict[str, set[float]] = {}
    for run in runs:
        rates.setdefault(run.arm, set()).add(run.config.optimizer.lr)
    swept = all(found == rates[first.arm] for found in rates.values()) if lr_varies is None else lr_varies
    for run in runs[1:]:
        keys = [key for key in differences(first.config, run.config) if not varies(key)]
        if swept:
            keys = [key for key in keys if key != "optimizer.lr"]
        if keys:
            raise RunError(
                f"{first.path} and {run.path} do not compare: they differ in {', '.join(keys)}; read them"
                " apart"
            )
    digests = {r.environment["initial_weights"]: r.path for r in runs if "initial_weights" in r.environment}
    if len(digests) > 1:
        one, other, *_ = digests.values()
        raise RunError(
            f"{one} and {other} do not compare: they were trained from different weights of"
            f" {first.config.model.name} (initial_weights in environment.json); read them apart"
        )


def arms_of(groups: Sequence[Group]) -> list[Arm]:
    """All arms, that with Uniform's weights first, then in order of appearance."""
    found = {name: focus for group in groups for name, focus in group.arms.items()}
    return [Arm(name, found[name]) for name in sorted(found, key=lambda name: found[name] != UNIFORM)]


def evaluation_steps(config: Config) -> list[int]:
    """The steps after which a run is evaluated; 0 is before training."""
    return sorted({0} | config.due(config.evaluation.every))


def _damaged(path: Path, why: object) -> RunError:
    return RunError(f"{path} is damaged: {why}")


def _point(line: dict[str, Any], path: Path) -> Point:
    try:
        success, episodes = line["evaluation"]["success"], line["evaluation"]["episodes"]
        if isinstance(success, bool) or not 0 <= success <= 1 or type(episodes) is not int:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        why = f"step {line['step']} has no success from 0 to 1 of so many episodes"
        raise _damaged(path / "metrics.jsonl", why) from None
    return Point(line["step"], float(success))


def _timing(run: RunDirectory) -> list[dict[str, float]]:
    """The seconds of each line by name, and `peak_memory_bytes`."""
    found = []
    for line in run.lines("timing.jsonl"):
        seconds = line.get("seconds")
        figures = dict(seconds) if isinstance(seconds, dict) else {}
        figures |= {key: line[key] for key in ("peak_memory_bytes",) if key in line}
        for key, value in figures.items():
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise _damaged(run.path / "timing.jsonl", f"{key} of step {line['step']} is {value!r}")
        found.append(figures)
    return found


def _environment(path: Path) -> dict[str, Any]:
    """What a run was made with; what it went on with later stands behind it."""
    try:
        found: dict[str, Any] = json.loads((path / "environment.json").read_text())
        for later in found.pop("resumed", []):
            found |= {key: f"{found.get(key, 'unknown')}, then {value}" for key, value in later.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path / 'environment.json'} is damaged: {error}") from None
    return found
