"""The loop `tags`: spans of one reply, found by verl's own worker under the name in the configuration.

The worker, its registry and `SingleTurnAgentLoop` are verl's; the server returns replies written by hand. The
roles are compared with those of a second computation, from the texts that growing prefixes decode to.
"""

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra.utils import get_class
from transformers import AutoTokenizer
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker, _agent_loop_registry
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.workers.rollout.replica import TokenOutput

from actfocus.focus import Role
from actfocus.integrations.verl import tags
from actfocus.integrations.verl.runner import prepare
from actfocus.integrations.verl.spans import KEY, response_roles
from actfocus.models.chat import Chat
from tests.verl.config import MODEL, composed
from verl import DataProto

TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
END, PAD = TOKENIZER.eos_token_id, TOKENIZER.pad_token_id
OTHER = int(Role.OTHER)


def ids_of(text: str, *, spelt: bool = False) -> list[int]:
    """Its tokens; `spelt` makes even the tags out of letters."""
    return [
        i for part in (text if spelt else [text]) for i in TOKENIZER.encode(part, add_special_tokens=False)
    ]


def expected(ids: list[int], *, opened: bool = False) -> list[int]:
    """One role per token of a well-formed reply; `opened`: its prompt ends with `<think>`."""
    lengths = [
        len(TOKENIZER.decode(ids[:count], skip_special_tokens=True).rstrip("\N{REPLACEMENT CHARACTER}"))
        for count in range(len(ids) + 1)
    ]
    text = TOKENIZER.decode(ids, skip_special_tokens=True)
    first = 0 if opened else text.index("<think>") + len("<think>")
    spans = {
        Role.REASONING: (first, text.index("</think>")),
        Role.ACTION: (text.index("<answer>") + len("<answer>"), text.index("</answer>")),
    }
    roles = []
    for start, end in pairwise(lengths):
        # A byte of an unfinished character writes at the place where the character will stand.
        end = max(end, start + 1)
        found = [role for role, (lo, hi) in spans.items() if max(start, lo) < min(end, hi)]
        roles.append(int(found[0]) if found else OTHER)
    return [OTHER if i in (END, PAD) else role for i, role in zip(ids, roles, strict=True)]


class Server:
    """verl's client, with a reply written by hand."""

    def __init__(self, reply: list[int]) -> None:
        self.reply = reply

    async def generate(self, request_id: str, **kwargs: Any) -> TokenOutput:
        return TokenOutput(token_ids=self.reply, log_probs=[-1.0] * len(self.reply), extra_fields={})


def play(reply: list[int], *, response: int = 96) -> SimpleNamespace:
    """What verl's worker makes of a row that names no loop."""
    config = composed(
        f"data.max_response_length={response}",
        "data.max_prompt_length=64",
        "actor_rollout_ref.rollout.agent.default_agent_loop=tags",
        "actor_rollout_ref.rollout.calculate_log_probs=True",
    )
    prepare(config)

    async def run() -> Any:
        worker = AgentLoopWorker(config, llm_client=Server(reply))
        # With a second entry, so that NumPy makes no table of the messages.
        row = np.array([[{"role": "user", "content": "Which way?"}], None], dtype=object)[:1]
        return await worker.generate_sequences(DataProto.from_dict(non_tensors={"raw_prompt": row}))

    output = asyncio.run(run())
    length = int(output.batch["attention_mask"][0, 64:].sum())
    mask = output.batch["response_mask"][0, :length]
    return SimpleNamespace(
        ids=output.batch["responses"][0, :length].tolist(),
        spans=output.non_tensor_batch[KEY][0],
        roles=response_roles({KEY: output.non_tensor_batch[KEY][0]}, mask, row="a_0_0").tolist(),
    )


REPLY = "<think>The hole is right.</think>\n<answer>Left || Down</answer>"


@pytest.mark.parametrize("spelt", [False, True], ids=["tokens", "letters"])
@pytest.mark.parametrize("end", [[END], []], ids=["ended", "open"])
@pytest.mark.parametrize(
    "text", [REPLY, "<think>é 😀 no</think><answer>Łeft 😀</answer>"], ids=["ascii", "bytes"]
)
def test_each_token_has_the_role_of_its_text(text: str, end: list[int], spelt: bool) -> None:
    played = play(ids_of(text, spelt=spelt) + end, response=160)
    right = expected(played.ids)
    assert played.ids == ids_of(text, spelt=spelt) + end
    assert {Role.REASONING, Role.ACTION, Role.OTHER} == set(right)
    assert played.roles == right
    # The comparison sees a shift by one, either way, and an inversion.
    inverted = {Role.REASONING: Role.ACTION, Role.ACTION: Role.REASONING}
    for wrong in (right[1:] + right[:1], right[-1:] + right[:-1], [inverted.get(r, r) for r in right]):
        assert played.roles != wrong


def test_written_by_hand() -> None:
    """<think> The ␣hole ␣is ␣right . </think> ⏎ <answer> Left ␣|| ␣Down </answer> <|end|>"""
    pieces = [TOKENIZER.decode([i]) for i in ids_of(REPLY)]
    played = play([*ids_of(REPLY), END])
    reasoning = [[pieces.index("<think>") + 1, pieces.index("</think>")]]
    action = [[pieces.index("<answer>") + 1, pieces.index("</answer>")]]
    assert played.spans == {"reasoning": reasoning, "action": action}


@pytest.mark.parametrize(
    "text",
    [
        "Left",
        "<think>a</think><answer>Left</answer> and more",
        "<think>a<think>b</think><answer>Left</answer>",
        "<answer>Left</answer><think>a</think>",
        "",
    ],
)
def test_a_malformed_reply_has_neither_span(text: str) -> None:
    played = play([*ids_of(text), END])
    assert played.spans == {"reasoning": [], "action": []}
    assert played.roles == [OTHER] * (len(ids_of(text)) + 1)


def test_a_reply_that_verl_cuts_is_malformed_unless_all_of_it_is_there() -> None:
    ids = ids_of(REPLY)
    for length in (1, 6, len(ids) - 1):
        played = play([*ids, END], response=length)
        assert played.ids == ids[:length] and played.roles == [OTHER] * length
    played = play([*ids, END], response=len(ids))  # only the end of turn is cut off
    assert played.ids == ids and played.roles == expected(ids)


def test_an_id_that_only_the_server_ends_at() -> None:
    """Such as one of several in the model's generation config; the tokenizer knows it as a special token."""
    played = play([*ids_of(REPLY), PAD])
    assert played.roles == expected(played.ids)


@pytest.mark.parametrize("opening", ["<think>", "<think>\n", "\n<think>\n", "<think>\n\n"])
@pytest.mark.parametrize("spelt", [False, True], ids=["tokens", "letters"])
def test_a_prompt_may_open_the_reasoning(opening: str, spelt: bool) -> None:
    reply = [*ids_of(REPLY.removeprefix("<think>"), spelt=spelt), END]
    prompt = ids_of("Say <think> first.") + ids_of(opening, spelt=spelt)
    found = tags.reply_roles(Chat(AutoTokenizer.from_pretrained(MODEL)), prompt, reply)
    assert found == expected(reply, opened=True) and len(found) == len(reply)
    assert found[0] == Role.REASONING


def test_a_prompt_may_open_what_the_reply_opens_again() -> None:
    chat = Chat(AutoTokenizer.from_pretrained(MODEL))
    reply = ids_of(REPLY)
    assert tags.reply_roles(chat, ids_of("Say <think> first.<think>\n"), reply) == expected(reply)


@pytest.mark.parametrize("prompt", ["Say <think> first.", "<think></think>", ""])
def test_a_prompt_that_ends_otherwise_opens_nothing(prompt: str) -> None:
    chat = Chat(AutoTokenizer.from_pretrained(MODEL))
    reply = ids_of(REPLY)
    assert tags.reply_roles(chat, ids_of(prompt), reply) == expected(reply)
    assert set(tags.reply_roles(chat, ids_of(prompt), reply[1:])) == {Role.OTHER}


def test_a_closing_tag_that_is_a_special_token_stays_a_tag() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<answer>", "</answer>"]})
    reply = ids_of(REPLY)
    assert reply[-1] in tokenizer.all_special_ids
    assert tags.reply_roles(Chat(tokenizer), [], reply) == expected(reply)


def test_verls_registry_has_it_under_its_name() -> None:
    play(ids_of(REPLY))
    assert get_class(_agent_loop_registry["tags"]["_target_"]) is tags.TagsLoop
    assert issubclass(tags.TagsLoop, SingleTurnAgentLoop)
