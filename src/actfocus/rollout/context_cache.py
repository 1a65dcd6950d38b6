"""Conversations side by side in one key-value cache that grows by ragged blocks.

Legend: B rows, T cached positions, W width of a block, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from actfocus.models.language_model import LanguageModel

_SPARE = 64
"""Positions that a layer's buffer is larger than what it holds, when it is made."""


class _BufferedLayer(DynamicLayer):  # type: ignore[misc, unused-ignore]
    """A layer that writes new tokens into a buffer, so that the old ones are not copied each time."""

    keys: torch.Tensor
    values: torch.Tensor
    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append [B, H, W, D] keys and values; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held, new = self.get_seq_length(), key_states.shape[-2]
        if self._buffers is None or held + new > self._buffers[0].shape[-2] or not self._is_buffered():
            shape = (*key_states.shape[:-2], held + new + _SPARE, key_states.shape[-1])
            self._buffers = (key_states.new_empty(shape), value_states.new_empty(shape))
            if held:
                self._buffers[0][..., :held, :] = self.keys
                self._buffers[1][..., :held, :] = self.values
        keys, values = self._buffers
        keys[..., held : held + new, :] = key_states
        values[..., held : held + new, :] = value_states
        self.keys, self.values = keys[..., : held + new, :], values[..., : held + new, :]
        return self.keys, self.values

    def _is_buffered(self) -> bool:
        """Whether the keys still lie in the buffer: choosing rows or closing gaps makes new ones."""
        assert self._buffers is not None
        return bool(self.keys.data_ptr() == self._buffers[0].data_ptr())


class ContextCache:
    """The cached contexts of a batch of conversations.

    Every call appends one block per row, padded on the left, so that the newest token of each row that
    took part stands in the last column; a prompt, one sampled token and an observation are all just blocks.
    """

    def __init__(self, model: LanguageModel, rows: int) -> None:
        self._model = model
        self._cache = Cache(layer_class_to_replicate=_BufferedLayer)
        self._mask_BT = torch.zeros(rows, 0, dtype=torch.long, device=model.device)

    def append(self, blocks: Sequence[Sequence[int]]) -> torch.Tensor:
        """Append one block of ids per row, empty for a row that pauses.

        Returns:
            Hidden states [B, D] that predict each row's next token; meaningless for rows that paused.
        """
        width = max(len(block) for block in blocks)
        padded = [[0] * (width - len(block)) + list(block) for block in blocks]
        real = [[0] * (width - len(block)) + [1] * len(block) for block in blocks]
        device = self._mask_BT.device
        self._mask_BT = torch.cat([self._mask_BT, torch.tensor(real, device=device)], dim=1)
        # A token's position counts the real tokens before it; holes do not exist for the model.
        positions_BW = (self._mask_BT.cumsum(1) - 1).clamp(min=0)[:, -width:]
        hidden_BWD = self._model.hidden(
            torch.tensor(padded, device=device),
            attention_mask=self._mask_BT,
            position_ids=positions_BW,
            cache=self._cache,
        )
        return hidden_BWD[:, -1]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        index = torch.tensor(list(rows), device=self._mask_BT.device)
        self._cache.reorder_cache(index)
        self._mask_BT = self._mask_BT[index]

    def close_gaps(self) -> None:
        """Move each row's tokens to the right end and drop the columns that this frees.

        Keys carry their position already, so moving them changes nothing but the time attention takes.
        """
        order_BT = self._mask_BT.argsort(dim=1, stable=True)
        order_BT = order_BT[:, -int(self._mask_BT.sum(1).max()) :]
        self._mask_BT = self._mask_BT.gather(1, order_BT)
        for layer in self._cache.layers:
            index = order_BT[:, None, :, None].expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3])
            layer.keys = layer.keys.gather(2, index)
            layer.values = layer.values.gather(2, index)
