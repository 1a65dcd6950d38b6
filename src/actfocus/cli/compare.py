"""`actfocus compare`: does it help? A grid of runs, and a report that claims no more than it may."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.markup import escape
from rich.table import Table

from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Interrupted, Outcome
from actfocus.cli.train import check_can_be_made, check_game, check_model, check_shipped
from actfocus.errors import ActfocusError, ConfigError, RunError
from actfocus.report.output import printable
from actfocus.report.progress import make_progress
from actfocus.report.tables import figures_table

if TYPE_CHECKING:
    from actfocus.compare.directory import CompareDirectory, Grid
    from actfocus.compare.grid import Cell
    from actfocus.compare.records import Record


def _several(metavar: str, default: str = "") -> Any:
    return tyro.conf.arg(metavar=f"{metavar} [{metavar} ...]", help_behavior_hint=default)


_Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
_GRID = ("env", "algorithm", "arm", "alphas", "betas", "lr", "seeds", "config", "set")
"""The options that describe a grid."""


@dataclass(frozen=True)
class Compare:
    """Train a grid of agents that differ in token weights alone, and report what the difference is worth.

    Environments x algorithms x arms x seeds, from recipes/ENV-ALGORITHM.toml:
        actfocus compare --env frozen-lake --algorithm grpo --seeds 0 1 2 3 4 --out runs/compare --plan
        actfocus compare --env frozen-lake --algorithm grpo --seeds 0 1 2 3 4 --out runs/compare

    Stop it at any time, kill it, add seeds; the same command goes on, and so does
        actfocus compare --out runs/compare

    Other token weights, sweeps, and the learning rate varied in every arm alike:
        actfocus compare --arm uniform actfocus mine=alpha:0.3,signal:entropy --out runs/arms
        actfocus compare --alphas 0 0.05 0.1 0.3 1 --betas 0 0.5 1 2 --out runs/sweep
        actfocus compare --lr 1e-4 3e-4 1e-3 --out runs/rates

    Runs that exist already, of actfocus train:
        actfocus compare --read runs/uniform-0 runs/uniform-1 runs/focus-0 runs/focus-1 --out runs/report

    The report is in the folder --out: report.md, report.json, pictures as PNG and SVG.
    """

    out: Annotated[Path | None, optional("DIR")] = None
    """Folder of the comparison: its runs and its report. One that exists is gone on with, or extended."""
    env: Annotated[tuple[str, ...], _several("ENV", "(default: frozen-lake, or the file's)")] = ()
    """Games."""
    algorithm: Annotated[
        tuple[Literal["grpo", "ppo"], ...], _several("{grpo,ppo}", "(default: grpo ppo, or the file's)")
    ] = ()
    """Algorithms."""
    arm: Annotated[tuple[str, ...], _several("ARM", "(default: uniform actfocus)")] = ()
    """uniform, actfocus, or [NAME=]alpha:0.3,beta:0.5,signal:energy,other_weight:1 (or as ActFocus)."""
    seeds: Annotated[tuple[int, ...], _several("INT", "(default: 0 1 2)")] = ()
    """Seeds; every arm has them all. An interval needs three."""
    alphas: Annotated[tuple[float, ...], _several("FLOAT")] = ()
    """A sweep: also these alphas, the rest as in ActFocus."""
    betas: Annotated[tuple[float, ...], _several("FLOAT")] = ()
    """A sweep: also these betas, the rest as in ActFocus."""
    lr: Annotated[tuple[float, ...], _several("FLOAT", "(default: the recipe's)")] = ()
    """Learning rates of the policy; every arm is run with each."""
    config: Annotated[Path | None, optional("FILE")] = None
    """Settings of all runs, instead of the recipes; --arm and --seeds stand for its [focus] and seed."""
    set: Annotated[tuple[str, ...], _several("KEY=VALUE")] = ()
    """Settings that override the file's in all runs, such as steps=20 evaluation.states=64."""
    jobs: Annotated[int | None, optional("INT")] = None
    """Runs at once, one thread each; if not given, one a core (or one a GPU) as far as the memory allows."""
    plan: _Flag = False
    """Say what is left to do and what it costs, and stop."""
    timing: Annotated[tuple[Path, ...], _several("RUN")] = ()
    """For --plan: runs from elsewhere whose seconds a step are used for runs with the same settings."""
    step_seconds: Annotated[float | None, optional("FLOAT")] = None
    """For --plan: seconds of a step, for runs that no other run tells the time of."""
    read: Annotated[tuple[Path, ...], _several("RUN")] = ()
    """Run nothing: report these run directories, or all of a folder."""
    json: Json = False

    def run(self) -> Outcome:
        """Read, plan, or run the grid."""
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs: input should be at least 1, got {self.jobs}")
        if self.step_seconds is not None and not 0 < self.step_seconds < float("inf"):
            raise ConfigError(f"--step-seconds: input should be more than 0, got {self.step_seconds:g}")
        if self.out is not None and not self.out.is_dir():
            if self.out.exists() or self.out.is_symlink():
                raise ConfigError(f"--out: {self.out} is no folder: name another")
            check_can_be_made(self.out)
        if self.read:
            return self._read()
        for name in () if self.plan else self._given(["timing", "step_seconds"]):
            raise ConfigError(f"--{name.replace('_', '-')} goes with --plan only")
        if self.out is None and not self.plan:
            raise ConfigError("--out is missing: the folder of the comparison")
        return self._grid()

    def _given(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if getattr(self, name) not in ((), None, False)]

    def _command(self) -> str:
        words = ["actfocus", "compare"]
        for name in ("read", *_GRID, "jobs", "out"):
            value = getattr(self, name)
            if value not in ((), None):
                words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
        return shlex.join(words)

    def _read(self) -> Outcome:
        from actfocus.compare.directory import CompareDirectory
        from actfocus.compare.publish import check_report_folder, publish
        from actfocus.compare.records import find_runs, read_run

        for name in self._given([*_GRID, "jobs", "plan", "timing", "step_seconds"]):
            raise ConfigError(f"--{name.replace('_', '-')} does not go with --read: nothing is run")
        whole = CompareDirectory(self.read[0])
        if self.out not in (None, self.read[0]) and _holds_runs(self.out):
            raise ConfigError(
                f"--out: {self.out} holds runs of its own; choose another folder for the report"
            )
        check_report_folder(self.out or self.read[0])
        if len(self.read) == 1 and whole.exists:  # a comparison of ours, whose arms have names
            return _outcome(*_publish(whole, whole.load(), self.out or whole.path, {}))
        if self.out is None:
            raise ConfigError("--out is missing: the folder of the report")
        runs = {str(path): read_run(path) for path in find_runs(self.read)}
        return _outcome(publish(self.out, runs, commands=[self._command()], failed={}), self.out)

    def _grid(self) -> Outcome:
        from actfocus.compare.directory import CompareDirectory, Grid

        if self.out is not None and not (self.plan or self.out.exists() or self._given(_GRID)):
            raise ConfigError(f"there is no comparison {self.out}; to begin one, say of what: --env, --seeds")
        directory = CompareDirectory(self.out) if self.out is not None else None
        saved = directory.load() if directory is not None and directory.exists else Grid([], [], False, None)
        if saved.cells and not self._given(_GRID):
            grid, chosen = saved, saved.cells
        else:
            cells = chosen = self._cells(saved.cells)
            if directory is not None:
                cells, chosen = directory.merge(chosen, swept=bool(self.lr))
            commands = list(dict.fromkeys([*saved.commands, self._command()]))
            grid = Grid(cells, commands, saved.lr_swept or bool(self.lr), saved.jobs)
        new = [cell for cell in chosen if directory is None or not directory.run_path(cell).exists()]
        for config in {(cell.config.env, cell.config.model): cell.config for cell in new}.values():
            check_game(config.env)
            check_shipped(config)
            check_model(config.model.name)
        if self.plan:
            return self._plan(directory, chosen)
        assert directory is not None
        return self._run(directory, saved, grid, chosen)

    def _cells(self, saved: "Sequence[Cell]") -> "list[Cell]":
        from actfocus.compare.arms import Arm, choose_arms, under_known_names
        from actfocus.compare.grid import make_cells

        arms = choose_arms(self.arm or ("uniform", "actfocus"), self.alphas, self.betas)
        return make_cells(
            envs=self.env,
            algorithms=self.algorithm,
            arms=under_known_names(arms, [Arm(cell.arm, cell.config.focus) for cell in saved]),
            seeds=self.seeds or (0, 1, 2),
            lrs=self.lr,
            config=self.config,
            changes=self.set,
        )

    def _plan(self, directory: "CompareDirectory | None", cells: "Sequence[Cell]") -> Outcome:
        from actfocus.compare.estimate import cost
        from actfocus.compare.records import find_runs, read_run

        others = [read_run(path) for path in find_runs(self.timing)]
        records, damaged = _records(directory, cells)
        cells = [cell for cell in cells if cell.name not in damaged]
        left = [c for c in cells if directory is None or not directory.is_done(c, records.get(c.name))]
        jobs, memory = self._jobs(records, left)
        figures = (
            cost(directory, cells, records, jobs=jobs, others=others, step_seconds=self.step_seconds) | memory
        )
        figures["cannot_go_on"] = list(damaged)
        lines = [cell.name for cell in cells] if len(cells) <= 24 else []
        return Outcome(
            {"plan": figures, "cells": [cell.name for cell in cells], "command": self._command()},
            [
                *lines,
                figures_table({k: v for k, v in figures.items() if not isinstance(v, list)}),
                *(printable(f"cannot go on: {name}: {reason}") for name, reason in damaged.items()),
                _time(figures),
            ],
        )

    def _jobs(self, records: "Mapping[str, Record]", left: "Sequence[Cell]") -> tuple[int, dict[str, Any]]:
        """Runs at once, and what is known of the memory."""
        from actfocus.compare.estimate import cores_here, free_memory, gpus, jobs_that_fit, memory_of_a_run

        if self.jobs is not None and not self.plan:
            return self.jobs, {}
        need, source = memory_of_a_run(left, list(records.values()))
        free = free_memory()
        fit = len(gpus()) or jobs_that_fit(need, free, cores_here())
        jobs = self.jobs or max(1, min(fit, len(left)))
        return jobs, {"memory_a_run": need, "memory_free": free, "memory_is": source}

    def _run(
        self, directory: "CompareDirectory", saved: "Grid", grid: "Grid", chosen: "Sequence[Cell]"
    ) -> Outcome:
        from actfocus.compare.estimate import gpus
        from actfocus.compare.runner import Runner

        directory.path.mkdir(parents=True, exist_ok=True)
        progress = make_progress()
        with directory.locked():
            if directory.exists and directory.load() != saved:
                raise RunError(
                    f"{directory.path} was changed by another comparison meanwhile: give the command again"
                )
            records, _ = _records(directory, chosen)
            left = [cell for cell in chosen if not directory.is_done(cell, records.get(cell.name))]
            if left:
                grid = replace(grid, jobs=self._jobs(records, left)[0])
            directory.save(grid)
            runner = Runner(directory, grid.jobs or 1, progress, gpus())
            try:
                results = runner.run(chosen)
            except KeyboardInterrupt:
                done = len(runner.results.done) + len(runner.results.skipped)
                raise Interrupted(
                    f"interrupted; {done} of {len(chosen)} runs are done; go on with: actfocus compare --out"
                    f" {directory.path}"
                ) from None
            return _outcome(*_publish(directory, grid, directory.path, results.failed))


def _holds_runs(folder: Path | None) -> bool:
    return folder is not None and any((folder / name).exists() for name in ("grid.json", "config.toml"))


def _publish(
    directory: "CompareDirectory", grid: "Grid", folder: Path, failed: Mapping[str, str]
) -> tuple[dict[str, Any], Path]:
    """The report of all runs in a comparison's directory, and where it is."""
    from actfocus.compare.publish import publish

    records, damaged = _records(directory, grid.cells)
    report = publish(
        folder,
        records,
        commands=grid.commands,
        failed=damaged | dict(failed),
        missing=[cell.name for cell in grid.cells if cell.name not in records],
        jobs=grid.jobs,
        lr_varies=grid.lr_swept,
    )
    return report, folder


def _records(
    directory: "CompareDirectory | None", cells: "Sequence[Cell]"
) -> tuple[dict[str, "Record"], dict[str, str]]:
    """The runs of some cells that have begun, and those that cannot be read, with the reason."""
    records, failed = {}, {}
    for cell in cells if directory is not None else ():
        assert directory is not None
        try:
            record = directory.record(cell)
        except ActfocusError as error:
            failed[cell.name] = str(error)
            continue
        if record is not None:
            records[cell.name] = record
    return records, failed


def _time(figures: Mapping[str, Any]) -> str:
    unknown = figures["seconds_unknown_for"]
    if unknown:
        return (
            f"How long it takes is not known for {'; '.join(unknown)}: no run with these settings has a"
            " timing. Let one run finish and ask again, or give --timing RUN or --step-seconds."
        )
    if not figures["seconds_from"]:
        return "Nothing is left to do."
    minutes = figures["seconds"] / 60
    whole = max(1, round(minutes))
    shown = f"{whole} {'minute' if whole == 1 else 'minutes'}"
    if minutes > 90:
        shown = f"{minutes / 60:.1f} hours"
    return f"About {shown} with {figures['jobs']} at once, from {', '.join(figures['seconds_from'])}."


def _outcome(report: dict[str, Any], folder: Path) -> Outcome:
    from actfocus.compare.report import not_alike_lines, verdict_lines

    lines = [f"failed: {name}: {reason}" for name, reason in report["failed"].items()]
    lines += [f"unfinished: {name}: {state}" for name, state in report["unfinished"].items()]
    lines += [f"not made alike: {line}" for line in not_alike_lines(report)]
    lines = [printable(line) for line in [*verdict_lines(report), *lines, f"Report: {folder / 'report.md'}"]]
    return Outcome(report, [_table(report), *lines], code=1 if report["failed"] else 0)


def _table(report: Mapping[str, Any]) -> Table:
    from actfocus.compare.report import heading, share_text

    table = Table()
    for number, name in enumerate(("", "arm", "seeds", "final success %, mean", "IQM", "peak, mean")):
        table.add_column(name, justify="left" if number < 2 else "right")
    for comparison in report["comparisons"]:
        for number, (name, arm) in enumerate(comparison["arms"].items()):
            figures = [share_text(arm[key]) for key in ("final_mean", "final_iqm", "peak_mean")]
            where = "" if number else escape(heading(comparison))
            # Brackets are markup to rich.
            table.add_row(where, escape(name), str(len(arm["seeds"])), *map(escape, figures))
    return table
