"""From roles and signal to the advantages that verl's loss is given. Imports no verl.

verl's `agg_loss` with token-mean divides the sum over tokens by the number N of tokens of the mini-batch,
over all ranks and micro-batches. Its clipped loss of a token is positively homogeneous in the advantage, so
A · w · N / Σw in the place of A gives −(1 / Σw) Σ w · min(ρA, clip(ρ)A), the objective of the method. The
value loss reads the returns, and KL and entropy read no advantage: those keep weight 1.

Legend: B rows, R tokens of the longest response, M mini-batches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped

from actfocus.config import FocusConfig
from actfocus.focus import Role, token_weights


class Weighted(NamedTuple):
    """What becomes of the advantages of one step."""

    advantages_BR: torch.Tensor
    weights_BR: torch.Tensor
    metrics: dict[str, float]


def weigh(
    advantages_BR: Float[torch.Tensor, "B R"],
    roles_BR: Int[torch.Tensor, "B R"],
    signal_BR: Float[torch.Tensor, "B R"] | None,
    counted_BR: Shaped[torch.Tensor, "B R"],
    mini_batches: Sequence[Sequence[int]],
    focus: FocusConfig,
) -> Weighted:
    """Weigh the advantages of one step.

    Args:
        advantages_BR: verl's, whitened or normalised by group already.
        roles_BR: `Role` of each token, CONTEXT in the padding.
        signal_BR: The signal at action tokens, anything elsewhere; None where none is read.
        counted_BR: The tokens that verl's normaliser counts (its `loss_mask`).
        mini_batches: The rows of each optimiser step; every row in exactly one.
        focus: The settings.

    Raises:
        ValueError: If the signal of an action token is missing or not finite.
    """
    weights_BR = token_weights(
        roles_BR, signal_BR, alpha=focus.alpha, beta=focus.beta, other_weight=focus.other_weight
    )
    scale_B = torch.zeros(len(roles_BR), dtype=torch.float64)
    weightless = 0
    for rows in mini_batches:
        tokens = counted_BR[rows].double().sum()
        weight = weights_BR[rows].double().sum()
        scale_B[rows] = tokens / weight if weight > 0 else 0.0
        weightless += int(weight == 0)
    factors_BR = (weights_BR.double() * scale_B[:, None]).to(advantages_BR.dtype)
    # Masked, not multiplied: NaN · 0 is NaN.
    advantages_BR = torch.where(weights_BR > 0, advantages_BR * factors_BR, torch.zeros_like(advantages_BR))
    return Weighted(advantages_BR, weights_BR, _metrics(roles_BR, weights_BR, weightless))


def _metrics(roles_BR: torch.Tensor, weights_BR: torch.Tensor, weightless: int) -> dict[str, float]:
    counts = {role: int((roles_BR == role).sum()) for role in Role if role != Role.CONTEXT}
    sampled = max(1, sum(counts.values()))
    metrics = {
        "focus/reasoning_share": counts[Role.REASONING] / sampled,
        "focus/action_share": counts[Role.ACTION] / sampled,
        "focus/weight_per_token": float(weights_BR.double().sum()) / sampled,
        "focus/weightless_updates": float(weightless),
    }
    if counts[Role.ACTION]:
        metrics["focus/action_weight"] = float(weights_BR[roles_BR == Role.ACTION].double().mean())
    return metrics
