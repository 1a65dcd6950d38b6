"""Progress and tables, promises: progress is on stderr, live on a terminal and plain elsewhere; a user's text
is never read as markup; gains are in points."""

import io
import re
import sys

import pytest
from rich.console import Console

from actfocus.report.progress import (
    PlainProgress,
    Progress,
    RichProgress,
    SilentProgress,
    format_figures,
    make_progress,
)
from actfocus.report.tables import figures_table, models_table, success_table


def work(progress: Progress) -> None:
    progress.begin("train [red]x", 2)
    progress.note("a [note]")
    progress.advance({"step": 1, "loss": 0.12345, "other": 3})
    progress.advance({"step": 2, "loss": float("nan"), "return": "[none]"})
    progress.end()
    progress.end()


def shown(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_progress_is_one_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    work(PlainProgress())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train [red]x: 2 steps",
        "a [note]",
        "train [red]x 1/2 step 1 loss 0.123",
        "train [red]x 2/2 step 2 return [none] loss nan",
    ]


def test_silent_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    work(make_progress(silent=True))
    assert capsys.readouterr() == ("", "")


def test_rich_progress_shows_the_bar_and_leaves_the_terminal_as_it_was() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=150)
    progress = RichProgress(console)
    progress.advance({"step": 1})  # before any bar: nothing, and no error
    work(progress)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "train [red]x" in text and "2/2" in text and "a [note]" in text and "return [none]" in text
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


def test_a_new_bar_ends_the_one_before() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    progress = RichProgress(console)
    progress.begin("first", 1)
    progress.begin("second", 1)
    progress.end()
    assert isinstance(console.file, io.StringIO)
    # Each bar hides the cursor and gives it back before the next one does.
    cursor = re.findall(r"\x1b\[\?25([hl])", console.file.getvalue())
    assert cursor == ["l", "h", "l", "h"]


def test_the_kind_of_progress_follows_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_progress(silent=True), SilentProgress)
    assert isinstance(make_progress(), PlainProgress)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(make_progress(), RichProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(), PlainProgress)


def test_unknown_figures_are_shown_too() -> None:
    assert format_figures({"a": 1, "b": 2.0, "c": "x", "d": 4, "e": 5}) == "a 1  b 2  c x  d 4"
    assert format_figures({}) == ""


def test_success_table() -> None:
    first = {"step": 0, "success": 0.125, "low": 0.1, "high": 0.2, "return": -0.5, "episodes": 256}
    last = first | {"step": 60, "success": 0.5, "return": None}
    text = shown(success_table({"run": "runs/[bold]x", "evaluations": [first, first | {"step": 20}, last]}))
    assert "runs/[bold]x" in text
    lines = text.splitlines()
    before, after = (next(line for line in lines if word in line) for word in ("before", "after"))
    assert "12.5" in before and "10.0 – 20.0" in before and "-0.5" in before
    assert "50.0" in after and "+37.5" in after and "60" in after
    assert "+0.0" in text


@pytest.mark.parametrize("count", [0, 1])
def test_success_table_without_anything_to_compare(count: int) -> None:
    row = {"step": 0, "success": None, "low": None, "high": None, "return": None, "episodes": 0}
    text = shown(success_table({"evaluations": [row] * count}))
    assert "before" not in text and "after" not in text
    assert "95 % interval" in text
    assert text.count("– – –") == count


def test_other_tables_escape_too() -> None:
    text = shown(figures_table({"[red]a_b": "[/red]", "memory_parts": {"x": 2**21}}))
    assert "[red]a b" in text and "[/red]" in text and "2.0 MiB" in text
    model = {"name": "[i]m", "parameters": 5, "source": "[/]", "cached": True, "path": ""}
    assert "[i]m" in shown(models_table([model])) and "yes" in shown(models_table([model]))
