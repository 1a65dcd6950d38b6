"""PPO: a critic predicts the return at every token; GAE turns its errors into advantages.

Legend: B trajectories, T tokens.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float

from actfocus.algorithms.base import Algorithm
from actfocus.focus.weights import AllReduce, standardise
from actfocus.rollout.batch import Batch


def gae(
    rewards_BT: Float[torch.Tensor, "B T"],
    values_BT: Float[torch.Tensor, "B T"],
    sampled_BT: Bool[torch.Tensor, "B T"],
    *,
    gamma: float,
    lam: float,
) -> tuple[Float[torch.Tensor, "B T"], Float[torch.Tensor, "B T"]]:
    """Generalised advantage estimation over sampled tokens only (Schulman et al. 2016, equation 16).

    The successor of a sampled token is the next sampled token of its row, across whatever the environment
    said between; after the last one the value is 0. What stands at unsampled tokens is not read.

    Returns:
        Advantages and returns (advantage + value), both 0 at unsampled tokens.
    """
    advantages_BT = torch.zeros_like(values_BT)
    next_value_B = torch.zeros_like(values_BT[:, 0])
    next_advantage_B = torch.zeros_like(next_value_B)
    for t in reversed(range(values_BT.shape[1])):
        sampled_B = sampled_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        advantage_B = delta_B + gamma * lam * next_advantage_B
        advantages_BT[:, t] = torch.where(sampled_B, advantage_B, 0)
        next_value_B = torch.where(sampled_B, values_BT[:, t], next_value_B)
        next_advantage_B = torch.where(sampled_B, advantage_B, next_advantage_B)
    returns_BT = torch.where(sampled_BT, advantages_BT + values_BT, 0)
    return advantages_BT, returns_BT


def whiten(
    advantages_BT: Float[torch.Tensor, "B T"],
    sampled_BT: Bool[torch.Tensor, "B T"],
    *,
    all_reduce: AllReduce | None = None,
) -> Float[torch.Tensor, "B T"]:
    """(A − mean) / sqrt(population variance + 1e-8) over the sampled tokens of all ranks; 0 elsewhere."""
    whitened_BT = torch.zeros_like(advantages_BT)
    standardised_N = standardise(advantages_BT[sampled_BT].double(), 1e-8, all_reduce)
    whitened_BT[sampled_BT] = standardised_N.to(advantages_BT.dtype)
    return whitened_BT


def value_loss(
    values_BT: Float[torch.Tensor, "*B"],
    old_values_BT: Float[torch.Tensor, "*B"],
    returns_BT: Float[torch.Tensor, "*B"],
    sampled_BT: Bool[torch.Tensor, "*B"],
    *,
    clip: float,
    normalizer: float | torch.Tensor | None = None,
) -> Float[torch.Tensor, ""]:
    """½ max((v − R)², (clip(v, v_old ± clip) − R)²), averaged over sampled tokens.

    Args:
        values_BT: Predictions, with gradient.
        old_values_BT: Predictions that the advantages were made of.
        returns_BT: Targets R of `gae`.
        sampled_BT: Tokens that count; every one of them weighs 1, whatever its role.
        clip: How far a prediction may move from the old one and still be followed.
        normalizer: Sampled tokens of the whole optimiser step; those of this batch by default.
    """
    values_N, old_values_N, returns_N = (x[sampled_BT] for x in (values_BT, old_values_BT, returns_BT))
    clipped_N = torch.clamp(values_N, old_values_N - clip, old_values_N + clip)
    errors_N = torch.maximum((values_N - returns_N).square(), (clipped_N - returns_N).square())
    if normalizer is None:
        normalizer = max(int(sampled_BT.sum()), 1)
    return 0.5 * errors_N.sum() / normalizer


class Ppo(Algorithm):
    """GAE on the critic's values, whitened; the critic is fitted to the returns with clipping."""

    uses_critic: ClassVar[bool] = True

    def advantages(self, batch: Batch) -> torch.Tensor:
        """Advantages [B, T], 0 at unsampled tokens; also leaves the critic's targets in the batch."""
        assert batch.values_BT is not None
        advantages_BT, batch.value_targets_BT = gae(
            batch.rewards_BT,
            batch.values_BT,
            batch.sampled_BT,
            gamma=self.config.gamma,
            lam=self.config.lam,
        )
        if self.config.whiten:
            advantages_BT = whiten(advantages_BT, batch.sampled_BT)
        return advantages_BT

    def value_loss(self, batch: Batch, values_N: torch.Tensor, normalizer: float) -> torch.Tensor:
        """`value_loss` of the critic's new values [N] at the sampled tokens of this micro-batch."""
        assert batch.values_BT is not None and batch.value_targets_BT is not None
        return value_loss(
            values_N,
            batch.values_BT[batch.sampled_BT],
            batch.value_targets_BT[batch.sampled_BT],
            torch.ones_like(values_N, dtype=torch.bool),
            clip=self.config.value_clip,
            normalizer=normalizer,
        )
