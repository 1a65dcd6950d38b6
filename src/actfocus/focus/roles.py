"""Roles: which tokens the model sampled, and what each of them is for.

Legend: T tokens.
"""

from collections.abc import Sequence
from enum import IntEnum

import torch
from jaxtyping import Int8


class Role(IntEnum):
    """What a token is for. CONTEXT alone was not sampled by the model and is never trained."""

    CONTEXT = 0
    """Prompt, observation, forced prefix, chat-template text."""
    REASONING = 1
    ACTION = 2
    OTHER = 3
    """Sampled, in neither span: the tags themselves, end of turn, anything in a malformed reply."""


SAMPLED_ROLES = {"reasoning": Role.REASONING, "action": Role.ACTION, "other": Role.OTHER}
"""By name; together they are all that the model sampled."""


def token_roles(
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    spans: Sequence[tuple[int, int, Role]],
    sampled: Sequence[bool],
) -> Int8[torch.Tensor, " T"]:
    """Lay roles that were found in the text onto the tokens that wrote it.

    A token that writes at least one character of an action is an ACTION token, even where it also writes a
    piece of the tag (`>Left` in one token): the action is decided in it. Likewise for reasoning.

    Args:
        ids: The T token ids; only their number matters here.
        offsets: For each token the range [start, end) of the characters it writes, or helps to write;
            empty for a token without text.
        spans: Disjoint ranges [start, end) of the text with the role of their tokens.
        sampled: Whether the model sampled the token.

    Returns:
        One role per token, as int8.

    Raises:
        ValueError: If the lengths differ or a range ends before it starts.
    """
    if not len(ids) == len(offsets) == len(sampled):
        raise ValueError(
            f"one offset and one sampled flag per token: {len(ids)} ids, {len(offsets)} offsets,"
            f" {len(sampled)} flags"
        )
    for start, end, *_ in [*offsets, *spans]:
        if start > end:
            raise ValueError(f"the range ({start}, {end}) ends before it starts")

    # ACTION first: where one token touches both spans, the action decides.
    ordered = sorted(spans, key=lambda span: span[2] != Role.ACTION)
    roles = [
        _first_touched(offset, ordered) if is_sampled else Role.CONTEXT
        for offset, is_sampled in zip(offsets, sampled, strict=True)
    ]
    return torch.tensor(roles, dtype=torch.int8)


def _first_touched(offset: tuple[int, int], spans: Sequence[tuple[int, int, Role]]) -> Role:
    start, end = offset
    return next((role for lo, hi, role in spans if max(start, lo) < min(end, hi)), Role.OTHER)
