"""The weighted clipped surrogate, and the KL penalty beside it.

    L = −(1 / Σ w_t) Σ w_t · min(ρ_t A_t, clip(ρ_t, 1 − ε_low, 1 + ε_high) A_t),   ρ_t = π_θ / π_old

Legend: B trajectories, T tokens.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float

_MAX_LOG_RATIO = 60.0
"""So that exp cannot overflow in float32: clipping an infinite ratio would give the gradient 0 · inf."""


class PolicyStatistics(NamedTuple):
    """What happened at each token; without gradient. Where the weight is 0: False, or ratio 1 and kl 0."""

    used_BT: torch.Tensor
    """Whether the weight is not 0."""
    clipped_BT: torch.Tensor
    """Whether the clipped term was the smaller one: the token gave no gradient."""
    ratio_BT: torch.Tensor
    kl_BT: torch.Tensor
    """Divergence from the policy that sampled, estimated by ρ − 1 − log ρ."""


def policy_loss(
    logprobs_BT: Float[torch.Tensor, "*B"],
    old_logprobs_BT: Float[torch.Tensor, "*B"],
    advantages_BT: Float[torch.Tensor, "*B"],
    weights_BT: Float[torch.Tensor, "*B"],
    *,
    clip_low: float,
    clip_high: float,
    normalizer: float | torch.Tensor | None = None,
) -> tuple[Float[torch.Tensor, ""], PolicyStatistics]:
    """Weighted clipped policy loss.

    Args:
        logprobs_BT: log π_θ(y_t | c_t), with gradient.
        old_logprobs_BT: log π_old(y_t | c_t).
        advantages_BT: Advantage of each token.
        weights_BT: Weight of each token; where it is 0 the other inputs are not read (NaN may stand there)
            and the gradient is exactly 0.
        clip_low: ε_low; the ratio is clipped at 1 − ε_low from below.
        clip_high: ε_high; the ratio is clipped at 1 + ε_high from above.
        normalizer: Σ w_t over all tokens of the optimiser step: over micro-batches, accumulation steps and
            ranks. The sum of `weights_BT` by default.

    Returns:
        The loss, and what happened at each token. Where Σ w_t = 0 the loss is 0 with gradient 0.
    """
    used_BT = weights_BT != 0
    # Masked before exp: NaN · 0 is NaN, in the sum and in the gradient.
    zeros_BT = torch.zeros_like(logprobs_BT)
    log_ratio_BT = torch.where(used_BT, logprobs_BT - old_logprobs_BT.detach(), zeros_BT)
    log_ratio_BT = log_ratio_BT.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    ratio_BT = log_ratio_BT.exp()
    advantages_BT = torch.where(used_BT, advantages_BT.detach(), zeros_BT)
    surrogate_BT = ratio_BT * advantages_BT
    clipped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high) * advantages_BT
    if normalizer is None:
        normalizer = weights_BT.sum()
    total = (weights_BT * torch.minimum(surrogate_BT, clipped_BT)).sum()
    loss = -total / normalizer if normalizer != 0 else -total

    with torch.no_grad():
        statistics = PolicyStatistics(
            used_BT=used_BT,
            clipped_BT=used_BT & (clipped_BT < surrogate_BT),
            ratio_BT=ratio_BT.detach(),
            kl_BT=(ratio_BT - 1 - log_ratio_BT).detach(),
        )
    return loss, statistics


def kl_penalty(
    logprobs_BT: Float[torch.Tensor, "*B"],
    ref_logprobs_BT: Float[torch.Tensor, "*B"],
    kind: Literal["k1", "k3"],
) -> Float[torch.Tensor, "*B"]:
    """Estimate of KL(π_θ ‖ π_ref) at each sampled token: k1 is unbiased, k3 is never negative.

    Source: J. Schulman, "Approximating KL divergence" (2020).
    """
    log_ratio_BT = ref_logprobs_BT.detach() - logprobs_BT
    if kind == "k1":
        return -log_ratio_BT
    if kind == "k3":
        return log_ratio_BT.exp() - 1 - log_ratio_BT
    raise ValueError(f"the KL estimator is k1 or k3, not {kind!r}")
