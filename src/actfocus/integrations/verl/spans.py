"""What an agent loop says of its tokens: spans of the response, carried in verl's `extra_fields`.

    extra_fields["actfocus"] = {"reasoning": [[0, 12], [40, 55]], "action": [[14, 18], [57, 61]]}

Ranges [start, end) of *tokens*, counted from the first token of `response_ids`. A sampled token in neither
is OTHER; a token that `response_mask` leaves out is CONTEXT whatever the spans say. Our loops write them, and
any loop of the user's own can. Imports no verl.

Legend: R tokens of a response.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Int, Shaped

from actfocus.errors import ConfigError
from actfocus.focus import Role

KEY = "actfocus"
"""The key in `extra_fields`."""
_ROLES = {"reasoning": Role.REASONING, "action": Role.ACTION}


def spans_of(roles: Sequence[int]) -> dict[str, list[list[int]]]:
    """The spans of a response, from one role per token: what `response_roles` reads back."""
    spans: dict[str, list[list[int]]] = {name: [] for name in _ROLES}
    start = 0
    for role, run in groupby(roles):
        end = start + len(list(run))
        for name, wanted in _ROLES.items():
            if role == wanted:
                spans[name].append([start, end])
        start = end
    return spans


def response_roles(
    extra_fields: Any, mask_R: Shaped[torch.Tensor, " R"], *, row: str
) -> Int[torch.Tensor, " R"]:
    """One role (int8) per token of a response.

    Args:
        extra_fields: What the agent loop put there.
        mask_R: verl's `response_mask`: whether the model sampled the token.
        row: The row's key in the queue, for the message.

    Raises:
        ConfigError: If the spans are missing, overlap, or lie outside of the response.
    """
    spans = extra_fields.get(KEY) if isinstance(extra_fields, Mapping) else None
    if not isinstance(spans, Mapping):
        raise ConfigError(
            f"the response {row} carries no spans: its agent loop must put the token ranges of reasoning and"
            f" action into extra_fields[{KEY!r}] (docs/verl.md), as those of actfocus.integrations.verl do."
            " Where a reply is one turn of <think>…</think><answer>…</answer>, set"
            " actor_rollout_ref.rollout.agent.default_agent_loop=tags"
        )
    unknown = sorted(set(spans) - set(_ROLES))
    if unknown or "action" not in spans:
        problem = f"unknown {unknown[0]!r}" if unknown else "'action' is missing"
        raise ConfigError(
            f"extra_fields[{KEY!r}] of the response {row} has the keys 'reasoning' and 'action': {problem}"
        )
    length = len(mask_R)
    roles_R = torch.full((length,), Role.OTHER, dtype=torch.int8)
    for name, role in _ROLES.items():
        for span in spans.get(name) or ():
            try:
                start, end = map(int, span)
            except (TypeError, ValueError):
                raise ConfigError(
                    f"{span!r} among the {name} spans of the response {row} is no pair"
                ) from None
            if not 0 <= start < end <= length:
                raise ConfigError(
                    f"the {name} span [{start}, {end}) of the response {row} does not lie in its {length}"
                    " tokens: spans count from the first token of response_ids, and are cut where it is cut"
                )
            if (roles_R[start:end] != Role.OTHER).any():
                raise ConfigError(f"the {name} span [{start}, {end}) of the response {row} overlaps another")
            roles_R[start:end] = role
    return torch.where(mask_R.bool().cpu(), roles_R, torch.tensor(Role.CONTEXT, dtype=torch.int8))
