"""Commands, promises: defaults, file and flags reach the function, the stronger last; `--json` prints one
JSON object on stdout and nothing else; an interruption says how to go on; a bug keeps its traceback.

What trains is replaced by stand-ins: the real thing is tested in tests/training.
"""

import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actfocus.config import Config, WarmstartConfig
from actfocus.errors import GameError, NonFiniteError
from tests.cli.conftest import Result, make_run

Call = Callable[..., Result]
StandIn = Callable[..., None]

EVALUATION = {"step": 0, "success": 0.25, "low": 0.2, "high": 0.31, "return": 0.2, "episodes": 256}
SUMMARY = {
    "run": "runs/x",
    "steps": 2,
    "evaluations": [EVALUATION, EVALUATION | {"step": 2, "success": 0.5, "return": float("nan")}],
    "final_success": 0.5,
    "peak_success": 0.5,
    "seconds": 1.5,
}


class Recorder:
    """Remembers how it was called."""

    def __init__(self, result: Any) -> None:
        self.result, self.args, self.options = result, (), {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.args, self.options = args, options
        print("a library speaks")
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def train(stand_in: StandIn) -> Recorder:
    train = Recorder(SUMMARY)
    stand_in("actfocus.training.run", train=train, resume=Recorder(SUMMARY))
    return train


def test_train_without_options_has_the_defaults(actfocus: Call, train: Recorder) -> None:
    result = actfocus("train")
    assert result.code == 0, result.err
    config, out = train.args
    assert config == Config()
    assert re.fullmatch(r"runs/frozen-lake-grpo-focus-0-\d{8}-\d{6}", str(out))
    assert "50.0" in result.out and "+25.0" in result.out and "before" in result.out and "after" in result.out
    assert f"Run: {out}\nLearning curve: {out}/learning_curve.png\n" in result.out


def test_flags_override_the_file_and_the_file_the_defaults(
    actfocus: Call, train: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(
        "seed = 4\nsteps = 7\n[focus]\nalpha = 1.0\nbeta = 0\n[env]\nname='sokoban'"
    )
    assert actfocus("train", "--config", "c.toml", "--steps", "9", "--algorithm", "ppo").code == 0
    config, out = train.args
    assert (config.seed, config.steps, config.focus.alpha, config.focus.beta) == (4, 9, 1.0, 0.0)
    assert (config.env.name, config.algorithm.name) == ("sokoban", "ppo")
    assert out.name.startswith("sokoban-ppo-uniform-4-")


def test_every_kind_of_flag(actfocus: Call, train: Recorder) -> None:
    words = "--env sudoku --env.clues 6 --model tiny --algorithm.no-whiten --optimizer.betas 0.5 0.6 --out o"
    assert actfocus("train", *words.split(), "--focus.other-weight=0.3", "--focus.signal", "nll").code == 0
    config, out = train.args
    assert config.env.settings() == {"clues": 6}
    assert not config.algorithm.whiten
    assert config.optimizer.betas == (0.5, 0.6)
    assert (config.focus.other_weight, config.focus.signal, out) == (0.3, "nll", Path("o"))


def test_help_shows_the_defaults_of_the_file(actfocus: Call, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("steps = 123\n")
    assert "(default: 123)" in actfocus("train", "--config", "c.toml", "--help").out


def test_json_is_alone_on_stdout_and_valid(actfocus: Call, train: Recorder) -> None:
    result = actfocus("train", "--json")
    assert result.code == 0
    found = json.loads(result.out, parse_constant=pytest.fail)
    assert found["final_success"] == 0.5
    assert found["evaluations"][1]["return"] is None
    assert found["learning_curve"] == f"{train.args[1]}/learning_curve.png"
    assert "a library speaks" in result.err


def test_resume_takes_the_settings_of_the_run(actfocus: Call, stand_in: StandIn, tmp_path: Path) -> None:
    resume = Recorder(SUMMARY)
    stand_in("actfocus.training.run", train=None, resume=resume)
    make_run(tmp_path / "r", Config(seed=5), steps=(1,))
    result = actfocus("train", "--resume", "r")
    assert result.code == 0
    assert resume.args == (Path("r"),)
    assert "Learning curve: r/learning_curve.png" in result.out
    # The same settings said again are no change.
    assert actfocus("train", "--resume", "r", "--seed", "5").code == 0


def test_resume_does_not_make_the_game(actfocus: Call, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in("actfocus.training.run", train=None, resume=Recorder(SUMMARY))
    lost = Config.model_validate({"env": {"name": "lost:Game"}, "model": {"name": "."}})
    make_run(tmp_path / "r", lost, steps=(1,))
    (tmp_path / "config.json").touch()  # enough to pass for a model
    assert actfocus("train", "--resume", "r").code == 0
    assert "lost:Game" in actfocus("train", "--env", "lost:Game", "--model", ".").err


def test_dry_run(actfocus: Call, stand_in: StandIn, tmp_path: Path) -> None:
    figures = {"tokens_per_step": 460_800, "memory_bytes": {"weights": 2**30, "total": 3 * 2**20}}
    plan = Recorder(figures)
    stand_in("actfocus.training.plan", plan=plan)
    shown = actfocus("train", "--dry-run", "--seed", "3")
    assert shown.code == 0, shown.err
    assert plan.args[0].seed == 3
    assert "seed = 3" in shown.out and "[rollout]" in shown.out
    assert "460,800" in shown.out and "1.00 GiB" in shown.out and "3.0 MiB" in shown.out
    found = json.loads(actfocus("train", "--dry-run", "--json").out)
    assert found["plan"] == figures
    assert Config.model_validate_json(json.dumps(found["config"])) == Config()
    assert not list(tmp_path.iterdir())


def test_interrupted_training_says_how_to_go_on(actfocus: Call, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in(
        "actfocus.training.run", train=Recorder(KeyboardInterrupt()), resume=Recorder(KeyboardInterrupt())
    )
    early = actfocus("train", "--out", "o")
    assert early.code == 130
    assert early.err == "actfocus: interrupted before the run began; nothing is left of it\n"
    make_run(tmp_path / "r", steps=(10,))
    late = actfocus("train", "--resume", "r")
    assert late.code == 130
    assert late.err == "actfocus: interrupted (kept: step 10); go on with: actfocus train --resume r\n"
    (tmp_path / "r" / "checkpoints" / "step_10").rename(tmp_path / "gone")
    assert "(without a checkpoint yet, so it will begin anew)" in actfocus("train", "--resume", "r").err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "cannot read or write /x/y"),
        (NonFiniteError("loss is nan\nat step 3"), "loss is nan at step 3"),
    ],
)
def test_errors_from_outside_are_one_line(
    actfocus: Call, train: Recorder, error: Exception, said: str
) -> None:
    train.result = error
    result = actfocus("train")
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_full_disk_is_found_under_another_error(actfocus: Call, train: Recorder) -> None:
    wrapped = RuntimeError("cannot write the checkpoint")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    train.result = wrapped
    assert "the disk is full" in actfocus("train").err


def test_a_bug_keeps_its_traceback(actfocus: Call, train: Recorder) -> None:
    train.result = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        actfocus("train")


def test_the_traceback_of_a_game_can_be_had(
    actfocus: Call, train: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.result = GameError("the game my:Game: play raised KeyError: 3 (my.py:4: return x[3])")
    short = actfocus("train")
    assert (short.code, short.err.count("\n")) == (2, 1)
    assert short.err.endswith("(my.py:4: return x[3]); ACTFOCUS_TRACEBACK=1 shows the traceback\n")
    monkeypatch.setenv("ACTFOCUS_TRACEBACK", "1")
    long = actfocus("train")
    assert long.code == 2
    assert long.err.startswith("Traceback") and long.err.endswith("(my.py:4: return x[3])\n")


def test_of_several_processes_only_the_first_speaks(
    actfocus: Call, train: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "give --out" in actfocus("train").err
    monkeypatch.setenv("RANK", "1")
    make_run(tmp_path / "o")  # by the first process
    result = actfocus("train", "--out", "o", "--json")
    assert (result.code, result.out) == (0, "")
    assert train.args == (Config(), Path("o"))


def test_eval(actfocus: Call, stand_in: StandIn, tmp_path: Path) -> None:
    evaluate_run = Recorder(EVALUATION | {"step": 10})
    stand_in("actfocus.training.run", evaluate_run=evaluate_run)
    settings = {"evaluation": {"states": 12, "samples": 3, "temperature": 0.7}}
    make_run(tmp_path / "r", Config.model_validate(settings), steps=(5, 10))
    assert "25.0" in actfocus("eval", "r").out
    assert evaluate_run.args == (Path("r"),)
    options = {key: value for key, value in evaluate_run.options.items() if key != "progress"}
    assert options == {"states": 12, "samples": 3, "temperature": 0.7, "step": None}
    result = actfocus("eval", "r", "--states", "2", "--temperature", "0", "--step", "5", "--json")
    assert json.loads(result.out)["success"] == 0.25
    options = {key: value for key, value in evaluate_run.options.items() if key != "progress"}
    assert options == {"states": 2, "samples": 3, "temperature": 0.0, "step": 5}


def test_warmstart(actfocus: Call, stand_in: StandIn) -> None:
    warmstart = Recorder({"model": "runs/w/model", "loss": 0.5, "success": EVALUATION})
    stand_in("actfocus.training.warmstart", warmstart=warmstart)
    result = actfocus("warmstart", "--env", "sokoban", "--episodes", "5", "--out", "w")
    assert result.code == 0, result.err
    config, out = warmstart.args
    assert isinstance(config, WarmstartConfig)
    assert (config.env.name, config.episodes, out) == ("sokoban", 5, Path("w"))
    assert "actfocus train --env sokoban --model runs/w/model" in result.out
    assert json.loads(actfocus("warmstart", "--json").out)["loss"] == 0.5


def test_warmstart_without_evaluation(actfocus: Call, stand_in: StandIn) -> None:
    warmstart = Recorder({"model": "runs/w/model", "loss": 0.5, "success": None})
    stand_in("actfocus.training.warmstart", warmstart=warmstart)
    result = actfocus("warmstart", "--evaluation-states", "0", "--out", "w")
    assert result.code == 0, result.err
    assert warmstart.args[0].evaluation_states == 0
    assert "Loss: 0.5000" in result.out and "success" not in result.out
    found = json.loads(actfocus("warmstart", "--evaluation-states", "0", "--json").out)
    assert found["success"] is None


def test_warmstart_makes_a_tiny_for_a_game_of_ones_own(
    actfocus: Call, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ships is for our games alone, but a warm start begins with fresh weights."""
    stand_in(
        "actfocus.training.warmstart",
        warmstart=Recorder({"model": "m", "loss": 0.5, "success": EVALUATION}),
    )
    (tmp_path / "my_pond.py").write_text("from actfocus.envs.frozen_lake import FrozenLake as Game")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert actfocus("warmstart", "--env", "my_pond:Game").code == 0
    refused = actfocus("train", "--env", "my_pond:Game")
    assert (refused.code, "tiny ships for" in refused.err) == (2, True)


def test_play(actfocus: Call, stand_in: StandIn) -> None:
    result = {"seed": 3, "success": True, "return": 6.0, "turns": 2, "finished": True}
    play = Recorder(result)
    stand_in("actfocus.cli.play", play=play)
    assert actfocus("play", "sudoku", "--seed", "3", "--clues", "9").code == 0
    assert play.args == ("sudoku",)
    assert play.options == {"seed": 3, "settings": {"clues": 9}}
    found = json.loads(actfocus("play", "frozen-lake", "--json").out)
    assert play.options["seed"] is None
    assert found == {"env": "frozen-lake"} | result


def test_play_shows_the_game_on_stderr_and_the_result_on_stdout(
    actfocus: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("left\n"))
    shown = actfocus("play", "frozen-lake", "--seed", "4", "--success-rate", "1", "--json")
    expected = {"seed": 4, "success": False, "return": 0.0, "turns": 1, "finished": False}
    assert json.loads(shown.out) == {"env": "frozen-lake"} | expected
    assert "Played: left." in shown.err


@dataclass(frozen=True)
class Checked:
    seeds: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def test_check_env(actfocus: Call, stand_in: StandIn) -> None:
    check = Recorder(Checked(1000, ()))
    stand_in("actfocus.envs.check", check_environment=check)
    assert actfocus("check-env", "sokoban").code == 0
    assert callable(check.options.pop("progress"))
    assert (check.args, check.options) == (("sokoban",), {"settings": {}, "seeds": 1000, "fuzz": 100_000})
    check.result = Checked(5, ("level 3 [has] no solution",))
    found = actfocus("check-env", "sokoban", "--seeds", "5", "--fuzz", "6")
    assert found.code == 1
    assert "level 3 [has] no solution" in found.out
    assert check.options.items() >= {"seeds": 5, "fuzz": 6}.items()
    shown = actfocus("check-env", "sokoban", "--json")
    assert shown.code == 1
    assert json.loads(shown.out) == {
        "env": "sokoban",
        "ok": False,
        "problems": ["level 3 [has] no solution"],
        "seeds": 5,
    }


def test_models(actfocus: Call, stand_in: StandIn) -> None:
    listed = [
        {"name": "tiny", "parameters": 920_000, "source": "[built]", "cached": False, "path": ""},
        {"name": "big", "parameters": 135_000_000, "source": "hub", "cached": True, "path": "/c/big"},
    ]
    fetch = Recorder(Path("/c/big"))
    stand_in("actfocus.models.registry", models=lambda: listed, fetch=fetch)
    shown = actfocus("models").out
    assert "135,000,000" in shown and "[built]" in shown and "/c/big" in shown
    assert json.loads(actfocus("models", "--json").out) == {"models": listed}
    assert "/c/big" in actfocus("models", "fetch", "big").out
    assert fetch.args == ("big",)
    assert json.loads(actfocus("models", "fetch", "big", "--json").out) == {"name": "big", "path": "/c/big"}


def test_version(actfocus: Call) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", actfocus("--version").out)


def test_a_reader_that_leaves_is_no_error(
    actfocus: Call, monkeypatch: pytest.MonkeyPatch, train: Recorder
) -> None:
    train.result = BrokenPipeError()
    with open("sink", "w") as sink:
        monkeypatch.setattr(sys, "stdout", sink)
        assert actfocus("train").code == 141


def test_threads_wait_without_spinning_for_long(actfocus: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside another program a step would otherwise take ten times as long."""
    for given, expected in [
        ({}, "2000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ]:
        with monkeypatch.context() as patch:
            for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
                patch.setenv(name, "")
                patch.delenv(name)
            for name, value in given.items():
                patch.setenv(name, value)
            assert actfocus("--version").code == 0
            assert os.environ.get("GOMP_SPINCOUNT") == expected
