"""From transcripts to tokens, promises:

1. A conversation is the template's own text, token by token as the trainer would have it; what an
   assistant wrote, with the end of its turn, is sampled, and nothing else.
2. Tags: ids and roles are those of an episode of our own with the same texts.
3. Tool calls: the characters of the text before a call are reasoning, those of its arguments are action, laid
   on tokens as an independent search lays them. One token late or early, or turned round, would be noticed.
4. Where that can not be known for certain, the line is refused.
"""

import json
from pathlib import Path

import pytest

from actfocus.config import EnvConfig, WarmstartConfig
from actfocus.diagnosis.conversation import Scribe, records_of
from actfocus.diagnosis.transcripts import TranscriptError, read_transcripts
from actfocus.focus.roles import Role
from actfocus.models.chat import Chat
from actfocus.rollout.trajectory import Start
from actfocus.training.demonstrations import demonstration, demonstration_texts
from tests.fixtures import CHATML, fresh_tokenizer, token_bytes
from tests.rollout.scripts import frozen_lake

EXAMPLE = Path(__file__).parents[2] / "examples" / "transcripts.jsonl"
C, R, A, X = Role.CONTEXT, Role.REASONING, Role.ACTION, Role.OTHER

# As Qwen2.5 writes calls and what they return.
TOOL_TEMPLATE = r"""
{%- if tools %}{{ '<|im_start|>tools\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}
{{- '<|im_end|>\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
{%- elif m.role == 'assistant' and m.tool_calls %}
{{- '<|im_start|>assistant' }}{% if m.content %}{{ '\n' + m.content }}{% endif %}
{%- for c in m.tool_calls %}
{{- '\n<tool_call>\n{"name": "' + c.function.name + '", "arguments": ' }}
{{- c.function.arguments | tojson }}{{ '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}
{%- else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


def chat_with(template):
    tokenizer = fresh_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return Chat(tokenizer)


@pytest.fixture(scope="module")
def toolchat():
    return chat_with(TOOL_TEMPLATE)


def call(name, arguments, written=None):
    function = {"name": name, "arguments": arguments if written is None else written}
    return {"id": "c00000001", "type": "function", "function": function}


def said(text, *calls):
    return {"role": "assistant", "content": text} | ({"tool_calls": list(calls)} if calls else {})


SYSTEM = {"role": "system", "content": "You run errands."}
ASKED = {"role": "user", "content": "Where is P1? 🙂"}
TOLD = {"role": "tool", "tool_call_id": "c00000001", "content": '{"at": "depot"}'}
TALKS = [
    [SYSTEM, ASKED, said("I look.", call("track", {"parcel": "P1"})), TOLD, said("At the depot.")],
    [ASKED, said(None, call("track", {"parcel": "P1", "n": 3})), TOLD, said("Hm.", call("stop", {}))],
    [ASKED, said("Two: ", call("a", {"x": 1}), call("b", {"x": "1"})), TOLD, TOLD, said("", call("c", {}))],
    [ASKED, said("上へ é ", call("go", {"to": "上へ", "say": 'a "b"\n'}))],
    [ASKED, said("{}", call("go", {"to": {"x": []}}))],
    [ASKED, said("<think>\nhm</think> ", call("go", {"to": 1.5}))],
]


def records(tmp_path, chat, *talks, longest=None):
    path = tmp_path / "t.jsonl"
    lines = [t if isinstance(t, dict) else {"group": 0, "return": 1.0, "messages": t} for t in talks]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return records_of(path, read_transcripts(path), chat, longest=longest)[0]


def whole_text(chat, ids):
    return b"".join(token_bytes(chat, i) or chat.tokenizer.decode([i]).encode() for i in ids)


def owners(chat, record, spans):
    """Role of each token: that of the spans which claim the bytes that it writes."""
    claimed = {}
    for start, end, role in spans:
        claimed.update(dict.fromkeys(range(start, end), role))
    at, roles = 0, []
    for i in record.ids:
        own = token_bytes(chat, i) or chat.tokenizer.decode([i]).encode()
        wanted = {claimed.get(k, C) for k in range(at, at + len(own))}
        roles.append(next(role for role in (A, R, X, C) if role in wanted))
        at += len(own)
    return roles


def find_spans(text, talk, *, header, end):
    """Where replies, reasoning and arguments stand, by a search of the text from left to right."""
    at, spans = 0, []
    for message in talk:
        if message["role"] != "assistant":
            continue
        at = text.index(header, at) + len(header)
        stop = text.index(end, at) + len(end)
        spans.append((at, stop, X))
        content = (message["content"] or "").encode()
        if message.get("tool_calls"):
            start = text.index(content, at)
            spans.append((start, start + len(content), R))
            at = start + len(content)
            for each in message["tool_calls"]:
                at = text.index(b'"arguments": ', at) + len(b'"arguments": ')
                form = json.dumps(each["function"]["arguments"], ensure_ascii=False).encode()
                assert text[at : at + len(form)] == form
                spans.append((at, at + len(form), A))
                at += len(form)
        at = stop
    return spans


def check_talk(chat, record, talk):
    text = whole_text(chat, record.ids)
    header, end = (
        (b"<|assistant|>", b"<|end|>")
        if b"<|assistant|>" in text
        else (b"<|im_start|>assistant\n", b"<|im_end|>")
    )
    assert record.roles == owners(chat, record, find_spans(text, talk, header=header, end=end))


@pytest.mark.parametrize("kind", ["chat", "chatml", "toolchat"])
@pytest.mark.parametrize("talk", TALKS)
def test_roles_of_tool_calls(kind, talk, request, tmp_path):
    chat = request.getfixturevalue(kind)
    (record,) = records(tmp_path, chat, talk)
    check_talk(chat, record, talk)
    assert A in record.roles
    turned = {C: C, R: A, A: R, X: X}
    for wrong in (
        [C, *record.roles[:-1]],
        [*record.roles[1:], C],
        [turned[role] for role in record.roles],
    ):
        broken = type(record)(record.start, ids=record.ids, roles=wrong)
        with pytest.raises(AssertionError):
            check_talk(chat, broken, talk)


@pytest.mark.parametrize("talk", TALKS)
def test_a_template_that_knows_calls_writes_them(toolchat, talk, tmp_path):
    assert Scribe(toolchat).knows_calls
    (record,) = records(tmp_path, toolchat, talk)
    last = max(k for k, message in enumerate(talk) if message["role"] == "assistant")
    given = [{**message, "content": message["content"] or ""} for message in talk[: last + 1]]
    expected = toolchat.tokenizer.apply_chat_template(given, tokenize=False)
    assert whole_text(toolchat, record.ids).decode() == expected.removesuffix("\n")


def test_other_templates_get_them_as_text(chatml, tmp_path):
    assert not Scribe(chatml).knows_calls
    (record,) = records(tmp_path, chatml, TALKS[2])
    assert whole_text(chatml, record.ids).decode() == (
        "<|im_start|>user\nWhere is P1? 🙂<|im_end|>\n"
        '<|im_start|>assistant\nTwo: \n<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "b", "arguments": {"x": "1"}}\n</tool_call><|im_end|>\n'
        '<|im_start|>user\n<tool_response>\n{"at": "depot"}\n</tool_response>\n'
        '<tool_response>\n{"at": "depot"}\n</tool_response><|im_end|>\n'
        '<|im_start|>assistant\n<tool_call>\n{"name": "c", "arguments": {}}\n</tool_call><|im_end|>'
    )


def test_one_call_spelled_out(chatml, tmp_path):
    """A figure, so that a shift by one or an inversion is seen at once."""
    (record,) = records(tmp_path, chatml, [ASKED, said("go", call("f", {"a": 1}))])
    pieces = [chatml.tokenizer.decode([i]) for i in record.ids]
    shown = [(p, r) for p, r in zip(pieces, record.roles, strict=True) if r != C]
    start = next(k for k, (_, role) in enumerate(shown) if role == A)
    assert "".join(p for p, r in shown if r == R) == "go"
    assert "".join(p for p, r in shown if r == A).strip().startswith('{"a": 1}')
    assert shown[0][1] == R and shown[-1] == ("<|im_end|>", X)
    assert "".join(p for p, _ in shown[:start]).rstrip() == 'go\n<tool_call>\n{"name": "f", "arguments":'


@pytest.mark.parametrize("kind", ["chat", "chatml", "toolchat"])
@pytest.mark.parametrize("game", ["frozen-lake", "sudoku"])
def test_tags_are_read_as_in_our_own_episodes(kind, game, request, tmp_path):
    chat = request.getfixturevalue(kind)
    config = WarmstartConfig(env=EnvConfig(name=game))
    for episode in range(2):
        expected = demonstration(config, chat, episode)
        texts = demonstration_texts(config, episode)
        system = frozen_lake().system_prompt if game == "frozen-lake" else _system(game)
        messages = [{"role": "system", "content": system}]
        for observation, reply in texts:
            messages += [{"role": "user", "content": observation}, {"role": "assistant", "content": reply}]
        (found,) = records(tmp_path, chat, messages)
        assert found.ids == expected.ids
        assert found.roles == expected.roles
        assert found.turns == expected.turns


def _system(game):
    from actfocus.envs import make_env

    return make_env(game).system_prompt


def test_a_tag_that_the_template_wrote_opens_the_reasoning(tmp_path):
    """As in training: `<think>` stands in the header, and the reply goes on from there."""
    chat = chat_with(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' %}<think>\n{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
    )
    reply = "two down</think><answer>Down</answer>"
    (record,) = records(tmp_path, chat, [ASKED, {"role": "assistant", "content": reply}])

    def text_of(role):
        return chat.decode([i for i, r in zip(record.ids, record.roles, strict=True) if r == role])[0]

    assert (text_of(R), text_of(A)) == ("two down", "Down")
    assert text_of(C).endswith("assistant\n<think>\n")
    (record,) = records(tmp_path, chat, [ASKED, {"role": "assistant", "content": "<think>a" + reply}])
    assert (text_of(R), text_of(A)) == ("atwo down", "Down")


@pytest.mark.parametrize(
    "reply", ["", "Down", "<think>a</think>Down", "<answer>Down</answer>", " two\nlines \n"]
)
def test_a_reply_in_neither_form_is_other(chatml, reply, tmp_path):
    (record,) = records(tmp_path, chatml, [ASKED, {"role": "assistant", "content": reply}])
    assert set(record.roles) == {C, X}
    sampled = [i for i, role in zip(record.ids, record.roles, strict=True) if role == X]
    assert chatml.decode(sampled)[0] == reply


def test_a_template_without_an_end_of_turn(tmp_path):
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{% endif %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    chat = chat_with(template.replace("{% if add_generation_prompt %}>{% endif %}", ""))
    talk = [ASKED, said("one"), {"role": "user", "content": "more"}, said("two")]
    (record,) = records(tmp_path, chat, talk)
    text = whole_text(chat, record.ids).decode()
    assert text.removesuffix("<|im_start|>") == "<|im_start|>Where is P1? 🙂one<|im_start|>moretwo"


def test_templates_without_a_system_role_get_it_in_the_first_user_message(tmp_path):
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML
    chat = chat_with(refusing)
    (record,) = records(tmp_path, chat, [SYSTEM, ASKED, said("ok")])
    assert record.ids[: -len(chat.encode_reply("ok"))] == chat.opening(SYSTEM["content"], ASKED["content"])


def test_tools_are_handed_to_the_template(toolchat, tmp_path):
    line = {"group": 0, "return": 0, "messages": [ASKED, said("ok")], "tools": [{"name": "find"}]}
    (record,) = records(tmp_path, toolchat, line)
    assert b'{"name": "find"}' in whole_text(toolchat, record.ids)


def test_group_and_return(chatml, tmp_path):
    lines = [
        {"group": g, "return": r, "messages": [ASKED, said("ok")]}
        for g, r in [("x", 0.5), ("y", 1), ("x", -1)]
    ]
    found = records(tmp_path, chatml, *lines)
    assert [(r.start, r.total_return) for r in found] == [
        (Start(0, 0, 0, 0, 0), 0.5),
        (Start(1, 0, 0, 0, 0), 1.0),
        (Start(0, 1, 0, 0, 0), -1.0),
    ]


REFUSED = [
    (CHATML, [ASKED, said("a<|im_end|>b")], "does not come back from the tokenizer"),
    ("{{ raise_exception('odd roles') }}", [ASKED, said("a")], "refuses the conversation: odd roles"),
    (CHATML.replace("m['content'] }}<", "m['content'] | upper }}<"), [ASKED, said("a")], "changes the text"),
    (
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        [{"role": "user", "content": ""}, said("a")],
        "writes nothing before the first reply",
    ),
    (
        "{% for m in messages %}{{ loop.length }}{{ m.content }}<|im_end|>{% endfor %}",
        [ASKED, said("a")],
        "in another way once it is history",
    ),
    (
        TOOL_TEMPLATE.replace("c.function.arguments | tojson", "c.function.arguments.items() | list"),
        [ASKED, said("a", call("f", {"k": "v"}))],
        "does not write the arguments of f in reply 1 as JSON",
    ),
]


@pytest.mark.parametrize(("template", "talk", "said_of_it"), REFUSED)
def test_what_is_not_certain_is_refused(template, talk, said_of_it, tmp_path):
    tokenizer = fresh_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    chat = Chat(tokenizer)
    chat.tokenizer.chat_template = template
    with pytest.raises(TranscriptError) as refused:
        records(tmp_path, chat, [ASKED, said("fine")] if "history" in said_of_it else talk, talk)
    assert said_of_it in str(refused.value)
    assert "t.jsonl, line " in str(refused.value)


def test_too_long_for_the_model(chatml, tmp_path):
    with pytest.raises(TranscriptError, match=r"line 2: the conversation has \d+ tokens, .* at most 40"):
        records(tmp_path, chatml, [ASKED, said("a")], [ASKED, said("a b c d e f g " * 10)], longest=40)


@pytest.mark.parametrize("kind", ["chat", "chatml", "toolchat"])
def test_the_example_can_be_read(kind, request):
    chat = request.getfixturevalue(kind)
    transcripts = read_transcripts(EXAMPLE)
    found, _ = records_of(EXAMPLE, transcripts, chat, longest=None)
    assert len(found) == 48 and {record.start.group for record in found} == set(range(12))
    for record in found:
        assert {C, R, A, X} == set(record.roles)
        assert record.roles[-1] == X and record.ids[-1] in chat.end_ids
    assert all("<think>" not in message.content for each in transcripts for message in each.messages)
