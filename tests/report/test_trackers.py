"""Trackers, promises:

1. A tracker gets every number of `metrics.jsonl` and `timing.jsonl`, each step once, and the configuration;
   the run's own bytes are those of a run without one.
2. After a kill, the resumed run goes on as the same run of the tracker: no step is there twice, none is
   missing. Other trackers may be chosen then; they get the steps before, too.
3. A tracker that fails, whenever and however, is named once and dropped; training goes on.
4. A missing package is one line, exit code 2, and nothing is left behind.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actfocus.cli import main
from actfocus.cli.train import chosen_trackers
from actfocus.config import Config
from actfocus.errors import ActfocusError, ConfigError, NonFiniteError, RunError
from actfocus.report import trackers as module
from actfocus.report.progress import SilentProgress
from actfocus.report.trackers import (
    Subject,
    check_installed,
    flat_figures,
    flat_settings,
    remembered_trackers,
    tracking,
)
from actfocus.run_directory import RunDirectory
from actfocus.training import run as run_module
from actfocus.training.run import resume, train
from tests.report.tracked import Notes, expected, killed
from tests.training.conftest import equal_in_equal_runs, finished, make_config, model_folder

__all__ = ["finished", "make_config", "model_folder"]

MakeConfig = Callable[..., Config]
Finished = Callable[[str], Path]


class Fake:
    """A tracker in memory that can fail or kill."""

    made: list["Fake"]

    def __init__(self, subject: Subject) -> None:
        self.subject, self.id, self.newest, self.where = subject, subject.id or "first", -1, "here"
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed: list[bool] = []
        Fake.made.append(self)

    def log(self, step: int, figures: Any) -> None:
        self.rows.append((step, figures))

    def close(self, failed: bool) -> None:
        self.closed.append(failed)


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.made = []
    monkeypatch.setitem(module.TRACKERS, "fake", Fake)
    real = module.importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: real("json" if name == "fake" else name)
    )


@pytest.fixture(autouse=True)
def quick_picture(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    finished("grpo")  # tests elsewhere share it, and look for its picture
    monkeypatch.setattr(run_module, "_draw", lambda run, progress: None)


# What is sent. ------------------------------------------------------------------------------------------


def test_figures_are_flat_and_finite() -> None:
    record = {
        "schema": 1, "step": 3, "return": 0.5, "evaluation": {"success": 1, "step": 7, "name": "x"},
        "gradient_share": {"before": {"action": 0.25}, "after": {}}, "flag": True, "text": "0.5",
        "none": None, "nan": float("nan"), "inf": float("inf"), "list": [1, 2], "seconds": {"rollout": None},
    }  # fmt: skip
    assert flat_figures(record) == {
        "return": 0.5, "evaluation/success": 1, "evaluation/step": 7, "gradient_share/before/action": 0.25,
        "flag": 1,
    }  # fmt: skip


def test_settings_are_flat() -> None:
    flat = flat_settings(Config().model_dump(mode="json"))
    assert (flat["focus.alpha"], flat["env.name"], flat["algorithm.whiten"]) == (0.1, "frozen-lake", True)
    assert flat["optimizer.betas"] == "[0.9, 0.999]"
    assert "env.turns" not in flat  # not set
    assert {type(value) for value in flat.values()} <= {bool, int, float, str}


def test_every_line_goes_to_the_tracker_and_the_bits_stay(
    finished: Finished, make_config: MakeConfig, tmp_path: Path
) -> None:
    progress = Notes()
    train(make_config(), tmp_path / "run", progress=progress, trackers=["fake"])
    (fake,) = Fake.made
    assert [step for step, _ in fake.rows] == [0, 1, 2, 3]
    assert dict(fake.rows) == expected(tmp_path / "run")
    assert {"evaluation/success", "seconds/rollout", "policy_loss", "peak_memory_bytes"} <= fake.rows[2][
        1
    ].keys()
    assert fake.subject.name == "run"
    assert fake.subject.settings["rollout.group"] == 4
    assert fake.closed == [False]
    assert progress.warnings == []
    assert equal_in_equal_runs(tmp_path / "run") == equal_in_equal_runs(finished("grpo"))


def test_only_the_main_process_tracks(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", Config())
    for is_main in (False, True):
        with run_module._tracked(
            run, ["fake"], SimpleNamespace(is_main=is_main, together=nullcontext), Notes()
        ):  # type: ignore[arg-type]
            assert len(Fake.made) == is_main
    assert Fake.made[0].closed == [False]


# Resuming. ----------------------------------------------------------------------------------------------


def test_a_resumed_run_keeps_its_trackers_and_their_ids(
    make_config: MakeConfig, finished: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed(run, make_config(), ["fake"], 3)  # the checkpoint is that of step 2
    assert remembered_trackers(run) == ("fake",)
    resume(run, progress=SilentProgress())
    (fake,) = Fake.made
    assert fake.subject.id == "first"
    assert [step for step, _ in fake.rows] == [0, 1, 2, 3]  # it said that it had none
    assert dict(fake.rows) == expected(run)
    assert equal_in_equal_runs(run) == equal_in_equal_runs(finished("grpo"))


def test_a_step_that_the_tracker_has_is_not_sent_again(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Keeps(Fake):
        def __init__(self, subject: Subject) -> None:
            super().__init__(subject)
            self.newest = 1

    killed(tmp_path / "run", make_config(), ["fake"], 3)
    monkeypatch.setitem(module.TRACKERS, "fake", Keeps)
    resume(tmp_path / "run", progress=SilentProgress())
    assert [step for step, _ in Fake.made[0].rows] == [2, 3]


def test_other_trackers_may_be_chosen_and_none(make_config: MakeConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed(run, make_config(), [], 3)
    assert not (run / module.STATE).exists()
    resume(run, progress=SilentProgress(), trackers=["fake"])
    assert dict(Fake.made[0].rows) == expected(run)
    # Of a finished run too the history is sent, with the tracker that it has or with another.
    resume(run, progress=SilentProgress())
    assert dict(Fake.made[1].rows) == expected(run)
    assert Fake.made[1].subject.id == "first"
    resume(run, progress=SilentProgress(), trackers=[])
    assert remembered_trackers(run) == ()
    resume(run, progress=SilentProgress())
    assert len(Fake.made) == 2
    assert json.loads((run / module.STATE).read_text()) == {"trackers": [], "ids": {"fake": "first"}}


def test_the_command_line_chooses(tmp_path: Path) -> None:
    (tmp_path / module.STATE).write_text('{"trackers": ["wandb"], "ids": {}}')
    assert chosen_trackers((), None) == ()
    assert chosen_trackers((), tmp_path) == ("wandb",)
    assert chosen_trackers(("none",), tmp_path) == ()
    assert chosen_trackers(("trackio", "tensorboard", "trackio"), tmp_path) == ("trackio", "tensorboard")
    with pytest.raises(ConfigError, match="--tracker none"):
        chosen_trackers(("none", "wandb"), None)
    (tmp_path / module.STATE).write_text("[")
    with pytest.raises(RunError, match=r"tracking\.json is damaged: delete it"):
        chosen_trackers((), tmp_path)


def test_the_option_reaches_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []

    def stand_in(config: Config, out: Path, **options: Any) -> dict[str, Any]:
        calls.append(options["trackers"])
        return {"run": "r", "steps": 0, "evaluations": [], "final_success": None, "peak_success": None}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: SimpleNamespace(origin="there"))
    monkeypatch.setattr(run_module, "train", stand_in)
    assert main(["train", "--tracker", "tensorboard", "--tracker", "wandb", "--json"]) == 0
    assert main(["train", "--json"]) == 0
    assert calls == [("tensorboard", "wandb"), ()]
    assert main(["train", "--tracker", "mlflow"]) == 2
    assert "--tracker" in capsys.readouterr().err


# Failing. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["__init__", "log", "close"])
@pytest.mark.parametrize("error", [OSError("network\nis down"), SystemExit(1), ImportError("no such symbol")])
def test_a_tracker_that_fails_is_named_once_and_dropped(
    moment: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(Fake):
        tried = 0

    def fail(self: Fails, *_: object) -> None:
        Fails.tried += 1
        raise error

    monkeypatch.setattr(Fails, moment, fail)
    monkeypatch.setitem(module.TRACKERS, "fails", Fails)
    run, notes = RunDirectory.create(tmp_path / "run", Config()), Notes()
    with tracking(run, ["fails", "fake"], notes.note) as trackers:
        for step in range(3):
            trackers.log({"step": step, "return": 1.0})
    assert Fails.tried == 1
    (said,) = notes.warnings
    assert "tracker fails failed" in said and "metrics.jsonl" in said and type(error).__name__ in said
    other = next(fake for fake in Fake.made if type(fake) is Fake)
    assert [step for step, _ in other.rows] == [0, 1, 2]
    assert other.closed == [False]
    assert remembered_trackers(run.path) == ("fails", "fake")  # tried again when the run is resumed


def test_training_goes_on_without_the_tracker(
    finished: Finished, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(Fake, "log", fail)
    progress = Notes()
    train(make_config(), tmp_path / "run", progress=progress, trackers=["fake"])
    assert len(progress.warnings) == 1
    assert equal_in_equal_runs(tmp_path / "run") == equal_in_equal_runs(finished("grpo"))


def test_control_c_stops_the_run_and_not_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Fake, "log", interrupted)
    notes = Notes()
    with (
        pytest.raises(KeyboardInterrupt),
        tracking(RunDirectory.create(tmp_path / "run", Config()), ["fake"], notes.note) as trackers,
    ):
        trackers.log({"step": 0})
    assert notes.warnings == []
    assert Fake.made[0].closed == [True]


def test_control_c_while_the_trackers_begin_closes_those_that_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Fake):
        def __init__(self, subject: Subject) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(module.TRACKERS, "slow", Slow)
    run = RunDirectory.create(tmp_path / "run", Config())
    with pytest.raises(KeyboardInterrupt), tracking(run, ["fake", "slow"]):
        pass
    (opened,) = Fake.made
    assert opened.closed == [True]


def test_the_tracker_learns_that_the_run_failed(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise NonFiniteError("the loss is nan")

    monkeypatch.setattr("actfocus.training.loop.Loop.run", broken)
    with pytest.raises(ActfocusError, match="loss is nan"):
        train(make_config(), tmp_path / "run", progress=SilentProgress(), trackers=["fake"])
    assert Fake.made[0].closed == [True]


# Missing. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_package_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    for words in (["--out", "o"], ["--dry-run"]):
        assert main(["train", *words, "--tracker", name]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert len(said.err.splitlines()) == 1
        assert "pip install 'actfocus[tracking]'" in said.err and name in said.err
    with pytest.raises(RunError, match="pip install"):
        train(Config(), tmp_path / "o", progress=SilentProgress(), trackers=[name])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_that_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left_behind").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(module.TRACKERS, "left_behind", Fake)
    with pytest.raises(RunError, match="pip install"):
        check_installed(["left_behind"])
    with pytest.raises(RunError, match="there is no tracker 'mlflow'"):
        check_installed(["mlflow"])


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, actfocus.report.trackers;"
        "print([n for n in ('torch', 'tensorboard', 'trackio', 'wandb') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"[]\n"
