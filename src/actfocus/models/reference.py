"""The frozen reference: the policy as it was before training."""

import copy
from typing import Protocol

import torch

from actfocus.focus.signals import TokenScores
from actfocus.models.language_model import LanguageModel


class Reference(Protocol):
    """Scores tokens under the frozen model; the one pass serves the signal and the KL loss."""

    def token_scores(self, ids_BT: torch.Tensor, chosen_BT: torch.Tensor) -> TokenScores:
        """Log-probability, energy and entropy [N] of the chosen tokens, in row-major order."""
        ...


class FrozenCopy:
    """A copy of the whole model, made before the first update."""

    def __init__(self, policy: LanguageModel) -> None:
        model = copy.deepcopy(policy.model).requires_grad_(False)
        self._model = LanguageModel(model, precision=policy.precision)

    @torch.no_grad()
    def token_scores(self, ids_BT: torch.Tensor, chosen_BT: torch.Tensor) -> TokenScores:
        """See `Reference`."""
        return self._model.token_scores(ids_BT, chosen_BT)


class AdaptersOff:
    """The policy's own weights with the LoRA adapters off: no second copy."""

    def __init__(self, policy: LanguageModel) -> None:
        self._policy = policy

    @torch.no_grad()
    def token_scores(self, ids_BT: torch.Tensor, chosen_BT: torch.Tensor) -> TokenScores:
        """See `Reference`."""
        with self._policy.without_adapters():
            return self._policy.token_scores(ids_BT, chosen_BT)


def make_reference(policy: LanguageModel) -> Reference:
    """The reference of a policy that has not been trained yet."""
    return AdaptersOff(policy) if policy.has_adapters else FrozenCopy(policy)
