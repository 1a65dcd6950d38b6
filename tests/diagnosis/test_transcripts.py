"""Transcript files, promises: what the schema allows is read as it stands; anything else is refused with the
file's name and the number of the line, whatever is wrong with it, and nothing is guessed.
"""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.diagnosis.transcripts import TranscriptError, groups_of, read_transcripts

ASKED = {"role": "user", "content": "Where is it?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "track", "arguments": '{"parcel": "P1"}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
SAID = {"role": "assistant", "content": "Here."}
GOOD = {"group": "a", "return": 1, "messages": [ASKED, CALLED, {"role": "tool", "content": "depot"}, SAID]}


def with_call(**changes):
    function = {**CALL["function"], **changes.pop("function", {})}
    call = {**CALL, "function": function, **changes}
    return {**GOOD, "messages": [ASKED, {**CALLED, "tool_calls": [call]}]}


def with_messages(*messages):
    return {**GOOD, "messages": list(messages)}


# (the line, what its error must say)
BAD = [
    (b"", "blank"),
    (b"  ", "blank"),
    (b"{", "not valid JSON"),
    (b"\xff{}", "not valid JSON in UTF-8"),
    (b"[]", "must be a JSON object"),
    (b'{"group": 1, "group": 2}', "'group' stands twice"),
    (b'{"group": 1, "return": NaN, "messages": []}', "NaN"),
    (b'{"group": 1, "return": 1e999, "messages": []}', "finite"),
    (json.dumps({**GOOD, "group": "\ud800"}).encode(), "surrogate"),
    ({**GOOD, "reward": 1}, "unknown key reward"),
    ({**GOOD, "mesages": []}, "did you mean 'messages'"),
    ({"group": 1, "return": 1}, "messages is missing"),
    ({**GOOD, "group": True}, "group must be"),
    ({**GOOD, "group": 1.5}, "group must be"),
    ({**GOOD, "group": None}, "group must be"),
    ({**GOOD, "return": "1"}, "return must be"),
    ({**GOOD, "return": True}, "return must be"),
    ({**GOOD, "return": 10**400}, "return must be"),
    ({**GOOD, "return": 1e39}, "of single precision"),
    (b'{"group": 1, "return": ' + b"1" * 5000 + b', "messages": []}', "5000 digits"),
    ({**GOOD, "messages": []}, "messages must be"),
    ({**GOOD, "messages": {}}, "messages must be"),
    ({**GOOD, "tools": {}}, "tools must be"),
    (with_messages("hi", SAID), "messages[0] must be an object"),
    (with_messages({"content": "hi"}, SAID), "messages[0].role"),
    (with_messages({"role": "bot", "content": "hi"}, SAID), 'got "bot"'),
    (with_messages(SAID), "messages[0] must be of the system or the user"),
    (with_messages(ASKED), "no message is the assistant's"),
    (with_messages({"role": "user"}, SAID), "messages[0].content is missing"),
    (with_messages({"role": "user", "content": None}, SAID), "messages[0].content must be a string"),
    (with_messages({"role": "user", "content": [{"type": "text"}]}, SAID), "messages[0].content"),
    (with_messages(ASKED, {"role": "assistant", "content": None}), "messages[1].content must be a string"),
    (with_messages(ASKED, {"role": "assistant"}), "messages[1].content is missing"),
    (with_messages(ASKED, {**SAID, "reasoning_content": "hm"}), "unknown key messages[1].reasoning_content"),
    (with_messages(ASKED, SAID, {"role": "tool", "content": "x", "name": 1}), "messages[2].name"),
    (with_messages(ASKED, {**CALLED, "tool_calls": "x"}), "tool_calls must be a list"),
    (with_messages(ASKED, {**SAID, "tool_calls": 0}), "tool_calls must be a list"),
    (with_messages(ASKED, {**SAID, "tool_calls": {}}), "tool_calls must be a list"),
    (with_messages(ASKED, {**CALLED, "tool_calls": ["x"]}), "tool_calls[0] must be an object"),
    (with_call(type="code"), "type must be 'function'"),
    (with_call(id=3), "id must be a string"),
    (with_call(function={"name": ""}), "function.name"),
    (with_call(function={"arguments": "{"}), "a string that is not JSON"),
    (with_call(function={"arguments": f'{{"a": {"1" * 5000}}}'}), "5000 digits"),
    (with_call(function={"arguments": '{"a": "\\ud800"}'}), "surrogate"),
    (with_call(function={"arguments": "[1]"}), "arguments must be an object"),
    (with_call(function={"arguments": [1]}), "arguments must be an object"),
    (with_call(function={"arguments": '{"a": 1, "a": 2}'}), "'a' stands twice"),
    (with_call(function={"extra": 1}), "unknown key messages[1].tool_calls[0].function.extra"),
]


def written(tmp_path, *lines):
    path = tmp_path / "agents.jsonl"
    path.write_bytes(b"".join(_line(line) + b"\n" for line in lines))
    return path


def _line(line):
    return line if isinstance(line, bytes) else json.dumps(line).encode()


@pytest.mark.parametrize(("line", "said"), BAD)
def test_a_bad_line_is_named(tmp_path, line, said):
    path = written(tmp_path, GOOD, line, GOOD)
    with pytest.raises(TranscriptError) as refused:
        read_transcripts(path)
    assert str(refused.value).startswith(f"{path}, line 2: ")
    assert said in str(refused.value)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(TranscriptError, match=r"cannot read .*nowhere"):
        read_transcripts(tmp_path / "nowhere")
    with pytest.raises(TranscriptError, match="is empty"):
        read_transcripts(written(tmp_path))


def test_what_is_no_file_is_refused(tmp_path):
    """The command reads the file twice: a pipe would be empty, or wait for ever, at the second time."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(TranscriptError, match="is no ordinary file"):
            read_transcripts(path)


def test_what_the_schema_allows_is_read_as_it_stands(tmp_path):
    tools = [{"type": "function", "function": {"name": "track"}}]
    free = {**GOOD, "group": 7, "return": -0.5, "tools": tools, "extra": {"any": "thing"}}
    first, second = read_transcripts(written(tmp_path, GOOD, free))
    assert (first.line, first.group, first.total_return, first.tools) == (1, "a", 1.0, None)
    assert (second.line, second.group, second.total_return, second.tools) == (2, 7, -0.5, tuple(tools))
    asked, called, told, said = first.messages
    assert (asked.role, asked.content, said.content, told.content) == (
        "user",
        "Where is it?",
        "Here.",
        "depot",
    )
    (call,) = called.calls
    assert (call.name, call.arguments, call.written) == ("track", {"parcel": "P1"}, '{"parcel": "P1"}')
    assert called.content == ""


def test_the_last_line_needs_no_end(tmp_path):
    path = tmp_path / "agents.jsonl"
    path.write_bytes(_line(GOOD) + b"\n" + _line(GOOD))
    assert len(read_transcripts(path)) == 2


def test_groups_are_numbered_in_order_of_appearance(tmp_path):
    lines = [{**GOOD, "group": group} for group in ("b", 1, "b", "1", 1)]
    assert list(groups_of(read_transcripts(written(tmp_path, *lines)))) == [
        (0, 0), (1, 0), (0, 1), (2, 0), (1, 1),
    ]  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    (),
    ("group",),
    ("return",),
    ("messages",),
    ("messages", 0),
    ("messages", 1),
    ("messages", 1, "content"),
]
PLACES += [("messages", 1, "tool_calls"), ("messages", 1, "tool_calls", 0)]
PLACES += [("messages", 1, "tool_calls", 0, "function", "arguments")]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PLACES), JSON)
def test_whatever_stands_there_it_is_read_or_refused(tmp_path_factory, place, value):
    line = json.loads(json.dumps(GOOD))
    holder = {"line": line}
    *path, last = ("line", *place)
    target = holder
    for key in path:
        target = target[key]
    target[last] = value
    path = written(tmp_path_factory.mktemp("fuzz"), GOOD, holder["line"])
    try:
        assert len(read_transcripts(path)) == 2
    except TranscriptError as error:
        assert "line 2: " in str(error)
