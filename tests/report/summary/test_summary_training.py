"""The report of real runs, promises: training leaves one, of either algorithm and of any arm; a run that was
killed has one as far as it came; lack of records never breaks training, and a full disk is a full disk.
"""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actfocus.cli import main
from actfocus.config import Config
from actfocus.report.progress import SilentProgress
from actfocus.report.summary import page as page_module
from actfocus.report.summary.page import report_contents, write_report
from actfocus.report.summary.record import read_record
from actfocus.run_directory import write_whole
from actfocus.training.run import resume, train
from tests.training import conftest

model_folder, make_config, finished = conftest.model_folder, conftest.make_config, conftest.finished

MakeConfig = Callable[..., Config]
Finished = Callable[[str], Path]
QUIET = SilentProgress()


def contents(run: Path) -> dict[str, Any]:
    return report_contents(read_record(run))


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_training_leaves_a_report(algorithm: str, finished: Finished) -> None:
    run = finished(algorithm)
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "Finished: all 3 steps." in text and len(text) < 500_000
    found = contents(run)
    assert found["notes"] == []
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = lines[-1]["evaluation"]
    assert found["headline"]["final"]["success"] == last["success"]
    assert (found["headline"]["final"]["low"], found["headline"]["final"]["high"]) == (
        last["low"],
        last["high"],
    )
    titles = {chart.title for chart in found["charts"]}
    assert titles >= {
        "Success",
        "Return",
        "Policy loss",
        "Entropy",
        "Clip fraction",
        "Ratio",
        "Share of tokens",
    }
    assert ("Value loss" in titles) == (algorithm == "ppo")
    assert [step["step"] for step in found["diagnosis"]["steps"]] == [2, 3]
    # The signal of every sampled token is recorded, and every group is kept.
    for step in found["diagnosis"]["steps"]:
        assert step["groups_with_signal"] == step["groups"] == 2
        assert {row["scope"] for row in step["scopes"]} == {"all", "reasoning", "action"}
        assert all(row["missing"] == 0 for row in step["scopes"])
        assert step["verdict"]["finding"] == "too little data"
    assert found["trajectories"]["step"] == 3
    places = [(chosen["group"], chosen["member"]) for chosen in found["trajectories"]["chosen"]]
    assert len(places) == len(set(places)) == 5
    parts = {row["part"]: row for row in found["cost"]["parts"]}
    assert parts.keys() >= {"rollout", "score", "update", "evaluation", "the rest"}
    assert sum(row["share"] for row in parts.values()) == pytest.approx(1)


def test_every_figure_of_the_metrics_that_has_a_chart_is_drawn(finished: Finished) -> None:
    line = json.loads((finished("grpo") / "metrics.jsonl").read_text().splitlines()[-1])
    found = {
        chart.title: {each.label: each.last for each in chart.lines}
        for chart in contents(finished("grpo"))["charts"]
    }
    for title, key in (("Clip fraction", "clip_fraction"), ("Ratio", "ratio"), ("Energy", "energy")):
        for role in ("reasoning", "action", "other"):
            assert found[title][role] == line[f"{key}_{role}"]
    assert found["Evenness of the weights"] == {"weights": line["weight_entropy"]}
    assert found["Norm of the gradient"] == {"policy": line["grad_norm"]}
    assert found["Length of a reply"] == {"training": line["reply_tokens"]}


def test_the_command_writes_what_training_wrote(finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "grpo"
    shutil.copytree(finished("grpo"), run)
    before = (run / "report.html").read_bytes()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() == before


def test_a_uniform_run_has_a_report(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(focus={"alpha": 1.0, "beta": 0.0}, steps=2), tmp_path / "run", progress=QUIET)
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Uniform: α 1, β 0" in text and "carry no signal: with beta = 0" in text


def test_a_run_without_records_has_a_report(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(save_episodes_every=0, steps=1), tmp_path / "run", progress=QUIET)
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Finished: all 1 steps." in text and "save_episodes_every is 0" in text


def test_a_run_without_steps_has_a_report(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(steps=0), tmp_path / "run", progress=QUIET)
    assert contents(tmp_path / "run")["headline"]["state"] == "finished"
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_killed_run_has_a_report_as_far_as_it_came(finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished("grpo"), run)
    for name in ("metrics.jsonl", "timing.jsonl"):
        text = (run / name).read_text().splitlines(keepends=True)
        (run / name).write_text("".join(text[:3]) + text[3][:30])
    (run / "episodes" / "step_3.jsonl.gz").unlink()
    shutil.rmtree(run / "checkpoints")  # killed before the first one: the tokenizer is the initial model's
    (run / "report.html").unlink()
    summary = write_report(run)
    assert (summary["state"], summary["steps"], summary["recorded_step"]) == ("unfinished", 2, 2)
    assert len(summary["trajectories"]) == 5 and summary["problems"] == []


def test_lost_or_damaged_records_do_not_break_the_end_of_training(finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished("grpo"), run)
    (run / "episodes" / "step_2.jsonl.gz").write_bytes(b"damaged")
    (run / "episodes" / "step_3.jsonl.gz").write_bytes(b"damaged")
    (run / "report.html").unlink()
    resume(run, progress=QUIET)  # finished already: draws again
    assert "None of the recorded episodes can be read" in (run / "report.html").read_text(encoding="utf-8")


def test_a_full_disk_is_said_as_that_of_any_file(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(page_module, "write_whole", full)
    run = tmp_path / "run"
    with pytest.raises(OSError, match="No space left"):
        train(make_config(steps=1), run, progress=QUIET)
    assert main(["report", str(run)]) == 2
    assert capsys.readouterr().err.startswith("actfocus: the disk is full (")
    monkeypatch.setattr(page_module, "write_whole", write_whole)
    resume(run, progress=QUIET)  # nothing was lost
    assert (run / "report.html").is_file()
