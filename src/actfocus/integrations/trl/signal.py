"""The signal of action tokens, from the frozen reference that a TRL trainer holds, or from the policy.

Legend: B rows, T positions of prompt and completion, N chosen tokens.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import nn
from trl.trainer.utils import create_model_from_path, get_config_model_id, use_adapter

from actfocus.config import FocusConfig
from actfocus.errors import ConfigError
from actfocus.focus import REFERENCE_SIGNALS, score_hidden, token_signal
from actfocus.focus.signals import TokenScores
from actfocus.models.language_model import LOGIT_CHUNK, LanguageModel, predecessors


def needs_reference(focus: FocusConfig) -> bool:
    """Whether the weights read the frozen reference."""
    return focus.beta > 0 and focus.signal in REFERENCE_SIGNALS


def copy_before_training(model: Any, focus: FocusConfig, beta: float, peft_config: Any) -> nn.Module | None:
    """The frozen copy of a model that is handed to the trainer as an object, if nothing else can serve.

    Made before TRL touches the model: it patches `forward`, and a copy would call the original's.
    """
    if isinstance(model, str) or not needs_reference(focus):
        return None
    if beta != 0 or peft_config is not None or is_peft_model(model):
        return None
    copied: nn.Module = copy.deepcopy(model)
    return copied


class TokenSignal:
    """Scores tokens for one trainer; see `reference` for whose eyes it looks through."""

    def __init__(self, trainer: Any, focus: FocusConfig, frozen: nn.Module | None) -> None:
        """Prepare for `trainer`, whose own `__init__` has run.

        Args:
            trainer: The `GRPOTrainer`.
            focus: Which signal.
            frozen: The copy of `copy_before_training`.

        Raises:
            ConfigError: If adapters that are switched off do not give back the model as it was.
            ModelError: If the architecture is not supported.
        """
        self._trainer, self._focus = trainer, focus
        self._rows: int = trainer.args.per_device_train_batch_size
        self._precision = "bfloat16" if trainer.args.bf16 else "float32"
        self._reference: LanguageModel | None = None
        self._policy: LanguageModel | None = None
        self._is_own_policy = is_peft_model(trainer.model)
        if focus.beta == 0:
            return
        if self._is_own_policy or focus.signal in ("nll", "shift"):
            with _at_rest(trainer.model):
                self._policy = LanguageModel(trainer.model, precision=self._precision)
        if needs_reference(focus):
            self._reference = self._policy if self._is_own_policy else self._load(frozen)
        if self._is_own_policy and self._reference is not None:
            self._refuse_trained_adapters()

    def _load(self, frozen: nn.Module | None) -> LanguageModel:
        """The reference TRL holds for its KL term; else the copy; else the policy's files, read again."""
        trainer = self._trainer
        if trainer.ref_model is not None:
            model = trainer.accelerator.unwrap_model(trainer.ref_model)
        elif frozen is not None:
            model = frozen
        else:
            options = {"trust_remote_code": trainer.args.trust_remote_code}
            options |= dict(trainer.args.model_init_kwargs or {})
            # As TRL loads its own: in the arithmetic of the policy.
            options |= {"dtype": trainer.model.dtype, "device_map": None}
            with torch.random.fork_rng():
                model = create_model_from_path(get_config_model_id(trainer.model.config), **options)
        model = model.to(trainer.accelerator.device).requires_grad_(False)
        return LanguageModel(model, precision=self._precision)

    def _as_reference(self) -> AbstractContextManager[Any]:
        """With adapters: TRL's own frozen copy of them if it made one, else none."""
        if not self._is_own_policy:
            return nullcontext()
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        reference: AbstractContextManager[Any] = use_adapter(
            model, adapter_name="ref" if "ref" in model.peft_config else None
        )
        return reference

    @torch.no_grad()
    def _refuse_trained_adapters(self) -> None:
        """Without its adapters an already adapted policy is not the model as it was before this training."""
        policy = self._reference
        assert policy is not None
        probe_BT = torch.arange(8, device=policy.device)[None]
        with _at_rest(policy.model):
            before = policy.hidden(probe_BT).float()
            with self._as_reference():
                reference = policy.hidden(probe_BT).float()
        if not torch.allclose(before, reference, rtol=1e-3, atol=1e-3 * before.abs().max().item()):
            raise ConfigError(
                "the adapters already change the model, so that without them it is not what it was before"
                " this training: set GRPOConfig(beta=...) above 0, for TRL then keeps a frozen copy of them,"
                " or merge them and pass peft_config, or choose focus.signal = nll"
            )

    @torch.no_grad()
    def __call__(
        self, ids_BT: torch.Tensor, real_BT: torch.Tensor, chosen_BT: torch.Tensor
    ) -> torch.Tensor | None:
        """Raw scores [B, T] of the chosen tokens, NaN elsewhere; None where no signal is read.

        Args:
            ids_BT: Prompts, padded on the left, and completions, padded on the right.
            real_BT: What is not padding.
            chosen_BT: The tokens to be scored, never the first of a row.
        """
        if self._focus.beta == 0:
            return None
        signal_N = self._score(ids_BT, real_BT, chosen_BT.bool())
        signal_BT = torch.full(ids_BT.shape, torch.nan, dtype=signal_N.dtype, device=ids_BT.device)
        signal_BT[chosen_BT.bool()] = signal_N
        return signal_BT

    def _score(self, *batch: torch.Tensor) -> torch.Tensor:
        name, old_logprobs_N, reference = self._focus.signal, None, None
        if name in ("nll", "shift"):
            old_logprobs_N = self._scores(self._policy, *batch).logprobs
        if name in REFERENCE_SIGNALS:
            with self._as_reference():
                reference = self._scores(self._reference, *batch)
        return token_signal(name, old_logprobs_N, reference)

    def _scores(
        self,
        model: LanguageModel | None,
        ids_BT: torch.Tensor,
        real_BT: torch.Tensor,
        chosen_BT: torch.Tensor,
    ) -> TokenScores:
        assert model is not None
        parts = []
        with _at_rest(model.model):
            for first in range(0, len(ids_BT), self._rows):
                rows = slice(first, first + self._rows)
                ids_bT, real_bT, chosen_bT = ids_BT[rows], real_BT[rows].long(), chosen_BT[rows]
                # Counted without the padding on the left, or absolute positions would depend on it.
                positions_bT = (real_bT.cumsum(1) - 1).clamp(min=0)
                hidden_bTD = model.hidden(ids_bT, attention_mask=real_bT, position_ids=positions_bT)
                hidden_ND = predecessors(hidden_bTD, chosen_bT)
                parts.append(score_hidden(hidden_ND, model.head, ids_bT[chosen_bT], chunk=LOGIT_CHUNK))
        return TokenScores(*(torch.cat(column) for column in zip(*parts, strict=True)))


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, so that dropout is off; afterwards as before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
