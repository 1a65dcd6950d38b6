"""Token weights: the whole idea of ActFocus in one function (arXiv 2605.14558).

    w_t = 0                                    not sampled
    w_t = α                                    reasoning
    w_t = 1 + β · sigmoid((s_t − μ) / σ)       action; μ, σ over all action tokens of the batch
    w_t = other_weight, by default α           sampled, in neither span

(α, β) = (1, 0) is plain PPO or GRPO; (0.1, 0.5) is ActFocus.

Legend: B trajectories, T tokens.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int8

from actfocus.focus.roles import Role

AllReduce = Callable[[torch.Tensor], torch.Tensor]
"""Sums a tensor over all ranks and returns the sum."""


@torch.no_grad()
def token_weights(
    roles_BT: Int8[torch.Tensor, "*B"],
    signal_BT: Float[torch.Tensor, "*B"] | None = None,
    *,
    alpha: float,
    beta: float,
    other_weight: float | None = None,
    eps: float = 1e-6,
    all_reduce: AllReduce | None = None,
) -> Float[torch.Tensor, "*B"]:
    """Weight of each token in the policy loss.

    Args:
        roles_BT: `Role` of each token.
        signal_BT: Raw score of each token; only action tokens are read, so anything, NaN included, may
            stand elsewhere. May be None when β = 0.
        alpha: Weight of reasoning tokens, in [0, 1].
        beta: How much the signal may add to the weight of an action token, at least 0.
        other_weight: Weight of sampled tokens in neither span; α by default.
        eps: Added to the variance before its root is taken.
        all_reduce: Sums over ranks, so that μ and σ are those of the whole batch.

    Returns:
        Weights without gradient, in the signal's precision but at least float32.

    Raises:
        ValueError: If a setting is out of range, or the signal of an action token is missing or not finite.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta must be at least 0, got {beta}")
    other = alpha if other_weight is None else other_weight
    if not 0 <= other < float("inf"):
        raise ValueError(f"other_weight must be at least 0, got {other_weight}")

    dtype = torch.float64 if signal_BT is not None and signal_BT.dtype == torch.float64 else torch.float32
    weights_BT = torch.zeros(roles_BT.shape, dtype=dtype, device=roles_BT.device)
    weights_BT[roles_BT == Role.REASONING] = alpha
    weights_BT[roles_BT == Role.OTHER] = other
    weights_BT[roles_BT == Role.ACTION] = 1.0
    if beta == 0:
        return weights_BT

    is_action_BT = roles_BT == Role.ACTION
    if signal_BT is None:
        if is_action_BT.any():
            raise ValueError("beta > 0 weights action tokens by a signal, but signal is None")
        signal_BT = weights_BT  # nothing is read, but this rank still takes part in the sums
    # The statistics are taken in float64: a batch can hold a million tokens.
    signal_N = signal_BT[is_action_BT].double()
    standardised_N = standardise(signal_N, eps, all_reduce)
    # After the sums: one bad figure makes all of them NaN, so every rank that holds actions stops here.
    if not standardised_N.isfinite().all():
        count = int((~signal_N.isfinite()).sum())
        whose = f"{count} action tokens" if count else "action tokens of another process"
        raise ValueError(f"the signal of {whose} is not finite: check the reference's logits")
    weights_BT[is_action_BT] = (1 + beta * standardised_N.sigmoid()).to(dtype)
    return weights_BT


def standardise(
    values_N: Float[torch.Tensor, " N"], eps: float, all_reduce: AllReduce | None = None
) -> Float[torch.Tensor, " N"]:
    """(x − μ) / sqrt(population variance + ε), over the values of all ranks.

    In two passes, so that a large offset does not cancel. Every rank takes part in both sums, also one that
    holds no value.
    """
    all_reduce = all_reduce or (lambda tensor: tensor)
    count, total = all_reduce(torch.stack([torch.ones_like(values_N).sum(), values_N.sum()]))
    centred_N = values_N - total / count.clamp(min=1)
    squares = all_reduce(centred_N.square().sum()[None])[0]
    standardised_N: torch.Tensor = centred_N / (squares / count.clamp(min=1) + eps).sqrt()
    return standardised_N
