"""The signal of action tokens from verl's reference worker, beside the log-probabilities it computes anyway.

The logits exist in the engine only while one micro-batch is scored. There our own `token_energy` reads the
few rows that predict action tokens; the pass, the batch and the way back are verl's.

Legend: B rows, S tokens of prompt and response, R tokens of the response, V vocabulary, N action tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from actfocus.focus import Role, token_energy, token_entropy

ASKED = "focus_signal_name"
"""Non-tensor entry of a batch: which signal is wanted of this pass; without it nothing is made."""
ROLES = "focus_roles"
"""Field of the queue: one `Role` per response token, [B, R]."""
SIGNAL = "focus_signal"
"""Field of the queue: the signal where the logits stood [B, S], one place before the token; NaN elsewhere."""
_SIGNALS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "energy": token_energy,
    "entropy": token_entropy,
}
_ROWS = 1024
"""Rows that are made float32 at once."""


class SignalWorker(TrainingWorker):  # type: ignore[misc, unused-ignore]
    """verl's worker of one language model, whose engine also makes the signal."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        make_signal(self.engine)


class ActFocusWorker(ActorRolloutRefWorker):  # type: ignore[misc, unused-ignore]
    """verl's hybrid worker. With LoRA the actor is the reference as well, adapters off."""

    actor_worker_cls = SignalWorker
    ref_worker_cls = SignalWorker


def make_signal(engine: Any) -> None:
    """Let `engine` return the signal beside its log-probabilities, where a batch asks for it."""
    plain = engine.prepare_model_outputs

    def prepare_model_outputs(
        output: Any, output_args: Any, micro_batch: Any, logits_processor_func: Any
    ) -> dict[str, Any]:
        name = tu.get_non_tensor_data(micro_batch, ASKED, None)
        # First, because verl divides the logits by the temperature in place.
        signal = None if name is None else action_signal(output.logits, micro_batch, name)
        outputs: dict[str, Any] = plain(
            output=output,
            output_args=output_args,
            micro_batch=micro_batch,
            logits_processor_func=logits_processor_func,
        )
        return outputs if signal is None else {**outputs, SIGNAL: signal}

    engine.prepare_model_outputs = prepare_model_outputs


@torch.no_grad()
def action_signal(logits: torch.Tensor, micro_batch: Any, name: str) -> torch.Tensor:
    """The signal of each action token, at the place of the logits that predict it; NaN elsewhere.

    Args:
        logits: [1, S₁ + … + S_B, V] where verl packs the rows of a micro-batch, perhaps with padding behind,
            or [B, S, V] where it pads them on the right.
        micro_batch: With `input_ids` [B, S] and `focus_roles` [B, R], both nested.
        name: The signal.

    Returns:
        Nested [B, S], float32.
    """
    offsets = micro_batch["input_ids"].offsets()
    lengths_B = offsets.diff()
    roles = micro_batch[ROLES]
    rows, columns = [], []
    for row, roles_R in enumerate(roles.unbind()):
        first = int(lengths_B[row]) - len(roles_R)
        places = (roles_R == Role.ACTION).nonzero()[:, 0] + first - 1
        rows.append(torch.full_like(places, row))
        columns.append(places)
    row_N, column_N = torch.cat(rows), torch.cat(columns)
    packed_N = offsets[row_N] + column_N
    logits_NV = logits[0, packed_N] if len(logits) == 1 else logits[row_N, column_N]
    values = torch.full((int(offsets[-1]),), torch.nan, dtype=torch.float32, device=logits.device)
    score = _SIGNALS[name]
    for places_n, logits_nV in zip(packed_N.split(_ROWS), logits_NV.split(_ROWS), strict=True):
        values[places_n] = score(logits_nV).float()
    return torch.nested.nested_tensor_from_jagged(values, offsets)
