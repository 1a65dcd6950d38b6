"""The critic of PPO: a copy of the policy's trunk with one number per token on top.

Legend: B trajectories, T tokens, N chosen tokens, D hidden size.
"""

import copy

import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from actfocus.models.language_model import LanguageModel, predecessors


class Critic(nn.Module):
    """Predicts, before each sampled token, the return of the episode."""

    def __init__(self, policy: LanguageModel) -> None:
        """Copy the policy's trunk (with its adapters, if it has any); the value starts at 0 everywhere."""
        super().__init__()
        self.trunk = copy.deepcopy(policy.trunk)
        self.value = nn.Linear(policy.causal_lm.config.hidden_size, 1, bias=True, device=policy.device)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        self._autocast = policy.autocast
        self.eval()

    def forward(
        self, ids_BT: Int[torch.Tensor, "B T"], chosen_BT: Bool[torch.Tensor, "B T"]
    ) -> Float[torch.Tensor, " N"]:
        """Value of the context of each chosen token, in row-major order."""
        with self._autocast():
            hidden_BTD = self.trunk(input_ids=ids_BT, use_cache=False).last_hidden_state
        # In float32 also under autocast: returns differ by less than bfloat16 can tell apart.
        values_N1: torch.Tensor = self.value(predecessors(hidden_BTD, chosen_BT).float())
        return values_N1.squeeze(-1)

    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained, in a fixed order."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
