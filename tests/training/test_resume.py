"""Resuming, promises:

1. Whenever a run is killed, the resumed run ends with the bytes of the uninterrupted one: metrics, episodes,
   weights, critic, Adam.
2. What cannot be continued is refused: a changed configuration, another initial model, a run in use.

Kills are real: a forked process gets SIGKILL just before one of its calls that sync, rename or delete files:
those part the states that a kill can leave on disk.
"""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actfocus.config import Config, to_toml
from actfocus.errors import ActfocusError, RunError
from actfocus.report.progress import SilentProgress
from actfocus.run_directory import RunDirectory
from actfocus.training.run import resume, train
from tests.training.conftest import equal_in_equal_runs
from tests.zygote import Child, zygote

MakeConfig = Callable[..., Config]
Finished = Callable[[str], Path]
QUIET = SilentProgress()
ALGORITHMS = ["grpo", "ppo"]
CALLS = [(os, "fsync"), (os, "rename"), (os, "replace"), (shutil, "rmtree")]


@pytest.fixture(autouse=True)
def quick_picture(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture costs more than the rest of a resumed step, and is tested elsewhere."""
    for algorithm in ALGORITHMS:
        finished(algorithm)  # these have a real one
    draw = lambda run, progress: (run.path / "learning_curve.png").touch()  # noqa: E731
    monkeypatch.setattr("actfocus.training.run._draw", draw)


def go_on(run: Path, config: Config) -> None:
    """What a user does after a kill: resume, or start again if the run does not exist yet."""
    if run.exists():
        resume(run, progress=QUIET)
    else:
        train(config, run, progress=QUIET)


def in_a_fork(action: Callable[[], object]) -> int:
    """Run in a process of its own; returns what `os.waitpid` says of its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def killed_at(run: Path, config: Config, moment: int, log: Path | None = None) -> bool:
    """Go on with a run in a process that is killed before its `moment`-th call; False if it ended before."""

    def action() -> None:
        calls: list[str] = []

        def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                if len(calls) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls.append(name)
                return original(*args, **options)

            return call

        for module, name in CALLS:
            setattr(module, name, watched(name, getattr(module, name)))
        go_on(run, config)
        if log is not None:
            log.write_text(json.dumps(calls))

    status = in_a_fork(action)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0
    return False


@pytest.fixture(scope="module")
def moments(
    make_config: MakeConfig, finished: Finished, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], int]:
    """How many calls an uninterrupted run makes; it also must not matter that it ran in a fork."""
    folder, known = tmp_path_factory.mktemp("moments"), dict[str, int]()

    def count(algorithm: str) -> int:
        if algorithm not in known:
            run, log = folder / algorithm, folder / f"{algorithm}.json"
            assert not killed_at(run, make_config(algorithm={"name": algorithm}), -1, log)
            calls = json.loads(log.read_text())
            assert {"fsync", "rename", "replace", "rmtree"} == set(calls)
            assert equal_in_equal_runs(run) == equal_in_equal_runs(finished(algorithm))
            known[algorithm] = len(calls)
        return known[algorithm]

    return count


def check_kills(run: Path, config: Config, moments: list[int], finished: Path) -> None:
    for moment in moments:
        assert killed_at(run, config, moment)
    go_on(run, config)
    assert equal_in_equal_runs(run) == equal_in_equal_runs(finished)
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]


@pytest.mark.parametrize(("algorithm", "share"), [("grpo", 0.0), ("grpo", 0.7), ("ppo", 0.1), ("ppo", 0.5)])
def test_a_kill_changes_nothing(
    algorithm: str,
    share: float,
    moments: Callable[[str], int],
    finished: Finished,
    make_config: MakeConfig,
    tmp_path: Path,
) -> None:
    later = random.Random(f"{algorithm}{share}").random() * 0.2 if share else 0
    moment = int((share + later) * moments(algorithm))
    check_kills(tmp_path / "run", make_config(algorithm={"name": algorithm}), [moment], finished(algorithm))


def test_a_kill_before_the_old_checkpoint_goes(
    finished: Finished, make_config: MakeConfig, moments: Callable[[str], int], tmp_path: Path
) -> None:
    """The last call of all: the run has finished, but for the old checkpoint and the picture."""
    run = tmp_path / "run"
    check_kills(run, make_config(), [moments("grpo") - 1], finished("grpo"))
    assert (run / "learning_curve.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_kill_at_every_moment_changes_nothing(
    algorithm: str, moments: Callable[[str], int], finished: Finished, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(algorithm={"name": algorithm})
    for moment in range(moments(algorithm)):
        check_kills(tmp_path / f"run{moment}", config, [moment], finished(algorithm))


def test_a_run_that_is_killed_again_and_again(
    finished: Finished, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(algorithm={"name": "ppo"})
    check_kills(tmp_path / "run", config, [12, 9, 14], finished("ppo"))


# By the command line. ----------------------------------------------------------------------------------


def start(folder: Path, *args: str) -> Child:
    return zygote().start(["actfocus", "train", *args], cwd=folder)


def kill_after(process: Child, run: Path, lines: int, delay: float) -> None:
    """SIGKILL `delay` seconds after the metrics have that many lines."""
    metrics, patience = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_bytes().splitlines()) < lines:
        assert time.monotonic() < patience
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)  # it may have ended: then its parent still holds the number
    process.wait()


def check_command_line(run: Path, config: Config, lines: int, seed: int, finished: Path) -> None:
    file = run.with_suffix(".toml")
    file.write_text(to_toml(config))
    delay = random.Random(seed).random() * 0.4
    kill_after(start(run.parent, "--config", str(file), "--out", str(run)), run, lines, delay)
    resumed = start(run.parent, "--resume", str(run)).wait(120)
    assert resumed.returncode == 0, resumed.stderr
    assert equal_in_equal_runs(run) == equal_in_equal_runs(finished)


def test_kill_and_resume_by_the_command_line(
    finished: Finished, make_config: MakeConfig, tmp_path: Path
) -> None:
    check_command_line(tmp_path / "run", make_config(algorithm={"name": "ppo"}), 3, 1, finished("ppo"))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("lines", [0, 1, 2, 3])
def test_kill_and_resume_by_the_command_line_anywhere(
    algorithm: str, lines: int, finished: Finished, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(algorithm={"name": algorithm})
    check_command_line(tmp_path / "run", config, lines, lines, finished(algorithm))


# Torn files. -------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(finished: Finished, make_config: MakeConfig, tmp_path: Path) -> Path:
    """A run with a checkpoint of step 2 and metrics up to step 3, whose last checkpoint was never begun."""
    run = tmp_path / "stopped"
    before = None

    class StopError(Exception):
        pass

    from actfocus.training import run as module

    def save(folder: Path, step: int, **state: Any) -> Path:
        if step == 3:
            raise StopError
        return before(folder, step, **state)  # type: ignore[misc,no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        before = module.save_checkpoint
        patch.setattr(module, "save_checkpoint", save)
        with pytest.raises(StopError):
            train(make_config(), run, progress=QUIET)
    assert RunDirectory(run).lines()[-1]["step"] == 3
    return run


def test_the_line_after_the_checkpoint_is_written_once(stopped: Path, finished: Finished) -> None:
    resume(stopped, progress=QUIET)
    assert equal_in_equal_runs(stopped) == equal_in_equal_runs(finished("grpo"))


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_a_torn_last_line(cut: int, stopped: Path, finished: Finished) -> None:
    for name in ("metrics.jsonl", "timing.jsonl"):
        data = (stopped / name).read_bytes()
        (stopped / name).write_bytes(data[: len(data) - cut])
    resume(stopped, progress=QUIET)
    assert equal_in_equal_runs(stopped) == equal_in_equal_runs(finished("grpo"))
    assert [line["step"] for line in RunDirectory(stopped).lines("timing.jsonl")] == [0, 1, 2, 3]


def test_a_damaged_line_inside_is_not_passed_over(stopped: Path) -> None:
    data = (stopped / "metrics.jsonl").read_bytes()
    (stopped / "metrics.jsonl").write_bytes(data.replace(b'"step": 1', b'"step: 1', 1))
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
        resume(stopped, progress=QUIET)


@pytest.mark.parametrize("line", [b"[]", b"{}", b'{"step": "1"}', b'{"step": 1, "\xff": 0}', b"[" * 100_000])
@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_a_line_of_another_kind_is_said(name: str, line: bytes, stopped: Path) -> None:
    with (stopped / name).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(RunError, match=rf"{name} is damaged"):
        resume(stopped, progress=QUIET)


# Refusals. ---------------------------------------------------------------------------------------------


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_finished_run_is_left_as_it_is(finished: Finished, tmp_path: Path) -> None:
    run, progress = tmp_path / "run", Notes()
    shutil.copytree(finished("grpo"), run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.suffix != ".png"}
    summary = resume(run, progress=progress)
    assert summary["steps"] == 3
    assert any("nothing to train" in note for note in progress.notes)
    assert {path: path.stat().st_mtime_ns for path in before} | {run / ".lock": 0} == before | {
        run / ".lock": 0
    }


def test_another_initial_model_is_refused(
    stopped: Path,
    make_config: MakeConfig,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from actfocus.training import run as module

    policy, chat = module.load_initial(make_config().model, make_config().env)
    shape = policy.causal_lm.config
    other = type(policy)(type(policy.causal_lm)(shape))
    monkeypatch.setattr(module, "load_initial", lambda *_, **__: (other, chat))
    before = equal_in_equal_runs(stopped)
    with pytest.raises(RunError, match="no longer the one"):
        resume(stopped, progress=QUIET)
    assert equal_in_equal_runs(stopped) == before


def test_without_its_record_the_first_model_is_not_taken_on_trust(stopped: Path) -> None:
    path = stopped / "environment.json"
    record = path.read_bytes()
    path.unlink()
    with pytest.raises(RunError, match=r"environment\.json is missing"):
        resume(stopped, progress=QUIET)
    assert not path.exists()
    path.write_bytes(record)
    resume_shortly(stopped)


def test_a_damaged_record_of_the_first_model_is_said(stopped: Path) -> None:
    for damage in ("{", "[]", "{}"):
        (stopped / "environment.json").write_text(damage)
        with pytest.raises(RunError, match=r"environment\.json cannot be read"):
            resume(stopped, progress=QUIET)


def test_a_wrong_key_in_the_configuration_is_named(stopped: Path) -> None:
    path = stopped / "config.toml"
    path.write_text(path.read_text().replace("\nalpha =", "\nalhpa ="))
    said = r"config\.toml is damaged: focus\.alhpa: unknown key; did you mean 'focus\.alpha'"
    with pytest.raises(RunError, match=said):
        resume(stopped, progress=QUIET)


def test_what_a_run_goes_on_with_is_kept(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stopped / "environment.json"
    before = json.loads(path.read_text())
    for version in ("3.11.99", "3.11.99", "3.12.0"):
        monkeypatch.setattr("platform.python_version", lambda version=version: version)
        resume_shortly(stopped)
    assert json.loads(path.read_text()) == before | {"resumed": [{"python": "3.11.99"}, {"python": "3.12.0"}]}


def resume_shortly(run: Path) -> None:
    """Resume a run, which stops before its first step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("actfocus.training.run.Run.go", lambda self, start: {})
        resume(run, progress=QUIET)


def test_a_run_in_use_is_refused(stopped: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"

    def second() -> None:
        try:
            resume(stopped, progress=QUIET)
        except ActfocusError as error:
            said.write_text(str(error))

    before = equal_in_equal_runs(stopped)
    with RunDirectory(stopped).locked():
        assert in_a_fork(second) == 0
    assert "being trained by another process" in said.read_text()
    assert equal_in_equal_runs(stopped) == before
    assert in_a_fork(second) == 0  # free again


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        resume(tmp_path / "nowhere", progress=QUIET)


def test_damaged_settings_are_refused(stopped: Path) -> None:
    for text in ("steps = ", "steps = -1"):
        (stopped / "config.toml").write_text(text)
        with pytest.raises(ActfocusError, match=r"config\.toml"):
            resume(stopped, progress=QUIET)


def test_only_damaged_checkpoints_are_refused(stopped: Path) -> None:
    os.truncate(stopped / "checkpoints" / "step_2" / "optimizer.safetensors", 100)
    before = equal_in_equal_runs(stopped)
    with pytest.raises(RunError, match=r"optimizer\.safetensors is damaged"):
        resume(stopped, progress=QUIET)
    assert equal_in_equal_runs(stopped) == before
