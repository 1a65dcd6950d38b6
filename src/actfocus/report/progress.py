"""How far long work has come: a live bar on a terminal, one plain line a step elsewhere. Always on stderr."""

import os
import sys
from collections.abc import Mapping
from typing import Protocol, TextIO, runtime_checkable

import rich.progress
from rich.console import Console
from rich.markup import escape
from rich.text import Text

Figures = Mapping[str, float | str]

SHOWN = ("step", "return", "success", "loss", "seconds")
"""The figures that are shown where a step has them; without any of them, its first four are."""


@runtime_checkable
class Progress(Protocol):
    """What long work reports to. `end` may be called more than once."""

    def begin(self, title: str, total: int) -> None:
        """Work of `total` steps begins."""

    def advance(self, figures: Figures) -> None:
        """One step is done; `figures` are its results."""

    def note(self, text: str) -> None:
        """Something that is no step: a checkpoint, a warning."""

    def end(self) -> None:
        """The work is over, or was broken off."""


class SilentProgress:
    """Reports nothing."""

    def begin(self, title: str, total: int) -> None:
        """Nothing."""

    def advance(self, figures: Figures) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class PlainProgress:
    """One line a step, flushed: for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._title, self._done, self._total = "", 0, 0

    def begin(self, title: str, total: int) -> None:
        """Say what begins."""
        self._title, self._done, self._total = title, 0, total
        self.note(f"{title}: {total} steps")

    def advance(self, figures: Figures) -> None:
        """Write the step's line."""
        self._done += 1
        self.note(f"{self._title} {self._done}/{self._total} {format_figures(figures)}".rstrip())

    def note(self, text: str) -> None:
        """Write a line."""
        # Looked up at each call: stderr may be redirected after this was made.
        print(" ".join(text.split()), file=self._stream or sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing: every line is out already."""


class RichProgress:
    """A bar with the last figures and the time that is left; only for a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)

    def begin(self, title: str, total: int) -> None:
        """Show the bar; a bar that still stands ends."""
        self.end()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[figures]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(escape(title), total=total, figures="")
        self._bar.start()

    def advance(self, figures: Figures) -> None:
        """Move the bar and show the step's figures."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, figures=escape(format_figures(figures)))

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(Text(text))

    def end(self) -> None:
        """Leave the bar as it stands and give the cursor back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def make_progress(silent: bool = False) -> Progress:
    """The progress that suits stderr: a bar on a terminal, plain lines elsewhere, nothing if silent.

    Of several processes only the first reports.
    """
    if silent or not is_first_process():
        return SilentProgress()
    console = Console(stderr=True)
    return RichProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress()


def is_first_process() -> bool:
    """Whether this is the process that reports; the launcher of several says so in RANK."""
    return os.environ.get("RANK", "0") == "0"


def format_figures(figures: Figures) -> str:
    """The figures that are shown, as `name value`, three significant digits."""
    names = [name for name in SHOWN if name in figures] or list(figures)[:4]
    return "  ".join(f"{name} {_number(figures[name])}" for name in names)


def _number(value: float | str) -> str:
    if isinstance(value, int | str):
        return str(value)
    return f"{value:.3g}"
