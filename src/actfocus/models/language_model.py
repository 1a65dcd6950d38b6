"""A causal language model, cut where the method needs it: trunk (ids → hidden) and head (hidden → logits).

Legend: B trajectories, T tokens, N chosen tokens, D hidden size, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import nn
from transformers import Cache, PreTrainedModel

from actfocus.errors import ModelError
from actfocus.focus.signals import TokenScores, score_hidden

LOGIT_CHUNK = 2048
"""Rows of logits that exist at once."""


class LanguageModel:
    """Runs a Hugging Face causal language model, plain or with LoRA adapters.

    The model stays in evaluation mode: with dropout the ratio π_θ / π_old of an unchanged policy would
    not be 1.
    """

    def __init__(self, model: nn.Module, *, precision: str = "float32") -> None:
        """Wrap `model`, a `PreTrainedModel` or a `PeftModel` around one.

        Raises:
            ModelError: If trunk and head do not give the model's own logits, or those are not finite.
        """
        self.model = model.eval()
        self.has_adapters = not isinstance(model, PreTrainedModel)
        wrapped: Any = model
        self.causal_lm: PreTrainedModel = wrapped.get_base_model() if self.has_adapters else wrapped
        self.trunk: nn.Module = self.causal_lm.base_model
        self._lm_head: Any = self.causal_lm.get_output_embeddings()
        self.precision = precision
        self._verify_head()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.causal_lm.device
        return device

    @property
    def longest(self) -> int | None:
        """Tokens that the model reads at most; None if it does not say."""
        return getattr(self.causal_lm.config, "max_position_embeddings", None)

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained, in a fixed order."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def autocast(self) -> AbstractContextManager[object]:
        """The arithmetic of forward passes; held open, it casts the weights once and not per call."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def hidden(
        self,
        ids_BT: Int[torch.Tensor, "B T"],
        *,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> Float[torch.Tensor, "B T D"]:
        """Last hidden states. Rows padded on the right need no mask: causal attention never sees it."""
        with self.autocast():
            output = self.trunk(
                input_ids=ids_BT,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        hidden_BTD: torch.Tensor = output.last_hidden_state
        return hidden_BTD

    def head(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Logits [N, V] of hidden states, with the scaling that some architectures add."""
        with self.autocast():
            logits_NV: torch.Tensor = self._lm_head(hidden_ND)
        config = self.causal_lm.config
        if scale := getattr(config, "logit_scale", None):
            logits_NV = logits_NV * scale
        if divisor := getattr(config, "logits_scaling", None):
            logits_NV = logits_NV / divisor
        if cap := getattr(config, "final_logit_softcapping", None):
            logits_NV = torch.tanh(logits_NV / cap) * cap
        return logits_NV

    def token_scores(
        self, ids_BT: Int[torch.Tensor, "B T"], chosen_BT: Bool[torch.Tensor, "B T"]
    ) -> TokenScores:
        """Log-probability, energy and entropy [N] of the chosen tokens, in row-major order."""
        hidden_ND = predecessors(self.hidden(ids_BT), chosen_BT)
        return score_hidden(hidden_ND, self.head, ids_BT[chosen_BT], chunk=LOGIT_CHUNK)

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """The base model, as it was before training: the reference of a LoRA run."""
        with self.model.disable_adapter():  # type: ignore[operator]
            yield

    @torch.no_grad()
    def _verify_head(self) -> None:
        probe = torch.arange(8, device=self.device)[None]
        with self.autocast():  # in the same arithmetic, or rounding would look like another architecture
            expected = self.causal_lm(input_ids=probe, use_cache=False).logits.float()
        if not expected.isfinite().all():
            raise ModelError(
                f"the logits of {type(self.causal_lm).__name__} are not finite: its weights are damaged"
            )
        found = self.head(self.hidden(probe)).float()
        tolerance = 1e-3 if self.precision == "float32" else 2e-2
        if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item()):
            raise ModelError(
                f"{type(self.causal_lm).__name__} changes its logits in a way that actfocus does not know;"
                " energies would be wrong, so this architecture is not supported"
            )


def predecessors(
    hidden_BTD: Float[torch.Tensor, "B T D"], chosen_BT: Bool[torch.Tensor, "B T"]
) -> Float[torch.Tensor, "N D"]:
    """The hidden states that *predict* the chosen tokens: those one position earlier.

    This is the only place where the shift between a token and its prediction is made. A row's first token
    has no prediction and can not be chosen.

    Raises:
        ValueError: If it is.
    """
    if chosen_BT[:, 0].any():
        raise ValueError("the first token of a row is not predicted by anything and can not be scored")
    return hidden_BTD[:, :-1][chosen_BT[:, 1:]]
