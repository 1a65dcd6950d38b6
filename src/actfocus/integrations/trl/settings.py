"""Settings of TRL under which token weights would silently vanish or lie: refused, with what to do."""

from typing import Any

from actfocus.config import FocusConfig
from actfocus.errors import ConfigError, did_you_mean
from actfocus.integrations.trl.signal import needs_reference

LOSS_TYPES = ("dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "vespo")
"""Those whose gradient has one term per token, with the advantage as its factor."""


def refuse_unsuitable(focus: FocusConfig, args: Any) -> None:
    """Refuse what would not do as it says.

    Args:
        focus: The weights that are asked for.
        args: The trainer's `GRPOConfig`.

    Raises:
        ConfigError: Naming the setting and what to do.
    """
    if args.importance_sampling_level != "token":
        raise ConfigError(
            f"importance_sampling_level = {args.importance_sampling_level!r} shares one ratio among the"
            " tokens of a completion, so that token weights would vanish from the gradient: set it to 'token'"
        )
    if args.loss_type == "luspo":
        raise ConfigError(
            "loss_type = 'luspo' is made for one ratio per completion, in which token weights would vanish:"
            f" choose one of {', '.join(LOSS_TYPES)}"
        )
    if args.loss_type not in LOSS_TYPES:
        raise ConfigError(
            f"loss_type = {args.loss_type!r} is not one that token weights are written for:"
            f" {', '.join(LOSS_TYPES)}{did_you_mean(args.loss_type, LOSS_TYPES)}"
        )
    if args.steps_per_generation % args.gradient_accumulation_steps:
        raise ConfigError(
            f"steps_per_generation = {args.steps_per_generation} is no multiple of"
            f" gradient_accumulation_steps = {args.gradient_accumulation_steps}: an update would begin before"
            " all of its completions are sampled, so Σw would be unknown; make it a multiple"
        )
    if args.sync_ref_model and needs_reference(focus):
        raise ConfigError(
            f"sync_ref_model = True moves the reference, but the signal {focus.signal} is that of a frozen"
            " one: set it to False, or choose focus.signal = nll"
        )
