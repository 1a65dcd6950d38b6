"""Settings: read by hydra, validated by us, refused where weights would lie; one line, exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from actfocus.config import FocusConfig
from actfocus.errors import ConfigError
from actfocus.integrations.verl.runner import prepare
from actfocus.integrations.verl.settings import read_focus, refuse_unsuitable
from tests.verl.config import composed


def test_settings_are_read() -> None:
    config = composed(
        "+actfocus.alpha=0", "+actfocus.beta=1", "+actfocus.signal=shift", "+actfocus.other_weight=0.5"
    )
    assert read_focus(config) == FocusConfig(alpha=0, beta=1, signal="shift", other_weight=0.5)
    assert read_focus(composed()) == FocusConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+actfocus.alhpa=0.1", r"actfocus\.alhpa: unknown key; did you mean 'alpha'"),
        ("+actfocus.alpha=2", r"actfocus\.alpha: .*less than or equal to 1, got 2"),
        ("+actfocus.alpha=much", r"actfocus\.alpha: .*got 'much'"),
        ("+actfocus.signal=enrgy", r"actfocus\.signal: "),
        ("+actfocus=0.1", "actfocus is a table of settings"),
        ("+actfocsu.alpha=0.1", r"unknown section 'actfocsu'; did you mean \+actfocus"),
    ],
)
def test_wrong_settings(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_focus(composed(override))


ACTOR = "actor_rollout_ref.actor"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.use_v1=False"], "use_v1"),
        (["trainer.v1.trainer_mode=colocate_async"], "trainer_mode"),
        ([f"{ACTOR}.loss_agg_mode=seq-mean-token-mean"], "loss_agg_mode"),
        ([f"{ACTOR}.policy_loss.loss_mode=gspo"], "loss_mode=gspo"),
        (["algorithm.rollout_correction.bypass_mode=True"], "bypass_mode"),
        (["distillation.enabled=True"], "distillation"),
        (
            [f"{ACTOR}.shuffle=True", f"{ACTOR}.ppo_epochs=2", f"{ACTOR}.ppo_mini_batch_size=8"],
            "ppo_epochs > 1",
        ),
        ([f"{ACTOR}.strategy=megatron"], "signal=energy .* not megatron"),
        (["actor_rollout_ref.model.use_fused_kernels=True"], "fused kernels"),
        (["actor_rollout_ref.ref.ulysses_sequence_parallel_size=2"], "ulysses"),
        (["actor_rollout_ref.ref.fsdp_config.ulysses_sequence_parallel_size=2"], "ulysses"),
        (["actor_rollout_ref.rollout.temperature=0.7", "+actfocus.signal=shift"], "temperature=0.7"),
        (["actor_rollout_ref.rollout.temperature=0.7", "+actfocus.signal=nll"], "temperature=0.7"),
    ],
)
def test_unsuitable_settings(overrides: list[str], message: str) -> None:
    config = composed(*overrides)
    with pytest.raises(ConfigError, match=message):
        refuse_unsuitable(config, read_focus(config))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["actor_rollout_ref.rollout.temperature=0.7"],
        ["+actfocus.signal=nll", "actor_rollout_ref.model.use_fused_kernels=True"],
        ["+actfocus.beta=0", f"{ACTOR}.strategy=megatron"],
        [f"{ACTOR}.shuffle=True", f"{ACTOR}.ppo_epochs=2", f"{ACTOR}.ppo_mini_batch_size=1024"],
    ],
)
def test_suitable_settings(overrides: list[str]) -> None:
    config = composed(*overrides)
    refuse_unsuitable(config, read_focus(config))


def test_the_reference_is_switched_on_where_a_signal_needs_it() -> None:
    config = composed()
    before = OmegaConf.to_container(config, resolve=True)
    focus, notes = prepare(config)
    assert config.actor_rollout_ref.actor.use_kl_loss and config.actor_rollout_ref.actor.kl_loss_coef == 0
    assert len(notes) == 1 and "needs verl's reference worker" in notes[0]
    assert config.actfocus.alpha == focus.alpha == 0.1
    after = OmegaConf.to_container(config, resolve=True)
    assert {key for key in after if after[key] != before.get(key)} == {"actfocus", "actor_rollout_ref"}


def test_a_reference_of_the_users_own_is_left_alone() -> None:
    config = composed(f"{ACTOR}.use_kl_loss=True", f"{ACTOR}.kl_loss_coef=0.01")
    _, notes = prepare(config)
    assert not notes and config.actor_rollout_ref.actor.kl_loss_coef == 0.01
    config = composed("+actfocus.signal=nll")
    _, notes = prepare(config)
    assert not notes and not config.actor_rollout_ref.actor.use_kl_loss


def test_the_command_says_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "actfocus.integrations.verl", "+actfocus.alhpa=1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last == "actfocus: actfocus.alhpa: unknown key; did you mean 'alpha'?"
    assert "Traceback" not in done.stderr + done.stdout
