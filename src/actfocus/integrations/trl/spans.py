"""Where in a completion the model reasons and where it acts: spans of the text, then one role per token.

Legend: B completions, T tokens.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from json.decoder import scanstring  # type: ignore[attr-defined, unused-ignore]
from typing import Literal

import torch

from actfocus.envs.protocol import parse_reply
from actfocus.errors import ConfigError, did_you_mean
from actfocus.focus import Role, token_roles
from actfocus.models.chat import Chat
from actfocus.rollout.sampler import opening_of

Span = tuple[int, int, Role]
"""Characters [start, end) of a reply, and what its tokens are for."""
SpanFinder = Callable[[str, Sequence[int]], Iterable[Span]]
"""(text of one reply, its token ids) → disjoint spans; what lies in none of them is OTHER."""


def tag_spans(text: str, ids: Sequence[int] = ()) -> list[Span]:
    """`<think>` … `</think>` is reasoning, `<answer>` … `</answer>` the action; none in a malformed reply."""
    reply = parse_reply(text)
    found = [(reply.reasoning, Role.REASONING), (reply.action, Role.ACTION)]
    return [(*span, role) for span, role in found if span is not None]


_PARTS = re.compile(
    r"<think>(?P<thought>.*?)(?:</think>|\Z)|<tool_call>(?:(?P<call>.*?)</tool_call>|.*)|</think>", re.DOTALL
)
_PARAMETER = re.compile(r"<parameter=[^>\n]*>(.*?)</parameter>", re.DOTALL)
_BLANK = re.compile(r"\s*")
_ARGUMENTS = ("arguments", "parameters")


def tool_call_spans(text: str, ids: Sequence[int] = ()) -> list[Span]:
    """The arguments of tool calls are actions, the text outside of calls is reasoning.

    Calls are those between `<tool_call>` tags, as JSON (Hermes, Qwen2.5, Qwen3) or as `<parameter=…>`
    (Qwen3.5 and later). Tags, the tool's name and a call that cannot be read are neither. What stands behind
    `<think>` is reasoning up to `</think>`, calls included: nobody makes them.
    """
    spans: list[Span] = []
    start = 0
    for part in _PARTS.finditer(text):
        spans += _reasoning(text, start, part.start()) + _reasoning(text, *part.span("thought"))
        if part["call"] is not None:
            spans += [(*span, Role.ACTION) for span in _arguments(text, *part.span("call"))]
        start = part.end()
    return spans + _reasoning(text, start, len(text))


def _reasoning(text: str, start: int, end: int) -> list[Span]:
    return [(start, end, Role.REASONING)] if text[start:end].strip() else []


def _arguments(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Characters of the arguments of the call that is written in text[start:end]."""
    if parameters := [match.span(1) for match in _PARAMETER.finditer(text, start, end)]:
        return parameters
    try:
        span = _member(text[:end], start)
    except (ValueError, IndexError, RecursionError):  # broken JSON, or nested without end
        return []
    return [span] if span else []


def _member(text: str, at: int) -> tuple[int, int] | None:
    """Characters of the value of the member `arguments` of the JSON object that starts at `at`.

    Members before it are read and passed over, so a tool that is named "arguments" does not mislead.
    """
    decoder = json.JSONDecoder()
    at = _past_blanks(text, at)
    if text[at] != "{":
        return None
    while text[at] in "{,":
        at = _past_blanks(text, at + 1)
        if text[at] != '"':
            return None
        key, at = scanstring(text, at + 1)
        at = _past_blanks(text, at)
        if text[at] != ":":
            return None
        start = _past_blanks(text, at + 1)
        _, end = decoder.raw_decode(text, start)
        if key in _ARGUMENTS:
            return start, end
        at = _past_blanks(text, end)
    return None


def _past_blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()


FINDERS: dict[str, SpanFinder] = {"tags": tag_spans, "tools": tool_call_spans}
Roles = Literal["tags", "tools"] | SpanFinder


def span_finder(roles: Roles, chat_template: str | None) -> SpanFinder:
    """The function that `roles` names or is.

    Raises:
        ConfigError: If there is no such name, or the template writes tool calls in another way.
    """
    if callable(roles):
        return roles
    if roles not in FINDERS:
        raise ConfigError(
            f"roles is 'tags', 'tools' or a function (text, ids) -> spans, not {roles!r}"
            f"{did_you_mean(str(roles), FINDERS)}"
        )
    if roles == "tools" and "<tool_call>" not in (chat_template or ""):
        raise ConfigError(
            "roles='tools' reads calls between <tool_call> tags, and this model's chat template writes none:"
            " give roles a function (text, ids) -> spans that knows how its calls look"
        )
    return FINDERS[roles]


def completion_roles(
    chat: Chat, find: SpanFinder, ids_BT: torch.Tensor, sampled_BT: torch.Tensor
) -> torch.Tensor:
    """Roles [B, T] (int8) of prompts and completions; every run of sampled tokens is a reply of its own.

    Args:
        chat: Decodes ids and tells which characters each of them writes.
        find: Finds the spans of a reply.
        ids_BT: Ids, whatever stands at unsampled tokens.
        sampled_BT: Whether the model sampled the token: false for prompts, padding and what a tool or an
            environment said.

    Raises:
        ValueError: If `find` returns a span that ends before it starts.
    """
    roles_BT = torch.full(ids_BT.shape, Role.CONTEXT, dtype=torch.int8)
    for row, (ids, sampled) in enumerate(zip(ids_BT.tolist(), sampled_BT.tolist(), strict=True)):
        for start, end in _runs(sampled):
            reply = ids[start:end]
            text, offsets = chat.decode(reply)
            opening = opening_of(chat, ids[:start], text) if find in FINDERS.values() else ""
            shift = len(opening)
            spans = [(lo - shift, hi - shift, role) for lo, hi, role in find(opening + text, reply)]
            roles_BT[row, start:end] = token_roles(reply, offsets, spans, [True] * len(reply))
    return roles_BT.to(ids_BT.device)


def _runs(flags: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Ranges [start, end) in which the flags are set."""
    for is_set, run in groupby(enumerate(flags), key=lambda pair: bool(pair[1])):
        places = [place for place, _ in run]
        if is_set:
            yield places[0], places[-1] + 1
