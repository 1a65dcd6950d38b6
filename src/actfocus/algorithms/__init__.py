"""PPO and GRPO: one file each, where they differ."""

from actfocus.algorithms.base import Algorithm
from actfocus.algorithms.grpo import Grpo
from actfocus.algorithms.ppo import Ppo

ALGORITHMS: dict[str, type[Algorithm]] = {"grpo": Grpo, "ppo": Ppo}

__all__ = ["ALGORITHMS", "Algorithm", "Grpo", "Ppo"]
