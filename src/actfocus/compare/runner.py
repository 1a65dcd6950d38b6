"""The processes of a grid: as many at once as fit, one thread each, until every cell is done or failed."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from actfocus.compare.child import GRACE
from actfocus.compare.directory import CompareDirectory, is_busy
from actfocus.compare.grid import Cell
from actfocus.errors import ActfocusError
from actfocus.report.output import printable
from actfocus.report.progress import Progress

POLL = 0.2
REPORT_EVERY = 60.0
BUSY_PATIENCE = 30.0
"""Seconds to wait for runs that a killed comparison left: they are about to end."""
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass
class Results:
    """What became of the cells that were given; `failed` has the reason and the log."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class _Process:
    cell: Cell
    popen: subprocess.Popen[bytes]
    log: IO[bytes]
    log_start: int
    slot: int
    began: float


class Runner:
    """Runs cells in a comparison's directory."""

    def __init__(
        self, directory: CompareDirectory, jobs: int, progress: Progress, devices: Sequence[str] = ()
    ) -> None:
        """`devices` are the GPUs that the processes share in turn; none means the CPU."""
        self.directory, self.jobs, self.progress, self.devices = directory, jobs, progress, devices
        self.results = Results()
        self._running: list[_Process] = []

    def run(self, cells: Sequence[Cell]) -> Results:
        """Train every cell that is not done yet. On an interruption all processes are ended first."""
        waiting = self._still_to_do(cells)
        self.progress.begin("comparing", len(cells))
        for name in self.results.skipped:
            self.progress.advance({"run": name, "state": "was done"})
        for name, problem in self.results.failed.items():
            self.progress.note(f"FAILED {name}: {problem}")
            self.progress.advance({"run": name, "state": "failed"})
        reported = time.monotonic()
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.jobs:
                    self._start(waiting.pop(0))
                time.sleep(POLL)
                for process in [p for p in self._running if p.popen.poll() is not None]:
                    self._running.remove(process)
                    self._finish(process)
                if time.monotonic() - reported > REPORT_EVERY:
                    reported = time.monotonic()
                    self._report(len(waiting))
        finally:
            self._end_all()
            self.progress.end()
        return self.results

    def _still_to_do(self, cells: Sequence[Cell]) -> list[Cell]:
        deadline = time.monotonic() + BUSY_PATIENCE
        while any(is_busy(self.directory.run_path(cell)) for cell in cells) and time.monotonic() < deadline:
            self.progress.note("waiting for runs that another process is ending")
            time.sleep(1)
        waiting = []
        for cell in cells:
            try:
                done = self.directory.is_done(cell, self.directory.record(cell))
            except ActfocusError as error:
                self.results.failed[cell.name] = str(error)
                continue
            if done:
                self.results.skipped.append(cell.name)
            else:
                waiting.append(cell)
        return waiting

    def _start(self, cell: Cell) -> None:
        words = train_words(self.directory, cell)
        log = self.directory.log_path(cell).open("ab")
        slot = min(set(range(self.jobs)) - {process.slot for process in self._running})
        try:
            popen = subprocess.Popen(
                child_command(words),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=child_environment(slot, self.devices),
                start_new_session=True,  # Control-C in the terminal is for the comparison, which passes it on
            )
        except BaseException:
            log.close()
            raise
        self._running.append(_Process(cell, popen, log, log.tell(), slot, time.monotonic()))
        self.progress.note(f"{'resumed' if '--resume' in words else 'started'} {cell.name}")

    def _finish(self, process: _Process) -> None:
        cell, code = process.cell, process.popen.returncode
        _close(process)
        problem = None
        figures: dict[str, float | str] = {"run": cell.name}
        figures["minutes"] = (time.monotonic() - process.began) / 60
        if code == 0:
            try:
                record = self.directory.record(cell)
                if record is None or not self.directory.is_done(cell, record):
                    problem = f"ended without its last evaluation; {self.directory.begin_anew(cell)}"
                else:
                    figures["final"] = record.final
            except ActfocusError as error:
                problem = str(error)
        else:
            problem = last_words(self.directory.log_path(cell), process.log_start, code)
        if problem is None:
            self.results.done.append(cell.name)
            self.progress.advance(figures)
        else:
            self.results.failed[cell.name] = problem
            self.progress.note(f"FAILED {cell.name}: {problem}; log: {self.directory.log_path(cell)}")
            self.progress.advance({"run": cell.name, "state": "failed"})

    def _report(self, waiting: int) -> None:
        states = []
        for process in self._running:
            with suppress(ActfocusError, OSError):
                record = self.directory.record(process.cell)
                step = record.last_step if record else 0
                states.append(f"{process.cell.name} {step}/{process.cell.config.steps}")
        self.progress.note(f"running: {', '.join(states)}; {waiting} waiting")

    def _end_all(self) -> None:
        """Ask all processes to end, and make those that do not."""
        if not self._running:
            return
        self.progress.note(f"ending {len(self._running)} runs; each keeps its last checkpoint")
        for process in self._running:
            assert process.popen.stdin is not None
            process.popen.stdin.close()
        deadline = time.monotonic() + GRACE + 5
        for process in self._running:
            try:
                process.popen.wait(max(0.1, deadline - time.monotonic()))
            except BaseException:  # too late, or Control-C once more
                process.popen.kill()
                process.popen.wait()
            _close(process)
        self._running.clear()


def _close(process: _Process) -> None:
    process.log.close()
    if process.popen.stdin is not None:
        process.popen.stdin.close()


def train_words(directory: CompareDirectory, cell: Cell) -> list[str]:
    """What `actfocus` is told to begin a cell's run, or to go on with it."""
    run = directory.run_path(cell)
    if run.exists():
        return ["train", "--resume", str(run)]
    return ["train", "--config", str(directory.config_path(cell)), "--out", str(run)]


def child_command(words: Sequence[str]) -> list[str]:
    """The command line of a run's process."""
    return [sys.executable, "-m", "actfocus.compare.child", *words]


def child_environment(slot: int, devices: Sequence[str]) -> dict[str, str]:
    """The environment of a run's process: one thread, and one of the GPUs if there are any."""
    environment = dict(os.environ) | _THREADS
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return environment


def last_words(log: Path, start: int, code: int) -> str:
    """Why a process failed: its own message if it wrote one, else its last line and its exit code."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    # It is shown on a terminal, and anything may have written it.
    lines = [printable(line.strip()) for line in text.split("\n")]
    lines = [line for line in lines if line]
    own = [line.removeprefix("actfocus: ") for line in lines if line.startswith("actfocus: ")]
    if own:
        return own[-1]
    how = f"killed by signal {-code} (9 may mean out of memory)" if code < 0 else f"exit code {code}"
    return f"{how}: {lines[-1]}" if lines else how
