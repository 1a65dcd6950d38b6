"""Runs, promises:

1. A run leaves every file that the design names; equal runs leave equal bytes.
2. Evaluation stands before training, every N steps and at the end.
3. An existing run is never overwritten.
"""

import json
import math
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from actfocus.config import Config, load_config
from actfocus.errors import RunError
from actfocus.focus import SAMPLED_ROLES, Role, token_weights
from actfocus.models.loading import load
from actfocus.report.progress import SilentProgress
from actfocus.rollout.trajectory import Trajectory
from actfocus.run_directory import RunDirectory
from actfocus.training.checkpoint import load_policy, verify
from actfocus.training.run import train
from tests.training.conftest import SMALL, equal_in_equal_runs, lines, records

MakeConfig = Callable[..., Config]
Finished = Callable[[str], Path]
QUIET = SilentProgress()


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
    for name, role in (("reasoning", Role.REASONING), ("action", Role.ACTION)):
        share = roles.count(role) / metrics["sampled_tokens"]
        assert metrics[f"{name}_share"] == pytest.approx(share)
    assert metrics["action_signal"] == metrics["energy_action"]
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

    monkeypatch.setattr("actfocus.run_directory.write_whole", full)
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
