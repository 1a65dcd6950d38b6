"""The folder of a comparison, and what it remembers.

grid.json      the cells, the arms, the commands; written whole
configs/       one configuration a cell
logs/          what each cell's process wrote
runs/          the run directories
report.md, report.json, *.png, *.svg
"""

import fcntl
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actfocus.compare.grid import Cell, refuse_other_settings
from actfocus.compare.records import Record, read_run
from actfocus.config import Config, differences, to_toml
from actfocus.errors import ConfigError, RunError
from actfocus.run_directory import claimed, numbered, write_whole

SCHEMA = 1
"""Version of `grid.json` and `report.json`."""
_OWN = {"configs", "logs", "runs", ".lock", ".grid.json.partial"}
"""What a folder may hold before `grid.json`: a comparison was killed at once, or runs were copied there."""
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
"""A name of a cell or an arm: what comes from elsewhere must not lead out of the folder."""


@dataclass(frozen=True)
class Grid:
    """What `grid.json` holds."""

    cells: list[Cell]
    commands: list[str]
    """Those that made or extended it."""
    lr_swept: bool
    jobs: int | None
    """Runs at once, the last time that anything was run."""


class CompareDirectory:
    """One comparison's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.grid = path / "grid.json"

    @property
    def exists(self) -> bool:
        """Whether a comparison was begun here."""
        return self.grid.is_file()

    def run_path(self, cell: Cell) -> Path:
        """The run directory of a cell."""
        return self.path / "runs" / cell.name

    def config_path(self, cell: Cell) -> Path:
        """The configuration that a cell's process reads."""
        return self.path / "configs" / f"{cell.name}.toml"

    def log_path(self, cell: Cell) -> Path:
        """What a cell's process wrote."""
        return self.path / "logs" / f"{cell.name}.log"

    def load(self) -> Grid:
        """The grid that is here; raises `RunError`."""
        try:
            data = json.loads(self.grid.read_text(encoding="utf-8"))
            if data["schema"] != SCHEMA:
                raise ValueError(f"it has schema {data['schema']}, and this version reads {SCHEMA}")
            cells = [_parse_cell(cell) for cell in data["cells"]]
            return Grid(cells, list(map(str, data["commands"])), bool(data["lr_swept"]), data.get("jobs"))
        except FileNotFoundError:
            raise RunError(f"{self.path} is not a comparison: it has no grid.json") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.grid} is damaged: {error}; its runs can still be reported: actfocus compare --read"
                f" {self.path / 'runs'} --out REPORT"
            ) from None

    def merge(self, new: Sequence[Cell], *, swept: bool) -> tuple[list[Cell], list[Cell]]:
        """All cells with the new ones added, and the new ones under the names they have here.

        Raises:
            ConfigError: If the new cells do not compare with those that are here.
            RunError: If the folder holds something else, or its grid is damaged.
        """
        old = self.load().cells if self.exists else []
        if not self.exists and self.path.exists() and {path.name for path in self.path.iterdir()} - _OWN:
            raise RunError(f"{self.path} exists already and is no comparison; choose another --out")
        refuse_other_settings(old, new, self.path, swept=swept)
        cells, named = list(old), []
        for cell in new:
            twin = next((c for c in cells if c.config == cell.config), None)
            if twin is None and cell.name in {c.name for c in cells}:
                raise ConfigError(
                    f"two runs of the grid have the name {cell.name}: name their arms otherwise"
                )
            if twin is None:
                cells.append(cell)
            named.append(twin or cell)
        return cells, named

    def save(self, grid: Grid) -> None:
        """Write the grid, and the cells' configurations where they are not what it says."""
        for folder in ("configs", "logs", "runs"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        data = {
            "schema": SCHEMA,
            "lr_swept": grid.lr_swept,
            "jobs": grid.jobs,
            "commands": grid.commands,
            "cells": [
                {"name": cell.name, "arm": cell.arm, "config": cell.config.model_dump(mode="json")}
                for cell in grid.cells
            ],
        }
        write_whole(self.grid, (json.dumps(data, indent=1) + "\n").encode())
        for cell in grid.cells:
            path, text = self.config_path(cell), to_toml(cell.config).encode()
            if not path.is_file() or path.read_bytes() != text:
                write_whole(path, text)

    def record(self, cell: Cell) -> Record | None:
        """What a cell's run has done so far; None if it has not begun.

        Raises:
            RunError: If the run directory is damaged or has other settings than the cell.
        """
        path = self.run_path(cell)
        if not path.exists():
            return None
        try:
            record = read_run(path, cell.arm)
        except (RunError, ConfigError) as error:
            raise RunError(f"{error}; {self.begin_anew(cell)}") from None
        changed = differences(cell.config, record.config)
        if changed:
            raise RunError(
                f"{path} has other settings than the grid: {', '.join(changed)}; move it away, or choose"
                " another --out"
            )
        return record

    def begin_anew(self, cell: Cell) -> str:
        """What to do about a run that cannot go on."""
        return f"move {self.run_path(cell)} away, and the same command trains it anew"

    def resumes_after(self, cell: Cell) -> int:
        """The step of the newest checkpoint; -1 if there is none, and the run begins anew."""
        return max(numbered(self.run_path(cell) / "checkpoints"), default=-1)

    def is_done(self, cell: Cell, record: Record | None) -> bool:
        """Whether nothing is left to do for a cell: the last evaluation and the last checkpoint are there."""
        last = self.run_path(cell) / "checkpoints" / f"step_{cell.config.steps}"
        return record is not None and record.finished and last.is_dir()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Claim the comparison for this process. Raises `RunError` if another one has it."""
        with claimed(self.path, "compared"):
            yield


def _parse_cell(data: Mapping[str, Any]) -> Cell:
    for word in (data["name"], data["arm"]):
        if not _WORD.fullmatch(word):
            raise ValueError(f"{word!r} is no name")
    # Not from parsed JSON: strict validation would refuse its lists where there are tuples.
    return Cell(data["name"], data["arm"], Config.model_validate_json(json.dumps(data["config"])))


def is_busy(run: Path) -> bool:
    """Whether another process trains this run."""
    if not (run / ".lock").exists():
        return False
    with (run / ".lock").open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False
