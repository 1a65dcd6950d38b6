"""GRPO: a trajectory is good when it did better than its group. No critic.

Legend: B trajectories, T tokens.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int

from actfocus.algorithms.base import Algorithm
from actfocus.rollout.batch import Batch


def grpo_advantages(
    returns_B: Float[torch.Tensor, " B"], groups_B: Int[torch.Tensor, " B"], *, eps: float = 1e-6
) -> Float[torch.Tensor, " B"]:
    """A = (R − mean of the group) / (standard deviation of the group + ε); 0 in a group of one.

    The sample standard deviation (divisor n − 1), as TRL and verl use it. Source: Shao et al. 2024
    (DeepSeekMath), equation 3 with outcome supervision.
    """
    advantages_B = torch.zeros_like(returns_B)
    for group in groups_B.unique():
        rows = groups_B == group
        # In float64: the rounding of a float32 mean, divided by ε, would look like an advantage.
        returns_G = returns_B[rows].double()
        if len(returns_G) > 1:
            standardised_G = (returns_G - returns_G.mean()) / (returns_G.std() + eps)
            advantages_B[rows] = standardised_G.to(returns_B.dtype)
    return advantages_B


class Grpo(Algorithm):
    """The same advantage for every sampled token of a trajectory."""

    uses_critic: ClassVar[bool] = False

    def advantages(self, batch: Batch) -> torch.Tensor:
        """Advantages [B, T], 0 at unsampled tokens."""
        advantages_B = grpo_advantages(batch.returns_B, batch.groups_B)
        return advantages_B[:, None] * batch.sampled_BT
