"""Conversations side by side in one key-value cache that grows by ragged blocks.

Legend: B rows, T cached positions, W width of a block, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
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
        if self._buffers is None or held + new > self._buffers[0].shape[-2]:
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

    @classmethod
    def holding(cls, keys: torch.Tensor, values: torch.Tensor) -> "_BufferedLayer":
        """A layer that has read these [B, H, T, D] keys and values."""
        layer = cls()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        return layer


class ContextCache:
    """The cached contexts of a batch of conversations.

    Every call appends one block per row, padded on the left, so that the newest token of each row that
    took part stands in the last column; a prompt, one sampled token and an observation are all just blocks.
    """

    def __init__(
        self, model: LanguageModel, mask_BT: torch.Tensor, layers: Sequence[_BufferedLayer] = ()
    ) -> None:
        self._model, self._mask_BT = model, mask_BT
        self._cache = Cache(layer_class_to_replicate=_BufferedLayer)
        self._cache.layers.extend(layers)

    @classmethod
    def empty(cls, model: LanguageModel, rows: int) -> "ContextCache":
        """A cache for so many conversations, none of which has begun."""
        return cls(model, torch.zeros(rows, 0, dtype=torch.long, device=model.device))

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

    def taken(self, rows: Sequence[int]) -> "ContextCache":
        """A copy of these rows, in this order, as a cache of its own; a row may be named several times."""
        index = torch.tensor(list(rows), dtype=torch.long, device=self._mask_BT.device)
        layers = [_BufferedLayer.holding(each.keys[index], each.values[index]) for each in self._cache.layers]
        return ContextCache(self._model, self._mask_BT[index], layers)

    def split_off(self, rows: Sequence[int]) -> "ContextCache":
        """Move these rows into a cache of their own; the others stay, in their order."""
        moved, staying = self.taken(rows), sorted(set(range(len(self._mask_BT))) - set(rows))
        rest = self.taken(staying)
        self._cache, self._mask_BT = rest._cache, rest._mask_BT
        return moved

    @staticmethod
    def joined(parts: Sequence[tuple["ContextCache", Sequence[int]]]) -> "ContextCache":
        """These rows of each part as one cache, tokens at the right end and no column empty in all rows.

        Keys carry their position already, so moving them changes nothing but the time attention takes.
        """
        masks = [part._mask_BT[list(rows)] for part, rows in parts]
        width = max(int(mask.sum(1).max()) for mask in masks)
        orders = [mask.argsort(dim=1, stable=True)[:, -width:] for mask in masks]
        masks = [mask.gather(1, order) for mask, order in zip(masks, orders, strict=True)]

        def moved(held_BHTD: list[torch.Tensor]) -> torch.Tensor:
            gathered = []
            for held, (_, rows), order in zip(held_BHTD, parts, orders, strict=True):
                index = order[:, None, :, None].expand(-1, held.shape[1], -1, held.shape[3])
                # Zeros and not just anything: attention multiplies what it does not look at by 0.
                gathered.append(pad(held[list(rows)].gather(2, index), (0, 0, width - order.shape[1], 0)))
            return torch.cat(gathered)

        layers = [
            _BufferedLayer.holding(moved([each.keys for each in same]), moved([each.values for each in same]))
            for same in zip(*(part._cache.layers for part, _ in parts), strict=True)
        ]
        mask_BT = torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks])
        return ContextCache(parts[0][0]._model, mask_BT, layers)
