"""`actfocus compare`, promises: a grid of real runs survives `kill -9` and goes on; what is done is skipped;
a plan makes nothing; existing runs are read; what is wrong is one line that names option, key or file.

The first test trains, for about forty seconds; in the others `stand_in.py` plays the runs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from actfocus.compare.arms import choose_arms
from actfocus.compare.directory import CompareDirectory, Grid, is_busy
from actfocus.compare.grid import make_cells
from actfocus.config import FocusConfig
from tests.cli.conftest import Result
from tests.compare.by_hand import UNIFORM, make_run, settings
from tests.compare.conftest import stand_in  # noqa: F401 - a fixture

Call = Callable[..., Result]

SMALL = (
    "steps=3 checkpoint_every=1 save_episodes_every=0 env.turns=1 rollout.prompts=2 rollout.group=2"
    " rollout.response=12 rollout.context=400 evaluation.states=2 evaluation.samples=1 evaluation.every=1"
)
GRID = ["--algorithm", "grpo", "--seeds", "0", "1", "--jobs", "2"]
SHORT = [*GRID, "--set", "steps=2", "evaluation.every=1"]


@pytest.mark.slow
def test_a_real_grid_is_killed_and_goes_on(tmp_path: Path, actfocus: Call) -> None:
    words = [*GRID, "--set", *SMALL.split(), "--out", "d"]
    command = [sys.executable, "-m", "actfocus", "compare", *words]
    first = tmp_path / "d" / "runs" / "frozen-lake-grpo-uniform-0"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=log, stdout=log)
        deadline = time.monotonic() + 120
        while not (first / "checkpoints" / "step_1").is_dir():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "resumed frozen-lake-grpo-uniform-0" in done.stderr, done.stderr
    assert "no verdict: 2 pairs of equal seed; an interval needs 3" in done.stdout
    directory = CompareDirectory(tmp_path / "d")
    for cell in directory.load().cells:
        record = directory.record(cell)
        assert directory.is_done(cell, record) and not is_busy(directory.run_path(cell))
        assert [point.step for point in record.points] == [0, 1, 2, 3]
        assert record.environment["threads"] == 1
    report = json.loads((tmp_path / "d" / "report.json").read_text())
    assert report["runs"] == 4 and report["machine"]["jobs"] == 2 and not report["failed"]

    again = actfocus("compare", "--out", "d", "--json")
    assert again.code == 0 and "started" not in again.err
    assert json.loads(again.out) == report
    plan = actfocus("compare", "--out", "d", "--plan", *words[:-2], "--seeds", "0", "1", "2")
    assert plan.code == 0 and "minutes with" in plan.out and "this directory's runs" in plan.out, plan.err


def test_a_grid_its_report_and_its_extension(actfocus: Call, stand_in: None, tmp_path: Path) -> None:  # noqa: F811
    result = actfocus("compare", *SHORT, "--out", "d", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out, parse_constant=pytest.fail)
    assert report["runs"] == 4
    assert report["commands"] == [
        "actfocus compare --algorithm grpo --seeds 0 1 --set steps=2 evaluation.every=1 --jobs 2 --out d"
    ]
    more = actfocus(
        "compare", *SHORT, "--seeds", "2", "3", "--arm", "uniform", "actfocus", "beta:2", "--out", "d"
    )
    assert more.code == 0, more.err
    assert "Report: d/report.md" in more.out
    # The stand-in's success grows with beta and seed: every pair differs by as much.
    assert "actfocus against uniform: no verdict: all pairs differ by the same amount" in more.out
    text = (tmp_path / "d" / "report.md").read_text()
    assert "| actfocus | 4 |" in text and "| beta2 | 2 |" in text and text.count("actfocus compare --") == 2
    # Without options: the same grid, all of it done.
    again = actfocus("compare", "--out", "d")
    assert again.code == 0 and "started" not in again.err
    assert (tmp_path / "d" / "report.md").read_text() == text
    assert actfocus("compare", "--read", "d", "--out", "copy").code == 0
    assert (tmp_path / "copy" / "report.md").read_text() == text


def test_a_failing_run_is_reported(actfocus: Call, stand_in, tmp_path: Path) -> None:  # noqa: F811
    stand_in.setenv("STAND_IN_FAILS", "actfocus-1")
    result = actfocus("compare", *SHORT, "--out", "d")
    assert result.code == 1
    said = "failed: frozen-lake-grpo-actfocus-1: step 1 stopped before the update: the loss is not finite"
    assert said in result.out and "FAILED frozen-lake-grpo-actfocus-1" in result.err
    assert "**Failed runs.**" in (tmp_path / "d" / "report.md").read_text()
    stand_in.setenv("STAND_IN_FAILS", "frozen")
    nothing = actfocus("compare", *SHORT, "--out", "e")
    assert nothing.code == 2 and "no run is finished" in nothing.err and "not finite" in nothing.err


def test_other_settings_are_refused_by_key(actfocus: Call, stand_in: None) -> None:  # noqa: F811
    assert actfocus("compare", *SHORT, "--out", "d").code == 0
    for plan in ([], ["--plan"]):
        mixed = actfocus("compare", *GRID, "--set", "steps=5", "env.turns=1", "--out", "d", *plan)
        assert mixed.code == 2
        assert (
            "d was made with other settings for frozen-lake, grpo: env.turns, evaluation.every, steps"
            in mixed.err
        )


def test_interrupted(actfocus: Call, stand_in, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from actfocus.compare.runner import Runner

    def stop(self: Runner, cells: object) -> None:
        self.results.done.append("x")
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "run", stop)
    result = actfocus("compare", *SHORT, "--out", "d")
    assert result.code == 130
    assert "interrupted; 1 of 4 runs are done; go on with: actfocus compare --out d" in result.err


def test_a_plan_makes_nothing(actfocus: Call, tmp_path: Path) -> None:
    plan = actfocus("compare", "--env", "frozen-lake", "sokoban", "--seeds", "0", "1", "--out", "d", "--plan")
    assert plan.code == 0, plan.err
    assert "not known for frozen-lake, grpo; frozen-lake, ppo; sokoban, grpo" in plan.out
    figures = json.loads(actfocus("compare", "--plan", "--json", "--step-seconds", "2", "--jobs", "3").out)[
        "plan"
    ]
    assert (figures["runs"], figures["to_start"], figures["steps_left"], figures["jobs"]) == (12, 12, 432, 3)
    assert figures["seconds"] > 432 * 2 / 3 and figures["memory_a_run"] > 2**29
    swept = actfocus(
        "compare", "--plan", "--json", "--lr", "1e-4", "1e-3", "--alphas", "0", "1", "--seeds", "3"
    )
    assert json.loads(swept.out)["cells"] == [
        f"frozen-lake-{algorithm}-lr{lr}-{arm}-3"
        for algorithm in ("grpo", "ppo")
        for lr in ("0.0001", "0.001")
        for arm in ("uniform", "actfocus", "alpha0", "alpha1")
    ]
    assert not list(tmp_path.iterdir())


def test_a_plan_names_runs_that_cannot_go_on(actfocus: Call, tmp_path: Path) -> None:
    words = ["--env", "frozen-lake", "--algorithm", "grpo", "--seeds", "0", "--out", "d", "--plan", "--json"]
    damaged = tmp_path / "d" / "runs" / "frozen-lake-grpo-uniform-0"
    damaged.mkdir(parents=True)
    (damaged / "config.toml").write_text("steps = ")
    figures = json.loads(actfocus("compare", *words).out)["plan"]
    assert (figures["runs"], figures["to_start"]) == (1, 1)
    assert figures["cannot_go_on"] == ["frozen-lake-grpo-uniform-0"]
    shown = actfocus("compare", *words[:-1]).out
    assert "cannot go on: frozen-lake-grpo-uniform-0: " in shown and "move" in shown


def make_table(folder: Path) -> None:
    for seed, (before, after) in enumerate([(0.5, 0.625), (0.25, 0.5), (0.375, 0.4375)]):
        make_run(folder / f"u{seed}", settings(UNIFORM, seed), [0.25, 0.25, before])
        make_run(folder / f"f{seed}", settings(seed=seed), [0.25, 0.25, after])
        (folder / f"u{seed}.log").write_text("")


def test_existing_runs_are_read(actfocus: Call, tmp_path: Path) -> None:
    make_table(tmp_path / "table")
    result = actfocus("compare", "--read", "table", "--out", "report", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    row = report["comparisons"][0]["against_base"]["actfocus"]
    assert row["final_difference"]["each"] == [[0.125, 0.25, 0.0625]]
    # 0.1458333 ± 4.302653 · 0.0954703 / √3
    assert row["verdict"]["text"] == "no difference shown: interval −9.1 to +38.3 points, 3 pairs"
    assert report["commands"] == ["actfocus compare --read table --out report"]
    named = actfocus(
        "compare", "--read", *[f"table/{kind}{seed}" for kind in "uf" for seed in (0, 1)], "--out", "r"
    )
    assert named.code == 0 and "no verdict: 2 pairs" in named.out
    assert {path.suffix for path in (tmp_path / "r").iterdir()} == {".md", ".json", ".png", ".svg"}


def test_two_folders_make_one_sweep(actfocus: Call, tmp_path: Path) -> None:
    make_table(tmp_path / "grid" / "runs")
    for alpha in (0.0, 0.3):
        for seed in range(3):
            focus = FocusConfig(alpha=alpha)
            path = tmp_path / "sweep" / "runs" / f"a{alpha}-{seed}"
            make_run(path, settings(focus, seed), [0.25, 0.25, 0.5 + seed / 8])
    result = actfocus("compare", "--read", "grid", "sweep", "--out", "report", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert list(report["comparisons"][0]["arms"]) == ["uniform", "actfocus", "alpha0", "alpha0.3"]
    assert "sweep_alpha" in report["pictures"] and (tmp_path / "report" / "sweep_alpha.svg").is_file()


def test_a_folder_that_is_extended(actfocus: Call, tmp_path: Path) -> None:
    directory = CompareDirectory(tmp_path / "d")
    arms = choose_arms(["uniform", "mine=alpha:0.3"], [], [])
    options = {"envs": [], "algorithms": ["grpo"], "lrs": [], "config": None}
    changes = ["steps=2", "evaluation.every=1"]
    cells = make_cells(arms=arms, seeds=[0, 1], changes=changes, **options)  # type: ignore[arg-type]
    directory.save(Grid(cells, ["actfocus compare"], False, None))
    for cell in cells[:3]:
        make_run(directory.run_path(cell), cell.config, [0.1, 0.2, 0.3])
    # What has not begun is in no figure, and that is said.
    result = actfocus("compare", "--read", "d")
    assert result.code == 0 and "unfinished: frozen-lake-grpo-mine-1: not begun" in result.out
    # The same weights under another name do not become a second arm.
    more = ["--algorithm", "grpo", "--set", *changes, "--arm", "uniform", "other=alpha:0.3", "--seeds", "2"]
    plan = actfocus("compare", *more, "--out", "d", "--plan", "--json")
    assert json.loads(plan.out)["cells"] == ["frozen-lake-grpo-uniform-2", "frozen-lake-grpo-mine-2"]


def test_another_comparison_came_between(
    actfocus: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = CompareDirectory.locked

    def later(self: CompareDirectory) -> AbstractContextManager[None]:
        self.save(Grid([], ["another"], False, None))
        return locked(self)

    monkeypatch.setattr(CompareDirectory, "locked", later)
    result = actfocus("compare", *SHORT, "--out", "d")
    assert result.code == 2 and "d was changed by another comparison meanwhile" in result.err
    assert CompareDirectory(tmp_path / "d").load().commands == ["another"]


def test_what_is_wrong_is_one_line(actfocus: Call, tmp_path: Path) -> None:
    make_table(tmp_path / "table")
    make_run(tmp_path / "other", settings(steps=5, rollout={"keep": 1.0}), [0.5] * 6)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "report.md").write_text("ours")
    cases = {
        "": "--out is missing",
        "--out full/file": "--out: full/file is no folder: name another",
        "--read table --out full/file": "--out: full/file is no folder: name another",
        "--out full/file/deep": "full/file is not a folder",
        "--read table --out dangling": "--out: dangling is no folder: name another",
        "--read table --out docs": "docs/report.md is not a report of actfocus compare",
        "--out nothing": "there is no comparison nothing; to begin one",
        "--out d --timing table/u0": "--timing goes with --plan only",
        "--out d --step-seconds 2": "--step-seconds goes with --plan only",
        "--out full": "full exists already and is no comparison",
        "--out d --env chess": "--env: input should be one of",
        "--out d --env sokobann": "did you mean 'sokoban'",
        "--out d --algorithm dpo": "--algorithm: input should be one of 'grpo', 'ppo', got 'dpo'",
        "--out d --arm actfcus": "--arm: unknown arm 'actfcus'; did you mean 'actfocus'?",
        "--out d --arm x=alpha:7": "--arm x=alpha:7: focus.alpha: input should be less than or equal to 1",
        "--out d --alphas 2": "--alphas: focus.alpha",
        "--out d --seeds x": "--seeds",
        "--out d --seeds 1 1": "--seeds: 1 is given twice",
        "--out d --seed 1": "unknown option --seed; did you mean '--seeds'?",
        "--out d --set stesp=1": "--set stesp: unknown key; did you mean 'steps'?",
        "--out d --set env.clues=5": "clues belongs to sudoku",
        "--out d --lr 0": "optimizer.lr: input should be greater than 0",
        "--out d --jobs 0": "--jobs: input should be at least 1",
        "--out d --config missing.toml": "missing.toml: No such file",
        "--out d --set model.name=./nowhere": "nowhere",
        "--plan --step-seconds -1": "--step-seconds: input should be more than 0",
        "--plan --timing nowhere": "no run directory nowhere",
        "--read table": "--out is missing: the folder of the report",
        "--read nowhere --out r": "no run directory nowhere",
        "--read full --out r": "full is not a run directory and holds none",
        "--read table --out table/u0": "table/u0 holds runs of its own",
        "--read table --out r --seeds 1": "--seeds does not go with --read",
        "--read table other --out r": "other do not compare: they differ in rollout.keep, steps",
        "--read table table/../table --out r": "same arm",
    }
    for words, said in cases.items():
        result = actfocus("compare", *words.split())
        assert (result.code, result.out) == (2, ""), words
        assert result.err.startswith("actfocus: ") and result.err.count("\n") == 1, result.err
        assert said in result.err, words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "docs", "full", "other", "table"]
    assert (tmp_path / "docs" / "report.md").read_text() == "ours"
