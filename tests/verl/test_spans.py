"""Spans in `extra_fields` give the roles that the agent loop knew, and mistakes are said in one line."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actfocus.errors import ConfigError
from actfocus.integrations.verl.spans import KEY, response_roles, spans_of

CONTEXT, REASONING, ACTION, OTHER = range(4)
ROLES = [
    OTHER,
    REASONING,
    REASONING,
    OTHER,
    ACTION,
    OTHER,
    CONTEXT,
    CONTEXT,
    REASONING,
    ACTION,
    ACTION,
    OTHER,
]
MASK = torch.tensor([int(role != CONTEXT) for role in ROLES])


def read(spans, mask=MASK):
    return response_roles({KEY: spans}, mask, row="a_0_0").tolist()


@given(st.lists(st.integers(0, 3), max_size=40))
def test_there_and_back(roles: list[int]) -> None:
    spans = json.loads(json.dumps(spans_of(roles)))
    mask = torch.tensor([int(role != CONTEXT) for role in roles])
    assert read(spans, mask) == roles


def test_written_by_hand() -> None:
    assert read({"reasoning": [[1, 3], [8, 9]], "action": [(4, 5), (9, 11)]}) == ROLES
    assert read({"action": [[4, 5]]}) == [
        ACTION if at == 4 else OTHER if MASK[at] else CONTEXT for at in range(12)
    ]


def test_masked_tokens_are_context_whatever_the_spans_say() -> None:
    assert read({"action": [[0, 12]]}) == [ACTION if flag else CONTEXT for flag in MASK.tolist()]


@pytest.mark.parametrize("late", [1, -1])
def test_a_shift_or_an_inversion_is_another_role(late: int) -> None:
    spans = spans_of(ROLES)
    shifted = {name: [[start + late, end + late] for start, end in found] for name, found in spans.items()}
    inverted = {"reasoning": spans["action"], "action": spans["reasoning"]}
    assert read(spans) == ROLES
    assert read(shifted) != ROLES
    assert read(inverted) != ROLES


@pytest.mark.parametrize("extra", [None, {}, {"reward_extra_info": {}}, {KEY: [[1, 2]]}, "text"])
def test_missing_spans(extra) -> None:
    with pytest.raises(ConfigError, match=r"a_0_0 carries no spans: .* extra_fields\['actfocus'\]"):
        response_roles(extra, MASK, row="a_0_0")


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ({"reasoning": []}, "'action' is missing"),
        ({"action": [], "acton": []}, "unknown 'acton'"),
        ({"action": [[3, 13]]}, r"action span \[3, 13\) of the response a_0_0 does not lie in its 12 tokens"),
        ({"action": [[-1, 2]]}, "does not lie"),
        ({"action": [[5, 5]]}, "does not lie"),
        (
            {"action": [[2, 6]], "reasoning": [[1, 3]]},
            r"span \[2, 6\) of the response a_0_0 overlaps another",
        ),
    ],
)
def test_wrong_spans(spans, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(spans)
