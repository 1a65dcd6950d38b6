"""What is an action: what stands between tags, the arguments of tool calls, or what a function says."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import trl

from actfocus.focus import Role
from actfocus.integrations.trl import FocusConfig, tag_spans, tool_call_spans
from actfocus.integrations.trl.spans import completion_roles
from tests.integrations.trl.scripted import chat, encode, tokenizer, trainer


def read(find: Any, text: str) -> dict[Role, list[str]]:
    found: dict[Role, list[str]] = {}
    for start, end, role in find(text, []):
        found.setdefault(role, []).append(text[start:end])
    return found


def test_tags() -> None:
    found = read(tag_spans, "<think>It is near.</think>\n<answer>Left</answer>")
    assert found == {Role.REASONING: ["It is near."], Role.ACTION: ["Left"]}
    assert read(tag_spans, "<think>It is near.<answer>Left</answer>") == {}


CALL = '<tool_call>\n{"name": "act", "arguments": {"actions": "Left || Up"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "reasoning", "actions"),
    [
        (CALL, [], ['{"actions": "Left || Up"}']),
        (f"I go left.\n{CALL}", ["I go left.\n"], ['{"actions": "Left || Up"}']),
        (f"<think>\nNear.\n</think>\n\n{CALL}", ["\nNear.\n"], ['{"actions": "Left || Up"}']),
        (f"One. {CALL} Two. {CALL}", ["One. ", " Two. "], ['{"actions": "Left || Up"}'] * 2),
        ("Only text.", ["Only text."], []),
        (f"<think>If {CALL} or so.</think>{CALL}", [f"If {CALL} or so."], ['{"actions": "Left || Up"}']),
        (f"<think>{CALL}</think>One.<think>Two {CALL}</think>", [CALL, "One.", f"Two {CALL}"], []),
        (f"<think>Maybe <tool_call> is due.</think>{CALL}", ["Maybe <tool_call> is due."],
         ['{"actions": "Left || Up"}']),
        (f"<think>Cut. {CALL}", [f"Cut. {CALL}"], []),
        ('<tool_call>{"name": "act", "arguments": {"a": "<think> </think>"}}</tool_call>', [],
         ['{"a": "<think> </think>"}']),
        ('<tool_call>{"arguments": {"a": {"b": [1, "}"]}}, "name": "f"}</tool_call>', [],
         ['{"a": {"b": [1, "}"]}}']),
        ('<tool_call>{"name": "arguments", "parameters": {"x": "\\"arguments\\": 1"}}</tool_call>', [],
         ['{"x": "\\"arguments\\": 1"}']),
        ("<tool_call>\n<function=act>\n<parameter=actions>\nLeft\n</parameter>\n<parameter=n>\n2\n</parameter>"
         "\n</function>\n</tool_call>", [], ["\nLeft\n", "\n2\n"]),
        ('<tool_call>{"name": "act", "arguments": {"actions": }</tool_call>', [], []),
        ('<tool_call>{"name": "act"}</tool_call>', [], []),
        ("<tool_call>{</tool_call>", [], []),
        ("<tool_call></tool_call>", [], []),
        ("<tool_call>[1]</tool_call>", [], []),
        ('Cut. <tool_call>{"name": "act", "arguments": {"a"', ["Cut. "], []),
    ],
)  # fmt: skip
def test_tool_calls(text: str, reasoning: list[str], actions: list[str]) -> None:
    found = read(tool_call_spans, text)
    assert found.get(Role.REASONING, []) == reasoning
    assert found.get(Role.ACTION, []) == actions


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3", "qwen3_5_think"])
def test_calls_as_the_chat_templates_of_trl_write_them(template: str) -> None:
    writer = copy.deepcopy(tokenizer())
    writer.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja").read_text()
    call = {"type": "function", "function": {"name": "act", "arguments": {"actions": "Left || Up"}}}
    message = {"role": "assistant", "content": "I go left.", "tool_calls": [call]}
    user = {"role": "user", "content": "Go."}
    whole = writer.apply_chat_template([user, message], tokenize=False)
    opening = writer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    text = whole[len(opening) :] if whole.startswith(opening) else whole.split("assistant\n")[-1]
    text = text.replace("<|im_end|>", "")
    found = read(tool_call_spans, text)
    assert "".join(found[Role.REASONING]).strip() == "I go left."
    actions = [span.strip() for span in found[Role.ACTION]]
    assert actions == ["Left || Up"] or [json.loads(span) for span in actions] == [{"actions": "Left || Up"}]


def test_a_call_that_nests_without_end_is_no_action() -> None:
    deep = f'<tool_call>{{"name": "act", "arguments": {"[" * 200_000}</tool_call>'
    assert read(tool_call_spans, f"Near. {deep}") == {Role.REASONING: ["Near. "]}


def test_roles_from_tool_calls_reach_the_tokens() -> None:
    text = f"I go.{CALL}"
    ids = encode(text)
    roles = completion_roles(chat(), tool_call_spans, torch.tensor([ids]), torch.ones(1, len(ids)).bool())[0]
    assert "".join(written(ids, roles, Role.ACTION)).strip() == '{"actions": "Left || Up"}'
    assert "".join(written(ids, roles, Role.REASONING)) == "I go."


def written(ids: list[int], roles: torch.Tensor, role: Role) -> list[str]:
    return [tokenizer().decode([i]) for i, r in zip(ids, roles.tolist(), strict=True) if r == role]


@pytest.mark.parametrize(
    ("said", "reply", "reasoning", "actions"),
    [
        ("Go.<think>\n", "Near.\n</think>\n\n<answer>Left</answer>", "Near.\n", "Left"),
        ("Go.<think>", "Near.</think><answer>Left</answer>", "Near.", "Left"),
        ("Go.<think>\n", "<think>Near.</think><answer>Left</answer>", "Near.", "Left"),
        ("Go.<think>\n", "Near.<answer>Left</answer>", "", ""),
        ("Go.<think>\n", "<think>Near.<think></think><answer>Left</answer>", "", ""),
        ("Go.<think>\n\n</think>\n\n", "Near.</think><answer>Left</answer>", "", ""),
        ("Go.", "Near.</think><answer>Left</answer>", "", ""),
    ],
)
def test_a_template_may_open_the_reasoning(said: str, reply: str, reasoning: str, actions: str) -> None:
    """Before the first reply and between two; what the template wrote stays context."""
    parts = [(encode(said), 0), (encode(reply), 1)]
    parts = [*parts, (encode("<|end|>"), 0), *parts]
    ids = [i for part, _ in parts for i in part]
    sampled = [flag for part, flag in parts for _ in part]
    roles = completion_roles(chat(), tag_spans, torch.tensor([ids]), torch.tensor([sampled]).bool())[0]
    assert "".join(written(ids, roles, Role.REASONING)) == reasoning * 2
    assert "".join(written(ids, roles, Role.ACTION)) == actions * 2
    assert ((roles == Role.CONTEXT) == (torch.tensor(sampled) == 0)).all()


def test_prompts_that_open_the_reasoning_reach_the_trainer(tmp_path: Path) -> None:
    """Prompts of several lengths, some of them padded: their last words are looked at, not the first."""
    reply = encode("Near.</think><answer>Left</answer><|end|>")

    def play(prompts: list[str], trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": [encode("Go. " * (1 + k % 3) + ("" if k == 5 else "<think>")) for k in range(8)],
            "completion_ids": [reply] * 8,
            "logprobs": None,
            "episode_return": [float(k % 2) for k in range(8)],
        }

    made = trainer(tmp_path, rollout_func=play, focus=FocusConfig(beta=0))
    made.train()
    roles = [row for batch in made._buffered_inputs for row in batch["focus_roles"]]
    actions = ["".join(written(reply, row, Role.ACTION)) for row in roles]
    reasoning = ["".join(written(reply, row, Role.REASONING)) for row in roles]
    assert sorted(actions) == ["", *["Left"] * 7] and sorted(reasoning) == ["", *["Near."] * 7]


@pytest.mark.parametrize("opening", ["<think>\n", ""])
def test_what_is_called_while_reasoning_is_not_called(opening: str) -> None:
    """As TRL reads it: the prompt decides whether the words before a lone </think> are thoughts."""
    said, ids = encode(opening), encode(f"Near. {CALL}</think>{CALL}")
    sampled = torch.tensor([[0] * len(said) + [1] * len(ids)]).bool()
    roles = completion_roles(chat(), tool_call_spans, torch.tensor([said + ids]), sampled)[0, len(said) :]
    actions = "".join(written(ids, roles, Role.ACTION)).count('"actions": "Left || Up"')
    reasoning = "".join(written(ids, roles, Role.REASONING))
    assert reasoning.startswith("Near.")
    assert (actions, CALL in reasoning) == ((1, True) if opening else (2, False))


def test_a_function_of_the_users_own(tmp_path: Path) -> None:
    """It sees each reply's text and ids, and its spans become roles."""
    seen = []

    def capitals(text: str, ids: Any) -> list[tuple[int, int, Role]]:
        seen.append((text, list(ids)))
        at = text.find("Left")
        return [(at, at + 4, Role.ACTION)] if at >= 0 else []

    made = trainer(tmp_path, roles=capitals, focus=FocusConfig(beta=0))
    made.train()
    assert all(text == "".join(chat().decode(ids)[0]) for text, ids in seen) and len(seen) > 8
    found = 0
    for batch in made._buffered_inputs:
        for ids, roles in zip(batch["completion_ids"].tolist(), batch["focus_roles"], strict=True):
            actions = [text.strip() for text in written(ids, roles, Role.ACTION)]
            text = "".join(chat().decode([i for i, r in zip(ids, roles.tolist(), strict=True) if r])[0])
            assert actions == (["Left"] if "Left" in text else [])
            found += len(actions)
            assert not written(ids, roles, Role.REASONING)
    assert found


def test_a_span_that_ends_before_it_starts_is_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path, roles=lambda text, ids: [(3, 1, Role.ACTION)], focus=FocusConfig(beta=0))
    with pytest.raises(ValueError, match="ends before it starts"):
        made.train()
