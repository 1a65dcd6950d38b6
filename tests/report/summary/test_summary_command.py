"""`actfocus report`, promises: it writes one file and says where; wrong input is one line that names the file
and what to do, with exit code 2.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import conftest
from tests.cli.conftest import Result, make_run
from tests.report.summary.runs import make

actfocus = conftest.actfocus

Call = Callable[..., Result]


def test_it_writes_a_page_and_says_where(actfocus: Call, tmp_path: Path) -> None:
    make(tmp_path / "runs" / "x")
    result = actfocus("report", "runs/x")
    assert (result.code, result.err) == (0, "")
    first, last = result.out.splitlines()
    assert first.startswith("4 steps (finished), 5 trajectories, 0.")
    assert last == "Open in a browser: runs/x/report.html"
    assert (tmp_path / "runs" / "x" / "report.html").read_text().startswith("<!doctype html>")
    assert actfocus("report", "runs/x").code == 0  # again, over the old one


def test_options(actfocus: Call, tmp_path: Path) -> None:
    run = make(tmp_path / "runs" / "x")
    (run / "environment.json").write_text("{")
    result = actfocus("report", "runs/x", "--out", "p.html", "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert found["problems"].pop().startswith("environment.json is damaged: ")
    assert found == {
        "out": "p.html",
        "bytes": (tmp_path / "p.html").stat().st_size,
        "state": "finished",
        "steps": 4,
        "recorded_step": 4,
        "trajectories": ["Best success", "Typical failure", "Faulty replies", *found["trajectories"][3:]],
        "problems": [],
    }
    assert not (run / "report.html").exists()
    assert actfocus("report", "runs/x").out.startswith("left out: environment.json is damaged")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("report", ["RUN"]),
        ("report nowhere", ["there is no run directory nowhere"]),
        ("report empty", ["empty is not a run directory", "config.toml"]),
        ("report broken", ["broken/config.toml"]),
        ("report older", ["unknown key"]),
        ("report x --out empty", ["empty is a folder", "report.html"]),
        ("report x --out /dev/null", ["/dev/null is no ordinary file"]),
        ("report x --out x/config.toml", ["x/config.toml exists and is no page"]),
        ("report x --out missing/p.html", ["no folder", "missing"]),
        ("report x --step 1", ["--step"]),
        ("report x --ot p.html", ["--ot", "did you mean '--out'"]),
    ],
)
def test_wrong_input(words: str, parts: list[str], actfocus: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("x", "broken", "older"):
        make_run(tmp_path / name)
    (tmp_path / "broken" / "config.toml").write_text("steps = [")
    (tmp_path / "older" / "config.toml").write_text("stesp = 4")
    result = actfocus(*words.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    for part in parts:
        assert part in result.err


def test_a_run_that_has_just_begun(actfocus: Call, tmp_path: Path) -> None:
    make_run(tmp_path / "x")
    result = actfocus("report", "x")
    assert result.code == 0
    assert "0 steps (unfinished), 0 trajectories" in result.out
