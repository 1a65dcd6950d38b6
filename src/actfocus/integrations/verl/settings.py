"""The `actfocus` section of a verl configuration, and what of verl's own would make the weights lie.

Imports no verl: the configuration is read as it is.
"""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from actfocus.config import FocusConfig, explain
from actfocus.errors import ConfigError, did_you_mean

SECTION = "actfocus"
ENGINE_SIGNALS = ("energy", "entropy")
"""The signals that the reference worker has to make of its logits."""
ENGINES = ("fsdp", "fsdp2")
"""verl's training engines whose reference can make them."""
LOSS_MODES = ("vanilla", "dppo_tv", "dppo_kl", "sapo", "gpg", "cispo")
"""Policy losses with one term per token that is positively homogeneous in the advantage."""


def read_focus(config: DictConfig) -> FocusConfig:
    """The validated settings; ActFocus's own defaults where none are given.

    Raises:
        ConfigError: Naming the key and what was meant.
    """
    section = config.get(SECTION)
    if section is None:
        near = did_you_mean(SECTION, [str(key) for key in config])
        if near:
            meant = near.split("'")[1]
            raise ConfigError(f"unknown section {meant!r}; did you mean +{SECTION}.…?")
        return FocusConfig()
    if not isinstance(section, DictConfig):
        raise ConfigError(f"{SECTION} is a table of settings, such as +{SECTION}.alpha=0.1, not {section!r}")
    given: Any = OmegaConf.to_container(section, resolve=True)
    try:
        return FocusConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{SECTION}.{explain(error, FocusConfig)}") from None


def needs_reference(focus: FocusConfig) -> bool:
    """Whether the weights read verl's reference."""
    return focus.beta > 0 and focus.signal in (*ENGINE_SIGNALS, "shift")


def needs_engine(focus: FocusConfig) -> bool:
    """Whether the reference worker must make the signal of its logits."""
    return focus.beta > 0 and focus.signal in ENGINE_SIGNALS


def refuse_unsuitable(config: DictConfig, focus: FocusConfig) -> None:
    """Refuse settings of verl's under which weights would vanish or the normaliser be another.

    Raises:
        ConfigError: Naming the setting and what to do.
    """
    for problem in _problems(config, focus):
        raise ConfigError(problem)


def _problems(config: DictConfig, focus: FocusConfig) -> Iterable[str]:
    actor, trainer = config.actor_rollout_ref.actor, config.trainer
    if not trainer.use_v1:
        yield "trainer.use_v1=False runs verl's old trainer, which ActFocus does not know: leave it True"
    if trainer.v1.trainer_mode != "sync":
        yield (
            f"trainer.v1.trainer_mode={trainer.v1.trainer_mode} trains on stale tokens, whose statistics"
            " would be those of several policies: set it to sync"
        )
    if actor.loss_agg_mode != "token-mean":
        yield (
            f"actor_rollout_ref.actor.loss_agg_mode={actor.loss_agg_mode} does not divide by the number of"
            " tokens, so that Σw cannot be the normaliser: set token-mean"
        )
    mode = actor.policy_loss.get("loss_mode", "vanilla")
    if mode not in LOSS_MODES:
        yield (
            f"actor_rollout_ref.actor.policy_loss.loss_mode={mode} is no mean over tokens of terms of their"
            f" own: weights would vanish, or have another normaliser; choose one of {', '.join(LOSS_MODES)}"
        )
    correction = config.algorithm.get("rollout_correction")
    if correction is not None and correction.get("bypass_mode", False):
        yield "algorithm.rollout_correction.bypass_mode=True replaces the policy loss: set it to False"
    if config.get("distillation") is not None and config.distillation.get("enabled", False):
        yield "distillation.enabled=True adds a loss that ActFocus does not weigh: set it to False"
    several = actor.ppo_mini_batch_size < config.data.train_batch_size
    if several and actor.shuffle and actor.ppo_epochs > 1:
        yield (
            "with actor_rollout_ref.actor.shuffle=True and ppo_epochs > 1 a row lies in another mini-batch in"
            " each epoch, so that no one Σw belongs to it: set shuffle=False, ppo_epochs=1, or"
            " ppo_mini_batch_size = data.train_batch_size"
        )
    if focus.beta > 0:
        yield from _signal_problems(config, focus)


def _signal_problems(config: DictConfig, focus: FocusConfig) -> Iterable[str]:
    whole, actor = config.actor_rollout_ref, config.actor_rollout_ref.actor
    if needs_engine(focus):
        instead = f"{SECTION}.signal={focus.signal} is made by the reference worker's engine"
        others = f"set {SECTION}.signal=shift or nll, which read verl's own log-probabilities"
        if actor.strategy not in ENGINES:
            yield f"{instead}, and only {' and '.join(ENGINES)} can: not {actor.strategy}; {others}"
        if whole.model.get("use_fused_kernels", False):
            yield f"{instead}, and fused kernels make no logits: model.use_fused_kernels=False, or {others}"
        for part in ("actor", "ref"):
            engine = whole[part].get("fsdp_config") or {}
            if max(table.get("ulysses_sequence_parallel_size", 1) for table in (whole[part], engine)) > 1:
                yield f"{instead}, and it cannot with {part}.ulysses_sequence_parallel_size > 1: {others}"
    elif whole.rollout.temperature != 1:
        yield (
            f"{SECTION}.signal={focus.signal} is that of temperature 1, and verl's log-probabilities are"
            f" those of rollout.temperature={whole.rollout.temperature}: set it to 1, or use the energy"
        )
