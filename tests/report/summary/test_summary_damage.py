"""The report of any run, promises: what is damaged is left out and named, and the rest is written; equal runs
give equal bytes; it stays below 2 MB.
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from actfocus.errors import RunError
from actfocus.report.summary import trajectories as trajectories_module
from actfocus.report.summary.headline import headline
from actfocus.report.summary.page import report_contents, write_report
from actfocus.report.summary.record import read_record
from actfocus.report.summary.trajectories import MOST_BYTES
from tests.report.summary.runs import evaluation, make, metrics_of, page, write_lines
from tests.report.viewer.runs import REPLY, Record, play, small_step, with_figures


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    first = make(tmp_path / "a" / "r")
    shutil.copytree(first, tmp_path / "b" / "r")
    pages = [page(run) for run in (first, first, tmp_path / "b" / "r")]
    assert pages[0] == pages[1] == pages[2]
    assert str(tmp_path) not in pages[0]


def test_a_line_that_a_kill_cut_short_is_no_damage(tmp_path: Path) -> None:
    run = make(tmp_path / "r")
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text[:-20])
    summary = write_report(run)
    assert (summary["steps"], summary["state"], summary["problems"]) == (3, "unfinished", [])


NONSENSE = b'\xff\xfe\n{"step": "x"}\n[]\n{"step": true}\n{}\nnull\n{"step": 1e400}\n' + b"[" * 99_999 + b"\n"


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_damaged_lines_are_named_and_the_rest_is_read(tmp_path: Path, name: str) -> None:
    run = make(tmp_path / "r")
    (run / name).write_bytes(NONSENSE + (run / name).read_bytes())
    summary = write_report(run)
    assert [problem.partition(" is ")[0] for problem in summary["problems"]] == [
        f"{name}, line {line}" for line in range(1, 9)
    ]
    assert summary["steps"] == 4
    assert headline(read_record(run))["seconds"] == 32


def test_lines_of_the_wrong_kind_are_no_error(tmp_path: Path) -> None:
    values: list[Any] = [None, "x", [], {}, True, 10**400, float("nan"), float("inf")]
    keys = ["evaluation", "success", "return", "gradient_share", "ratio", "sampled_tokens", "cut_by_context"]
    lines = [{"step": n} | dict.fromkeys(keys, value) for n, value in enumerate(values)]
    lines.append({"step": 99, "evaluation": dict.fromkeys(["success", "low", "high", "return"], "x")})
    run = make(tmp_path / "r", metrics=lines)
    timing = [{"step": n, "seconds": value, "peak_memory_bytes": value} for n, value in enumerate(values)]
    timing.append({"step": 99, "seconds": dict.fromkeys(["rollout", "step"], "x")})
    write_lines(run, "timing.jsonl", timing)
    assert write_report(run)["steps"] == 99


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "timing.jsonl", "environment.json", "episodes", "checkpoints"]
)
def test_what_is_missing_is_left_out(tmp_path: Path, name: str) -> None:
    run = make(tmp_path / "r")
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    summary = write_report(run)
    assert summary["bytes"] > 10_000
    assert bool(summary["problems"]) == (name == "environment.json")  # `tiny` has its tokenizer elsewhere


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": {"b": [1, "</script>"]}}'])
def test_any_environment_file(tmp_path: Path, text: str) -> None:
    run = make(tmp_path / "r")
    (run / "environment.json").write_text(text)
    assert bool(write_report(run)["problems"]) == (not text.startswith('{"'))


def test_a_damaged_record_falls_back_on_the_step_before(tmp_path: Path) -> None:
    run = make(tmp_path / "r", {1: small_step(1), 2: small_step(2), 4: small_step(4)})
    file = run / "episodes" / "step_4.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-200])
    summary = write_report(run)
    assert summary["recorded_step"] == 2 and len(summary["trajectories"]) == 5
    (problem,) = summary["problems"]
    assert problem.startswith("episodes/step_4.jsonl.gz is damaged and left out")


def test_no_record_can_be_read(tmp_path: Path) -> None:
    run = make(tmp_path / "r")
    (run / "episodes" / "step_4.jsonl.gz").write_bytes(b"nonsense")
    assert write_report(run)["trajectories"] == []
    assert "None of the recorded episodes can be read" in (run / "report.html").read_text()


def test_records_of_the_wrong_kind_are_no_error(tmp_path: Path) -> None:
    base = with_figures(play([REPLY]))
    odd: list[Record] = [
        base | {"signal": None, "weights": "x"},
        base | {"roles": [9] * len(base["roles"])},
        base | {"start": {"group": 10**30, "member": -1}, "return": None, "success": None},
        base | {"rewards": [], "problems": [], "return": float("nan")},
        base | {"signal": base["signal"][1:]},
        {"ids": []},
    ]
    summary = write_report(make(tmp_path / "r", {4: [*odd, base]}))
    assert len(summary["trajectories"]) == 5


def test_without_a_tokenizer_the_facts_are_still_there(tmp_path: Path) -> None:
    run = make(tmp_path / "r")
    shutil.rmtree(run / "checkpoints" / "step_1" / "model")
    text = page(run)
    assert "Best success</h3>" in text and "tokenizer was not found" in text and "<script" not in text


def test_a_run_that_records_no_episodes(tmp_path: Path) -> None:
    text = page(make(tmp_path / "r", {}, save_episodes_every=0))
    assert "This run records no episodes: save_episodes_every is 0" in text
    assert "No episodes are recorded: save_episodes_every is 0" in text


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    lines = metrics_of(10_000)
    for line in lines[1:]:
        line |= {key: random.Random(line["step"]).random() for key in ("ratio", "kl_loss", "grad_norm")}
        line["evaluation"] = evaluation(0.5)
    summary = write_report(make(tmp_path / "r", metrics=lines, steps=10_000))
    assert summary["bytes"] < 2_000_000 - MOST_BYTES


def test_trajectories_that_are_too_long_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = report_contents(read_record(make(tmp_path / "r")))
    sizes = [len(episode["tokens"]) for episode in contents["trajectories"]["data"]["steps"][0]["episodes"]]
    monkeypatch.setattr(trajectories_module, "MOST_BYTES", sum(sizes) - 1)
    contents = report_contents(read_record(tmp_path / "r"))
    assert [chosen["too_long"] for chosen in contents["trajectories"]["chosen"]] == [False] * 4 + [True]
    assert contents["trajectories"]["data"]["steps"][0]["episodes"][-1] is None
    assert page(tmp_path / "r").count("Too long for this page") == 1


def test_no_run_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        write_report(tmp_path)


def test_contents_are_json_but_for_the_charts(tmp_path: Path) -> None:
    contents = report_contents(read_record(make(tmp_path / "r")))
    del contents["charts"]
    json.dumps(contents, allow_nan=False)
