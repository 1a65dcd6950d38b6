"""Runs that fail, promises:

1. Whatever is not finite stops the run before the update; the offending batch is on disk, the last healthy
   checkpoint is untouched, and the error says both.
2. A run that fails before its first step leaves nothing in the way, one that fails later all it recorded.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from actfocus.config import Config
from actfocus.envs import EVALUATION_SEEDS
from actfocus.envs.frozen_lake import FrozenLake
from actfocus.errors import ConfigError, GameError, NonFiniteError
from actfocus.focus import Role
from actfocus.models.critic import Critic
from actfocus.models.language_model import LanguageModel
from actfocus.models.reference import FrozenCopy
from actfocus.report.progress import SilentProgress
from actfocus.rollout.batch import Batch
from actfocus.rollout.seeds import training_starts
from actfocus.rollout.trajectory import Trajectory
from actfocus.training import loop as loop_module
from actfocus.training.checkpoint import verify
from actfocus.training.loop import Loop
from actfocus.training.run import resume, train
from tests.training.conftest import SMALL, equal_in_equal_runs, lines, records

MakeConfig = Callable[..., Config]
Finished = Callable[[str], Path]
QUIET = SilentProgress()


Poison = Callable[[pytest.MonkeyPatch, int], None]


def poison_weights(policy: LanguageModel) -> None:
    with torch.no_grad():
        policy.parameters()[-1].view(-1)[0] = math.nan


def weights_while_sampling(patch: pytest.MonkeyPatch, at: int) -> None:
    original = Loop.run

    def run(self: Loop, step: loop_module.Step) -> None:
        if step.number == at:
            poison_weights(self._policy)
        original(self, step)

    patch.setattr(Loop, "run", run)


def after_rollout(
    patch: pytest.MonkeyPatch, at: int, change: Callable[[Loop, list[Trajectory]], None]
) -> None:
    original = Loop._rollout

    def rollout(self: Loop, step: loop_module.Step) -> None:
        original(self, step)
        if step.number == at:
            change(self, step.episodes)

    patch.setattr(Loop, "_rollout", rollout)


def weights_after_sampling(patch: pytest.MonkeyPatch, at: int) -> None:
    after_rollout(patch, at, lambda loop, _: poison_weights(loop._policy))


def spoil_reward(patch: pytest.MonkeyPatch, at: int, episode: int, value: float) -> None:
    original = loop_module.sample_episodes

    def sample(*args: Any, **options: Any) -> list[Trajectory]:
        records = original(*args, **options)
        step_seeds = {start.level_seed for start in training_starts(SMALL["seed"], at, 2, 4)}
        if {record.start.level_seed for record in records} <= step_seeds:
            records[episode].rewards[-1] = value
        return records

    patch.setattr(loop_module, "sample_episodes", sample)


def reward(patch: pytest.MonkeyPatch, at: int) -> None:
    spoil_reward(patch, at, 3, math.nan)


def infinite_reward(patch: pytest.MonkeyPatch, at: int) -> None:
    spoil_reward(patch, at, -1, -math.inf)


def reference(patch: pytest.MonkeyPatch, at: int) -> None:
    def spoil(loop: Loop, _: Sequence[Trajectory]) -> None:
        assert isinstance(loop._scorer._reference, FrozenCopy)
        poison_weights(loop._scorer._reference._model)

    original = LanguageModel.parameters
    patch.setattr(LanguageModel, "parameters", lambda self: original(self) or list(self.model.parameters()))
    after_rollout(patch, at, spoil)


def gradient(patch: pytest.MonkeyPatch, at: int) -> None:
    def spoil(loop: Loop, _: Sequence[Trajectory]) -> None:
        loop._policy.parameters()[0].register_hook(lambda gradient: gradient * math.inf)

    after_rollout(patch, at, spoil)


def critic(patch: pytest.MonkeyPatch, at: int) -> None:
    def spoil(loop: Loop, _: Sequence[Trajectory]) -> None:
        assert isinstance(loop._scorer._critic, Critic)
        with torch.no_grad():
            loop._scorer._critic.value.bias[0] = math.nan

    after_rollout(patch, at, spoil)


@pytest.fixture(scope="session")
def halfway(
    make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path, str, float], None]:
    """Lays a run that stopped after its second step, of three, at a path."""
    folder = tmp_path_factory.mktemp("halfway")

    def lay(path: Path, algorithm: str, keep: float) -> None:
        kept = folder / f"{algorithm}-{keep}"
        if not kept.exists():
            config = make_config(algorithm={"name": algorithm}, rollout={"keep": keep})
            with pytest.MonkeyPatch.context() as patch:
                reward(patch, 3)
                with pytest.raises(NonFiniteError):
                    train(config, kept, progress=QUIET)
            shutil.rmtree(kept / "failed")
        shutil.copytree(kept, path)

    return lay


POISONS: list[tuple[Poison, float, str]] = [
    (weights_while_sampling, 1.0, "while sampling"),
    (weights_after_sampling, 1.0, "the policy's log-probabilities"),
    (reward, 1.0, "rewards"),
    (infinite_reward, 1.0, "rewards"),
    (reward, 0.5, "rewards"),
    (infinite_reward, 0.5, "rewards"),  # of a group that is not trained on
    (reference, 1.0, "the reference's log-probabilities"),
    (gradient, 1.0, "grad_norm"),
    (critic, 1.0, "the critic's values"),
]


@pytest.mark.parametrize(("poison", "keep", "named"), POISONS)
def test_not_finite_stops_before_the_update(
    poison: Poison,
    keep: float,
    named: str,
    halfway: Callable[[Path, str, float], None],
    finished: Finished,
    tmp_path: Path,
) -> None:
    run, algorithm = tmp_path / "run", "ppo" if poison is critic else "grpo"
    halfway(run, algorithm, keep)
    healthy = equal_in_equal_runs(run)
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, 3)
        with pytest.raises(NonFiniteError) as caught:
            resume(run, progress=QUIET)
    message = str(caught.value)
    checkpoint, failed = run / "checkpoints" / "step_2", run / "failed" / "step_3.jsonl.gz"
    for part in ("step 3 stopped before the update", named, str(checkpoint), str(failed)):
        assert part in message
    assert len(records(failed)) == 8
    assert all(record["ids"] for record in records(failed))
    # Metrics and checkpoint are as they were; without the poison the run goes on as if nothing had been.
    assert equal_in_equal_runs(run) == healthy
    assert [line["step"] for line in lines(run)] == [0, 1, 2]
    if keep == 1:
        resume(run, progress=QUIET)
        assert equal_in_equal_runs(run) == equal_in_equal_runs(finished(algorithm))


def test_a_signal_has_to_be_finite_at_action_tokens_alone(small_episodes: Batch) -> None:
    """Energy is checked at every sampled token; the signal may be unknown where nothing reads it."""
    batch, is_action_BT = small_episodes, small_episodes.roles_BT == Role.ACTION
    batch.signal_BT = torch.where(is_action_BT, 1.0, math.nan)
    loop_module._require_finite(batch)
    row, place = torch.argwhere(is_action_BT)[-1].tolist()
    batch.signal_BT[row, place] = math.inf
    with pytest.raises(NonFiniteError, match="the signal of action tokens"):
        loop_module._require_finite(batch)


def test_a_run_that_never_began_does_not_stand_in_the_way(make_config: MakeConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="a context of 20 leaves no room"):
        train(make_config(rollout={"context": 20}), out, progress=QUIET)
    assert not out.exists()
    train(make_config(steps=1), out, progress=QUIET)  # the corrected command


class FailsLater(FrozenLake):
    """A game of the user's own that raises in the first step, after the first evaluation."""

    def reset(self, *, seed: int | None = None, **options: Any) -> Any:
        if seed not in EVALUATION_SEEDS:
            raise ValueError("no such level")
        return super().reset(seed=seed, **options)


def test_a_game_that_fails_keeps_what_was_recorded(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(env={"name": f"{__name__}:FailsLater"})
    with pytest.raises(GameError, match=r"FailsLater: reset raised ValueError: no such level.*failures\.py"):
        train(config, tmp_path / "run", progress=QUIET)
    assert [line["step"] for line in lines(tmp_path / "run")] == [0]


def test_before_the_first_checkpoint_the_error_says_so(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward(monkeypatch, 1)
    with pytest.raises(NonFiniteError, match="no checkpoint yet"):
        train(make_config(), tmp_path / "run", progress=QUIET)
    null = [
        record
        for record in records(tmp_path / "run" / "failed" / "step_1.jsonl.gz")
        if record["return"] is None
    ]
    assert len(null) == 1
    assert null[0]["rewards"][-1] is None


@pytest.mark.parametrize("every", [1, 100], ids=["evaluated", "not-evaluated"])
def test_an_update_that_breaks_the_policy_is_not_saved(
    every: int, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradient were finite, but the step was so wide that the new weights are of no use."""
    run, original = tmp_path / "run", loop_module.Updater.update

    def update(self: Any, batch: Any, step: int) -> dict[str, float]:
        metrics = original(self, batch, step)
        if step == 2:
            with torch.no_grad():
                self._policy_parameters[-1].mul_(1e38).mul_(1e38)
        return metrics

    monkeypatch.setattr(loop_module.Updater, "update", update)
    config = make_config(checkpoint_every=1, evaluation={"every": every}, steps=4)
    with pytest.raises(NonFiniteError) as caught:
        train(config, run, progress=QUIET)
    assert "step 2" in str(caught.value)
    assert str(run / "checkpoints" / "step_1") in str(caught.value)
    assert verify(run / "checkpoints" / "step_1") == 1
    assert not (run / "checkpoints" / "step_2").exists()
    assert [line["step"] for line in lines(run)] == [0, 1]


def test_a_report_that_cannot_be_written_leaves_a_whole_run(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise KeyError("turns")

    monkeypatch.setattr("actfocus.training.run.write_report", fail)
    notes: list[str] = []
    progress = SilentProgress()
    monkeypatch.setattr(progress, "note", notes.append)
    summary = train(make_config(steps=1), tmp_path / "run", progress=progress)
    assert summary["steps"] == 1 and verify(tmp_path / "run" / "checkpoints" / "step_1") == 1
    assert any("report.html" in note and "actfocus report" in note for note in notes)
