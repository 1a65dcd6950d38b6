"""Text and tokens, promises:

1. The text of a reply is the tokenizer's own decoding of the ids that write something.
2. Each id has one range of it, exactly the characters that it writes or helps to write: compared with a
   search byte by byte, for whole characters, split ones and bytes that make none.
3. A conversation is the template's text: opening, reply and next turn together tokenise as the whole.
4. Nothing of what the template writes is counted as sampled, and nothing sampled is tokenised again.
"""

import codecs
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import AddedToken, PreTrainedTokenizerFast

from actfocus.errors import ModelError
from actfocus.models.chat import Chat
from tests.fixtures import CHATML, fresh_tokenizer, token_bytes

TEXTS = [
    "<think> The goal is 2 down.</think><answer> Down || Left</answer>",
    "Straße, naïve, 上へ, שלום",
    "🙂👩\u200d🚀 e\u0301",
    "",
    " ",
    "\n\n  \n",
    "\ufffd a \ufffd\ufffd",
    "<think>\ufffd</think><answer>🙂</answer>",
    "<|user|>a role marker<|assistant|>",
]


def by_bytes(chat: Chat, ids: list[int]) -> tuple[str, list[tuple[int, int]]]:
    """Text and ranges, from the bytes of each token alone."""
    written = [token_bytes(chat, i) for i in ids]
    data = b"".join(written)
    characters, at = [], 0  # of each character: its bytes [start, end)
    text = ""
    while at < len(data):
        size = next((n for n in (1, 2, 3, 4) if _is_character(data[at : at + n])), None)
        if size is None:
            size = _broken_prefix(data[at:])
            text += "\ufffd"
        else:
            text += data[at : at + size].decode()
        characters.append((at, at + size))
        at += size
    ranges, first = [], 0
    for piece in written:
        last = first + len(piece)
        own = [k for k, (start, end) in enumerate(characters) if start < last and end > first]
        ranges.append((own[0], own[-1] + 1) if own and piece else (len(text), len(text)))
        first = last
    return text, ranges


def _is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def _broken_prefix(data: bytes) -> int:
    """Bytes at the start that one replacement character stands for."""
    try:
        codecs.decode(data, "utf-8")
    except UnicodeDecodeError as error:
        assert error.start == 0
        return error.end
    raise AssertionError("not broken")


def writing_ids(chat: Chat) -> list[int]:
    return [i for i in range(len(chat.tokenizer)) if i not in chat.end_ids]


def check(chat: Chat, ids: list[int]) -> None:
    text, ranges = chat.decode(ids)
    visible = [i for i in ids if i not in chat.end_ids]
    assert text == chat.tokenizer.decode(
        visible, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert (text, ranges) == by_bytes(chat, ids)
    assert len(ranges) == len(ids)
    shown = [r for i, r in zip(ids, ranges, strict=True) if i not in chat.end_ids]
    assert shown == sorted(shown)
    assert {k for start, end in shown for k in range(start, end)} == set(range(len(text)))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["chat", "chatml"])
def test_each_token_writes_its_own_characters(text, kind, request):
    chat = request.getfixturevalue(kind)
    ids = chat.tokenizer.encode(text, add_special_tokens=False)
    assert chat.decode(ids)[0] == text
    check(chat, ids)
    for end in sorted(chat.end_ids):
        check(chat, [*ids, end])


@settings(deadline=None)
@given(text=st.text(max_size=30).filter(lambda text: "<|end|>" not in text))
def test_any_text_comes_back_with_exact_ranges(chat, text):
    ids = chat.encode_reply(text)
    assert chat.decode(ids)[0] == text
    check(chat, ids)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_ids_have_exact_ranges(chat, data):
    everything = st.sampled_from(range(len(chat.tokenizer)))
    pieces = [i for i in writing_ids(chat) if max(token_bytes(chat, i)) > 127]
    ids = data.draw(st.lists(st.one_of(everything, st.sampled_from(pieces)), max_size=16))
    check(chat, ids)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_slow_and_fast_path_agree(chat, data):
    ids = data.draw(st.lists(st.sampled_from(writing_ids(chat)), max_size=16))
    text, ranges = chat.decode(ids)
    for slide in (True, False):
        assert chat._decode_slowly(ids, text, slide=slide) == (text, ranges)


def test_bytes_of_one_emoji_carry_it_all(chat):
    ids = chat.tokenizer.encode("a🙂b", add_special_tokens=False)
    assert len(ids) == 6
    assert chat.decode(ids) == ("a🙂b", [(0, 1), *[(1, 2)] * 4, (2, 3)])


def test_incomplete_bytes_at_the_end(chat):
    ids = chat.tokenizer.encode("a🙂", add_special_tokens=False)[:-1]
    assert chat.decode(ids) == ("a\ufffd", [(0, 1), *[(1, 2)] * 3])
    assert chat.decode([*ids, chat.tokenizer.eos_token_id])[1][-1] == (2, 2)


def test_a_stray_byte_does_not_swallow_the_tag_behind_it(chat):
    stray = chat.tokenizer.encode("🙂", add_special_tokens=False)[-1]
    tag, closing = chat.tokenizer.encode("<answer></answer>", add_special_tokens=False)
    assert chat.decode([tag, stray, closing]) == (
        "<answer>\ufffd</answer>",
        [(0, 8), (8, 9), (9, 18)],
    )


def test_a_role_marker_sampled_in_a_reply_is_text(chat):
    marker = chat.tokenizer.convert_tokens_to_ids("<|user|>")
    assert chat.decode([marker, marker]) == ("<|user|><|user|>", [(0, 8), (8, 16)])


def test_ids_that_end_a_turn_write_nothing_wherever_they_stand(chatml):
    end, over = sorted(chatml.end_ids)
    word = chatml.tokenizer.encode("Down", add_special_tokens=False)
    text, ranges = chatml.decode([end, *word, over])
    assert text == "Down"
    assert ranges[0] == ranges[-1] == (4, 4)


def test_decoding_a_long_reply_of_noise_is_quick(chat):
    ids = (writing_ids(chat) * 4)[:1600]
    before = time.perf_counter()
    check_text, ranges = chat.decode(ids)
    assert time.perf_counter() - before < 2
    assert len(ranges) == 1600 and ranges[-1][1] == len(check_text)


# Other decoders: byte fallback, and one that trims. -----------------------------------------------------


def fallback_chat() -> Chat:
    """Of the SentencePiece kind: blanks as ▁, the first of them dropped, other bytes as <0xNN>."""
    words = ["<unk>", "</s>", "▁", "▁Down", "Down", "a", "中", "</answer>"]
    vocabulary = {word: i for i, word in enumerate([*words, *(f"<0x{b:02X}>" for b in range(256))])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return Chat(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>"))


def test_byte_fallback_and_dropped_blanks():
    chat = fallback_chat()
    byte = chat.tokenizer.convert_tokens_to_ids
    down, second, tag = byte("▁Down"), byte("Down"), byte("</answer>")
    smile = [byte(f"<0x{b:02X}>") for b in "🙂".encode()]
    text, ranges = chat.decode([down, down, *smile, second, tag])
    assert text == "Down Down🙂Down</answer>"
    assert ranges == [(0, 4), (4, 9), *[(9, 10)] * 4, (10, 14), (14, 23)]
    text, ranges = chat.decode([down, *smile[:2], tag])
    assert text == "Down\ufffd\ufffd</answer>"
    assert ranges[-1] == (6, 15)
    # One stray byte, and this decoder takes the whole run of bytes before it for broken, three emoji long.
    text, ranges = chat.decode([down, *smile * 3, smile[-1], tag])
    assert text == "Down" + "\ufffd" * 13 + "</answer>"
    assert ranges[0] == (0, 4) and ranges[-1] == (17, 26)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_byte_fallback_text_is_the_tokenizers_own(data):
    chat = fallback_chat()
    common = [i for i in range(2, 8)] + [8 + b for b in "🙂é".encode()]
    ids = data.draw(st.lists(st.sampled_from(common), max_size=12))
    text, ranges = chat.decode(ids)
    assert text == chat.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert len(ranges) == len(ids)
    assert all(0 <= start <= end <= len(text) for start, end in ranges)
    assert {k for start, end in ranges for k in range(start, end)} == set(range(len(text)))


# The template. ------------------------------------------------------------------------------------------

TRIMMING = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] | trim }}"
    "{% elif m['role'] == 'system' %}<|system|>{{ m['content'] | trim }}"
    "{% else %}<|assistant|>{{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DEAF_TO_SYSTEM = NO_SYSTEM.replace(
    "{{ raise_exception('no system role') }}{% endif %}", "{% else %}"
).replace("{{ eos_token }}{% endfor %}", "{{ eos_token }}{% endif %}{% endfor %}")
BLANK_BEFORE_END = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }} {{ eos_token }}"
    "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
NO_END = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
REPLY = "<think> a</think><answer> Down</answer>"


def with_template(template: str | None) -> Chat:
    tokenizer = fresh_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return Chat(tokenizer)


@pytest.mark.parametrize(
    "template, end, takes_system",
    [
        (None, "<|end|>", True),
        (fresh_tokenizer().chat_template, "<|end|>", True),
        (CHATML, "<|im_end|>", True),
        (TRIMMING, "<|end|>", True),
        (NO_SYSTEM, "<|end|>", False),
        (DEAF_TO_SYSTEM, "<|end|>", False),
    ],
)
def test_a_conversation_tokenises_as_the_rendered_template(template, end, takes_system):
    chat = with_template(template)
    encode = chat.tokenizer.encode
    end_id = chat.tokenizer.convert_tokens_to_ids(end)
    assert chat.end_ids == {end_id, chat.tokenizer.eos_token_id}
    assert chat.encode_reply(REPLY) == [*encode(REPLY, add_special_tokens=False), end_id]
    first = (
        [{"role": "system", "content": "The rules."}, {"role": "user", "content": "One."}]
        if takes_system
        else [{"role": "user", "content": "The rules.\n\nOne."}]
    )
    messages = [*first, {"role": "assistant", "content": REPLY}, {"role": "user", "content": "Two."}]

    def render(given):
        text = chat.tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True)
        return encode(text, add_special_tokens=False)

    opening = chat.opening("The rules.", "One.")
    assert opening == render(first)
    ended = opening + chat.encode_reply(REPLY) + chat.next_turn("Two.", reply_ended=True)
    cut = opening + chat.encode_reply(REPLY)[:-1] + chat.next_turn("Two.", reply_ended=False)
    assert ended == cut == render(messages)


def test_a_blank_before_the_end_of_turn_is_not_put_behind_it():
    chat = with_template(BLANK_BEFORE_END)
    assert chat.end_ids == {chat.tokenizer.eos_token_id}
    after = chat.tokenizer.encode("[INST] Two. [/INST]", add_special_tokens=False)
    assert chat.next_turn("Two.", reply_ended=True) == after
    closing = chat.tokenizer.encode(" <|end|>", add_special_tokens=False)
    assert chat.next_turn("Two.", reply_ended=False) == closing + after


def test_an_end_of_turn_that_the_tokenizer_does_not_list():
    tokenizer = fresh_tokenizer()
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=True), AddedToken("<|im_start|>", special=True)])
    tokenizer.chat_template = CHATML
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end not in tokenizer.all_special_ids
    assert Chat(tokenizer).end_ids == {end, tokenizer.eos_token_id}


def test_a_template_without_an_end_of_turn():
    chat = with_template(NO_END)
    user = chat.tokenizer.convert_tokens_to_ids("<|user|>")
    assert chat.end_ids == {user, chat.tokenizer.eos_token_id}
    turn = chat.tokenizer.encode("<|user|>\nTwo.<|assistant|>\n", add_special_tokens=False)
    assert chat.next_turn("Two.", reply_ended=False) == turn
    assert chat.next_turn("Two.", reply_ended=True) == turn[1:]
    plain = with_template(PLAIN)
    assert plain.end_ids == {plain.tokenizer.eos_token_id}
    turn = plain.tokenizer.encode("\n\nuser: Two.\n\nassistant: ", add_special_tokens=False)
    assert plain.next_turn("Two.", reply_ended=True) == plain.next_turn("Two.", reply_ended=False) == turn


def test_text_like_the_reply_mark_in_an_observation(chat):
    ids = chat.next_turn("xXreplyXx", reply_ended=True)
    assert chat.tokenizer.decode(ids) == "<|user|>xXreplyXx<|end|><|assistant|>"


def test_a_tokenizer_that_cannot_end_a_reply_is_refused():
    tokenizer = fresh_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        Chat(tokenizer)
