"""Runs, promises:

1. A run leaves every file that the design names; equal runs leave equal bytes.
2. Evaluation stands before training, every N steps and at the end.
3. Whatever is not finite stops the run before the update; the offending batch is on disk, the last healthy
   checkpoint is untouched, and the error says both.
4. An existing run is never overwritten.
"""

import gzip
import json
import math
import platform
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from actfocus.config import Config, load_config
from actfocus.envs import EVALUATION_SEEDS
from actfocus.envs.frozen_lake import FrozenLake
from actfocus.errors import ConfigError, GameError, NonFiniteError, RunError
from actfocus.focus import SAMPLED_ROLES, Role, token_weights
from actfocus.models.critic import Critic
from actfocus.models.language_model import LanguageModel
from actfocus.models.loading import load
from actfocus.models.reference import FrozenCopy
from actfocus.report.progress import SilentProgress
from actfocus.rollout.seeds import training_starts
from actfocus.rollout.trajectory import Trajectory
from actfocus.training import loop as loop_module
from actfocus.training.checkpoint import load_policy, verify
from actfocus.training.loop import Loop
from actfocus.training.run import resume, train
from actfocus.training.run_directory import RunDirectory
from tests.training.conftest import SMALL, equal_in_equal_runs

MakeConfig = Callable[..., Config]
Finished = Callable[[str], Path]
QUIET = SilentProgress()


def lines(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


# What a run leaves behind. -----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_the_run_directory_is_complete(algorithm: str, finished: Finished, make_config: MakeConfig) -> None:
    run = finished(algorithm)
    found = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert found == {
        "config.toml", "environment.json", "metrics.jsonl", "timing.jsonl", "episodes", "checkpoints",
        "learning_curve.png", "report.html",
    }  # fmt: skip
    assert load_config(run / "config.toml") == make_config(algorithm={"name": algorithm})
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_3"]
    assert verify(run / "checkpoints" / "step_3") == 3
    assert (run / "checkpoints" / "step_3" / "critic.safetensors").exists() == (algorithm == "ppo")
    picture = (run / "learning_curve.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 5000
    environment = json.loads((run / "environment.json").read_text())
    assert {"torch", "threads", "processes", "device", "initial_weights"} <= environment.keys()
    assert torch.cuda.is_available() or environment["device"].split()[0] == platform.machine()


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_every_step_has_its_line(algorithm: str, finished: Finished) -> None:
    run = finished(algorithm)
    metrics, timing = lines(run), lines(run, "timing.jsonl")
    assert [line["step"] for line in metrics] == [line["step"] for line in timing] == [0, 1, 2, 3]
    assert {line["schema"] for line in metrics + timing} == {1}
    assert [line["step"] for line in metrics if "evaluation" in line] == [0, 2, 3]
    for line in metrics[1:]:
        assert 0 < line["sampler_trainer_difference"] < 1e-4
        assert line["updates"] + line["skipped_updates"] == 2
        assert ("value_loss" in line) == (algorithm == "ppo")
        assert 1 < line["action_weight"] < 1.5
    for line in timing[1:]:
        assert line["seconds"].keys() >= {"rollout", "score", "update", "step"}
        assert line["peak_memory_bytes"] > 2**20


def test_evaluations_have_an_interval(finished: Finished) -> None:
    settings = SMALL["evaluation"]
    for line in lines(finished("grpo")):
        if "evaluation" in line:
            found = line["evaluation"]
            assert 0 <= found["low"] <= found["success"] <= found["high"] <= 1
            assert found["episodes"] == settings["states"] * settings["samples"]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_episodes_say_everything_of_every_token(algorithm: str, finished: Finished) -> None:
    run = finished(algorithm)
    assert sorted(path.name for path in (run / "episodes").iterdir()) == [
        "step_2.jsonl.gz",
        "step_3.jsonl.gz",
    ]
    found = records(run / "episodes" / "step_2.jsonl.gz")
    assert len(found) == SMALL["rollout"]["prompts"] * SMALL["rollout"]["group"]
    metrics = lines(run)[2]
    difference, roles, signal, weights, ratio = 0.0, [], [], [], []
    for record in found:
        trajectory = Trajectory.from_json(record)
        assert record["return"] == trajectory.total_return == sum(record["rewards"])
        names = ["ids", "roles", "turns", "logprobs", "old_logprobs", "entropy", "signal", "advantages"]
        names += ["weights", "ratio"]
        names += ["values"] if algorithm == "ppo" else []
        assert {len(record[name]) for name in names} == {len(trajectory.ids)}
        for name in ("weights", "advantages", "old_logprobs", "logprobs", "signal", "entropy", "ratio"):
            assert all(record[name][t] == 0 for t, r in enumerate(trajectory.roles) if r == Role.CONTEXT), (
                name
            )
        pairs = zip(record["logprobs"], record["old_logprobs"], strict=True)
        difference = max(difference, *(abs(a - b) for a, b in pairs))
        roles += record["roles"]
        signal += record["signal"]
        weights += record["weights"]
        ratio += record["ratio"]
    assert metrics["sampler_trainer_difference"] == pytest.approx(difference, rel=1e-6)
    assert set(roles) == {0, 1, 2, 3}
    expected = token_weights(torch.tensor(roles, dtype=torch.int8), torch.tensor(signal), alpha=0.1, beta=0.5)
    assert weights == pytest.approx(expected.tolist(), abs=1e-6)
    assert metrics["tokens"] == len(roles)
    assert metrics["sampled_tokens"] == sum(role != Role.CONTEXT for role in roles)
    # The metrics of each role are means over the tokens that are recorded here.
    for name, role in SAMPLED_ROLES.items():
        for key, figures in ((f"energy_{name}", signal), (f"ratio_{name}", ratio)):
            chosen = [figure for figure, r in zip(figures, roles, strict=True) if r == role]
            assert metrics[key] == pytest.approx(sum(chosen) / len(chosen), rel=1e-5), key
    shares = [weight / sum(weights) for weight in weights if weight]
    entropy = -sum(share * math.log(share) for share in shares) / math.log(metrics["sampled_tokens"])
    assert metrics["weight_entropy"] == pytest.approx(entropy, rel=1e-5)
    assert 0 < entropy < 1


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_measuring_gradients_changes_no_bit_of_the_training(
    algorithm: str, finished: Finished, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(algorithm={"name": algorithm})
    assert config.gradients_every == 10
    for every, steps in ((0, []), (10, [1]), (2, [1, 2])):
        run = finished(algorithm)
        if every != 10:
            run = tmp_path / str(every)
            train(config.model_copy(update={"gradients_every": every}), run, progress=QUIET)
        found = lines(run)
        shares = {line["step"]: line.pop("gradient_share") for line in found if "gradient_share" in line}
        assert list(shares) == steps
        for share in shares.values():
            for when in ("before", "after"):
                assert share[when].keys() == SAMPLED_ROLES.keys()
                assert sum(share[when].values()) == pytest.approx(1)
            # α = 0.1 turns reasoning down, actions weigh more than 1.
            assert share["after"]["action"] > share["before"]["action"]
            assert share["after"]["reasoning"] < share["before"]["reasoning"]
        expected = [
            {k: v for k, v in line.items() if k != "gradient_share"} for line in lines(finished(algorithm))
        ]
        assert found == expected


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_equal_runs_leave_equal_bytes(
    algorithm: str, finished: Finished, make_config: MakeConfig, tmp_path: Path
) -> None:
    train(make_config(algorithm={"name": algorithm}), tmp_path / "again", progress=QUIET)
    assert equal_in_equal_runs(tmp_path / "again") == equal_in_equal_runs(finished(algorithm))


def test_an_existing_run_is_never_overwritten(
    finished: Finished, make_config: MakeConfig, tmp_path: Path
) -> None:
    before = equal_in_equal_runs(finished("grpo"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    for path in (finished("grpo"), tmp_path / "empty", tmp_path / "file"):
        with pytest.raises(RunError, match="never overwritten"):
            train(make_config(), path, progress=QUIET)
    assert equal_in_equal_runs(finished("grpo")) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_at_the_start_leaves_nothing(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("actfocus.training.run_directory.write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        RunDirectory.create(tmp_path / "run", make_config())
    assert list(tmp_path.iterdir()) == []


def test_without_steps_the_model_is_evaluated_and_saved(make_config: MakeConfig, tmp_path: Path) -> None:
    summary = train(make_config(steps=0), tmp_path / "run", progress=QUIET)
    assert [evaluation["step"] for evaluation in summary["evaluations"]] == [0]
    assert verify(tmp_path / "run" / "checkpoints" / "step_0") == 0


def test_without_weight_nothing_is_learnt_and_the_run_goes_on(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    # Replies of one token hold no action, and nothing else weighs anything.
    config = make_config(focus={"alpha": 0.0}, rollout={"response": 1}, steps=2)
    train(config, tmp_path / "run", progress=QUIET)
    for line in lines(tmp_path / "run")[1:]:
        assert (line["updates"], line["skipped_updates"]) == (0, 2)
    policy, before = load(config.model)[0], load(config.model)[0]
    load_policy(tmp_path / "run" / "checkpoints" / "step_2", policy)
    for now, then in zip(policy.parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then)


# What is not finite. -----------------------------------------------------------------------------------

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
    (reference, 1.0, "the reference's energy"),
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


def test_a_run_that_never_began_does_not_stand_in_the_way(make_config: MakeConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"rollout\.context = 20 leaves no room"):
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
    with pytest.raises(GameError, match=r"FailsLater: reset raised ValueError: no such level.*test_run\.py"):
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
    assert any("no report.html" in note and "actfocus report" in note for note in notes)
