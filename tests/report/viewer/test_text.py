"""What the viewer says that tokens wrote, promises:

1. The pieces of a reply, put together, are its text; so are those of a message of the environment.
2. System message, observation, template and reply are told apart exactly, for any template and for replies
   that were cut off; where the text does not fit the template, special tokens alone are template.
3. Several tokens that write one character: the first shows it, the others say what they are part of.
"""

import pytest

from actfocus.envs import make_env
from actfocus.models.chat import Chat
from actfocus.report.viewer.records import read_episode
from actfocus.report.viewer.text import Reader
from tests.fixtures import CHATML, fresh_tokenizer
from tests.report.viewer.runs import REPLY, plain, play, tiny_chat

NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def with_template(template: str | None = None) -> Chat:
    own = fresh_tokenizer()
    own.chat_template = template
    return Chat(own)


def chatml() -> Chat:
    own = fresh_tokenizer()
    own.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    own.chat_template = CHATML
    return Chat(own)


def read(chat: Chat, trajectory) -> list[tuple[str, int, str]]:
    """Kind, turn and text of each message."""
    pieces, messages = Reader(chat).read(read_episode(plain(trajectory)))
    assert [piece.id for piece in pieces] == trajectory.ids
    found, start = [], 0
    for kind, turn, end in messages:
        found.append((kind, turn, "".join(piece.text for piece in pieces[start:end])))
        start = end
    assert start == len(pieces)
    return found


def observations(replies: list[str]) -> list[str]:
    env = make_env("frozen-lake")
    seen = [env.reset(seed=2**62, options={"chance_seed": 7})[0]]
    for reply in replies:
        seen.append(env.step(reply)[0])
    return seen


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", ["tiny", "compact", "chatml"])
def test_messages_are_told_apart(kind, cut) -> None:
    chat = {"tiny": tiny_chat, "compact": with_template, "chatml": chatml}[kind]()
    trajectory = play([REPLY] * 3, chat=chat, cut=cut)
    found = read(chat, trajectory)
    contents = [message for message in found if message[0] != "template"]
    system = make_env("frozen-lake").system_prompt
    system = system.split(".")[0] if kind == "tiny" else system
    end = "" if cut else "<|im_end|>" if kind == "chatml" else "<|end|>"
    expected = [("system", 0, system)]
    for turn, observation in enumerate(observations([REPLY] * 3)):
        expected += [("user", turn, observation), ("reply", turn, REPLY + end)]
    assert contents == expected[: len(contents)]
    assert len(contents) >= 5
    template = [text for kind, _, text in found if kind == "template"]
    assert all("Turn" not in text and "goal" not in text for text in template)


def test_without_system_messages_the_first_message_holds_both() -> None:
    chat = with_template(NO_SYSTEM)
    found = read(chat, play([REPLY], chat=chat))
    text = f"{make_env('frozen-lake').system_prompt}\n\n{observations([])[0]}"
    assert [message[2] for message in found[:3]] == ["<|user|>", text, "<|end|><|assistant|>"]
    assert [message[0] for message in found[:3]] == ["template", "user", "template"]


def test_text_that_does_not_fit_the_template() -> None:
    trajectory = play([REPLY], chat=with_template(CHATML.replace("<|im_start|>", "<|user|>")))
    found = read(with_template(), trajectory)
    assert ("template", 0, "<|user|>") in found
    assert any(kind == "user" and "Actions left" in text for kind, _, text in found)


def test_split_characters() -> None:
    chat = tiny_chat()
    pieces = Reader(chat).pieces(chat.encode_reply("a🙂é\u0301"))
    assert "".join(piece.text for piece in pieces) == "a🙂é\u0301<|end|>"
    smile = [piece for piece in pieces if "🙂" in (piece.text, piece.whole)]
    assert len(smile) == 4
    assert [(piece.text, piece.whole) for piece in smile] == [("🙂", ""), *[("", "🙂")] * 3]


def test_broken_bytes_and_unknown_ids() -> None:
    chat = tiny_chat()
    (*_, broken) = chat.tokenizer.encode("🙂", add_special_tokens=False)
    pieces = Reader(chat).pieces([broken, 10**6, chat.tokenizer.eos_token_id, broken])
    assert [piece.text for piece in pieces] == ["\ufffd", "", "<|end|>", "\ufffd"]
