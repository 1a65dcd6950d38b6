"""What the trainer asks of an algorithm. It never asks which one it is."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from actfocus.config import AlgorithmConfig
from actfocus.rollout.batch import Batch


class Algorithm(ABC):
    """Turns the returns of a batch into one advantage per token."""

    uses_critic: ClassVar[bool]

    def __init__(self, config: AlgorithmConfig) -> None:
        self.config = config

    @abstractmethod
    def advantages(self, batch: Batch) -> torch.Tensor:
        """Advantages [B, T], 0 at unsampled tokens."""

    def value_loss(self, batch: Batch, values_N: torch.Tensor, normalizer: float) -> torch.Tensor:
        """Loss of the critic's new values [N] at the sampled tokens, for algorithms that have one."""
        raise AssertionError(f"{type(self).__name__} has no critic")
