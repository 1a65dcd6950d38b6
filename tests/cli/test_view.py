"""`actfocus view`, promises: it writes one file and says where; what is wrong is one line that names the file
and what to do, with exit code 2; `--serve` says its address and ends at Control-C.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from actfocus.config import Config
from tests.cli.conftest import Result, make_run
from tests.report.viewer.runs import small_step, write_run

Call = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "x", {1: small_step(1), 2: small_step(2)})


def test_it_writes_a_page_and_says_where(actfocus: Call, run: Path) -> None:
    result = actfocus("view", "runs/x")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(
        r"12 trajectories of 2 steps, 0\.\d\d MB\nOpen in a browser: runs/x/view\.html\n", result.out
    )
    page = (run / "view.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert actfocus("view", "runs/x").code == 0  # the page of a run that goes on is written again and again


def test_options(actfocus: Call, run: Path, tmp_path: Path) -> None:
    result = actfocus("view", "runs/x", "--out", "p.html", "--step", "2", "--limit", "3", "--json")
    assert result.code == 0
    found = json.loads(result.out)
    size = (tmp_path / "p.html").stat().st_size
    assert found == {
        "out": "p.html",
        "bytes": size,
        "steps": [2],
        "trajectories": 3,
        "recorded": 6,
        "problems": [],
    }
    assert not (run / "view.html").exists()
    assert (
        "3 trajectories of 6 (--limit 3) of 1 step,"
        in actfocus("view", "runs/x", "--step=2", "--limit=3").out
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("view", ["RUN"]),
        ("view nowhere", ["there is no run directory nowhere"]),
        ("view empty", ["empty is not a run directory", "config.toml"]),
        ("view young", ["young has no recorded episodes", "save_episodes_every is 10", "step 10"]),
        ("view unrecorded", ["save_episodes_every is 0", "--save-episodes-every 10"]),
        ("view unrecorded --serve", ["save_episodes_every is 0", "--save-episodes-every 10"]),
        ("view runs/x --step 7", ["no episodes of step 7; it has 1, 2"]),
        ("view runs/x --limit 0", ["--limit must be at least 1"]),
        ("view runs/x --out empty", ["empty is a folder", "view.html"]),
        ("view runs/x --out /dev/null", ["/dev/null is no ordinary file"]),
        ("view runs/x --out missing/p.html", ["no folder", "missing"]),
        ("view runs/x --serve --out p.html", ["--out does not go with --serve"]),
        ("view runs/x --serve --port 70000", ["--port must be from 0 to 65535"]),
        ("view runs/x --stpe 1", ["--stpe", "did you mean '--step'"]),
    ],
)
def test_wrong_input(words: str, parts: list[str], actfocus: Call, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "young")
    make_run(tmp_path / "unrecorded", Config(save_episodes_every=0))
    result = actfocus(*words.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    for part in parts:
        assert part in result.err


def test_a_damaged_file_is_named_and_the_rest_is_written(actfocus: Call, run: Path) -> None:
    (run / "episodes" / "step_1.jsonl.gz").write_bytes(b"\x1f\x8bnonsense")
    result = actfocus("view", "runs/x", "--json")
    assert result.code == 0
    assert result.err.startswith("runs/x/episodes/step_1.jsonl.gz is damaged and left out: ")
    assert json.loads(result.out)["steps"] == [2]
    assert len(json.loads(result.out)["problems"]) == 1


def test_a_missing_model_folder_is_said(actfocus: Call, run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step_1" / "model")
    result = actfocus("view", "runs/x")
    assert result.code == 2
    assert "runs/x/checkpoints/step_1 has no folder model, and the tokenizer lies in it" in result.err


def test_serving_ends_at_control_c(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "actfocus", "view", "runs/x", "--serve", "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Where the tests run in the background of a shell, Control-C is ignored, and children inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, cwd=tmp_path, env=dict(os.environ), text=True, preexec_fn=heard, **pipes
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+/", line)
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.read(15) == b"<!doctype html>"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out) == {"url": url, "run": "runs/x"}
