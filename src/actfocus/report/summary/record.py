"""What a run has left so far, for its report: whatever is damaged is left out and said, never an error."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actfocus.config import Config
from actfocus.report.viewer.records import DamagedFile, Episode, read_episodes, recorded_steps
from actfocus.run_directory import RunDirectory

Line = dict[str, Any]


@dataclass
class RunRecord:
    """A run directory as it is read at one moment; the run may still be going on."""

    directory: RunDirectory
    config: Config
    config_text: str
    metrics: list[Line]
    timing: list[Line]
    environment: dict[str, Any]
    episode_files: dict[int, Path]
    failed: list[int]
    """Steps whose batch was not finite and lies in `failed/`."""
    notes: list[str] = field(default_factory=list)
    """What could not be used."""

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.path.resolve().name

    @property
    def last_step(self) -> int | None:
        """The last step that is recorded; None before the first line."""
        return self.metrics[-1]["step"] if self.metrics else None

    def evaluations(self) -> list[Line]:
        """`step`, `success`, `low`, `high`, `return`, `episodes` of each evaluation, as far as recorded."""
        found = []
        for line in self.metrics:
            evaluation = line.get("evaluation")
            if isinstance(evaluation, dict) and (success := number(evaluation.get("success"))) is not None:
                figures = {key: number(evaluation.get(key)) for key in ("low", "high", "return", "episodes")}
                found.append({"step": line["step"], "success": success} | figures)
        return found

    def episodes(self, step: int) -> list[Episode]:
        """The recorded episodes of a step, none if the file is damaged; what is wrong goes into the notes."""
        try:
            episodes, problems = read_episodes(self.episode_files[step])
        except DamagedFile as error:
            episodes, problems = [], [str(error)]
        for problem in problems:
            self.note(problem)
        return episodes

    def note(self, problem: str) -> None:
        """Remember a problem, once, with paths from the run directory on."""
        problem = problem.replace(f"{self.directory.path}/", "")
        if problem not in self.notes:
            self.notes.append(problem)


def read_record(path: Path) -> RunRecord:
    """Read a run directory. Raises `RunError` or `ConfigError` if its config.toml is missing or damaged."""
    run = RunDirectory.open(path)
    record = RunRecord(
        directory=run,
        config=run.config(),
        config_text=(path / "config.toml").read_text(encoding="utf-8"),
        metrics=[],
        timing=[],
        environment={},
        episode_files=recorded_steps(path),
        failed=list(recorded_steps(path, "failed")),
    )
    record.metrics = _lines(record, "metrics.jsonl")
    record.timing = _lines(record, "timing.jsonl")
    record.environment = _environment(record)
    return record


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _lines(record: RunRecord, name: str) -> list[Line]:
    """The lines that can be read, in order of their steps; one that a kill cut short is no damage."""
    path = record.directory.path / name
    try:
        *whole, _cut = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        record.note(f"{name} cannot be read: {error.strerror}")
        return []
    found: dict[int, Line] = {}
    for place, text in enumerate(whole, start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            record.note(f"{name}, line {place} is left out: {error}")
            continue
        step = line.get("step") if isinstance(line, dict) else None
        if type(step) is not int or step < 0 or step >= 2**53:
            record.note(f"{name}, line {place} is left out: it names no step")
            continue
        found[step] = line
    return [found[step] for step in sorted(found)]


def _environment(record: RunRecord) -> dict[str, Any]:
    path = record.directory.path / "environment.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        record.note("environment.json is missing")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        record.note(f"environment.json is damaged: {error}")
        return {}
    if not isinstance(found, dict):
        record.note("environment.json is damaged: it holds no object")
        return {}
    return found
