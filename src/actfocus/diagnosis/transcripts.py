"""Transcripts from elsewhere: the schema of their file, and its reading. Imports no torch.

One JSON object a line, UTF-8, one line an episode:

| key | required | meaning |
|---|---|---|
| `group` | yes | string or whole number, shared by the episodes that began in one state |
| `return` | yes | finite number (of single precision): what the episode earned in all |
| `messages` | yes | the conversation, in the form below |
| `tools` | no | list of tool definitions, handed to the chat template |
| `extra` | no | anything; not read |

| message | keys |
|---|---|
| `system`, `user` | `role`, `content` (string) |
| `assistant` | `role`, `content` (string or null), `tool_calls` (list, may be missing) |
| `tool` | `role`, `content` (string), `tool_call_id` (string, may be missing), `name` (may be missing) |

A tool call is `{"id": …, "type": "function", "function": {"name": string, "arguments": object or string}}`;
`id` and `type` may be missing, and a string must itself be the JSON of an object. The first message is a
`system` or `user` one, and at least one is the assistant's. Nothing else is accepted, nothing is guessed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from actfocus.errors import ConfigError, did_you_mean

_LARGEST = 3.4e38
"""Returns are reckoned with in single precision."""
_LINE_KEYS = {"group", "return", "messages", "tools", "extra"}
_MESSAGE_KEYS = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id", "name"},
}


@dataclass(frozen=True)
class ToolCall:
    """One call: its function and its arguments."""

    name: str
    arguments: dict[str, Any]
    written: str | None
    """The arguments as the file writes them, if it gives a string."""
    id: str | None


@dataclass(frozen=True)
class Message:
    """One message; `content` is empty where an assistant's message holds calls alone."""

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Transcript:
    """One episode, and where it stands in the file."""

    line: int
    group: str | int
    total_return: float
    messages: tuple[Message, ...]
    tools: tuple[Any, ...] | None = None


class TranscriptError(ConfigError):
    """A line of a transcript file cannot be used; the message names file and line."""


def read_transcripts(path: Path) -> list[Transcript]:
    """All episodes of a file, in order.

    Raises:
        TranscriptError: If the file cannot be read, is empty, or a line is not of the schema: with the file's
            name, the number of the line from 1, and what is wrong there.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe can be read once only, a device has no end
            raise TranscriptError(f"{path} is no ordinary file: write the transcripts to one and name that")
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TranscriptError(f"cannot read the transcripts {path}: {error.strerror or error}") from None
    if lines[-1] == b"":  # the end of the last line
        lines.pop()
    if not lines:
        raise TranscriptError(f"{path} is empty: it needs one JSON object a line")
    return [_Line(path, number).read(line) for number, line in enumerate(lines, start=1)]


class _Line:
    """Reads one line; knows where it stands, for the error."""

    def __init__(self, path: Path, number: int) -> None:
        self._path, self._number = path, number

    def read(self, line: bytes) -> Transcript:
        record = self._parse(line)
        self._keys(record, _LINE_KEYS, {"group", "return", "messages"}, "")
        group, total = record["group"], record["return"]
        if isinstance(group, bool) or not isinstance(group, str | int):
            self._fail(f"group must be a string or a whole number, got {_short(group)}")
        if isinstance(total, bool) or not isinstance(total, int | float) or not abs(total) <= _LARGEST:
            self._fail(f"return must be a finite number (of single precision), got {_short(total)}")
        messages = record["messages"]
        if not isinstance(messages, list) or not messages:
            self._fail(f"messages must be a list that is not empty, got {_short(messages)}")
        read = tuple(self._message(message, f"messages[{k}]") for k, message in enumerate(messages))
        if read[0].role not in ("system", "user"):
            self._fail(f"messages[0] must be of the system or the user, got {read[0].role}")
        if all(message.role != "assistant" for message in read):
            self._fail("no message is the assistant's")
        tools = record.get("tools")
        if tools is not None and not (isinstance(tools, list) and all(isinstance(t, dict) for t in tools)):
            self._fail(f"tools must be a list of objects, got {_short(tools)}")
        return Transcript(self._number, group, float(total), read, None if tools is None else tuple(tools))

    def _parse(self, line: bytes) -> dict[str, Any]:
        if not line.strip():
            self._fail("the line is blank")
        try:
            record = json.loads(
                line.decode("utf-8"), parse_constant=self._constant, object_pairs_hook=self._object
            )
        except (ValueError, RecursionError) as error:  # ValueError also for a number of too many digits
            self._fail(f"not valid JSON in UTF-8: {error}")
        if not isinstance(record, dict):
            self._fail(f"the line must be a JSON object, got {_short(record)}")
        self._whole_characters(record)
        return record

    def _whole_characters(self, value: Any) -> None:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            self._fail("a string holds half of a surrogate pair, which is no character")

    def _message(self, message: Any, where: str) -> Message:
        if not isinstance(message, dict):
            self._fail(f"{where} must be an object, got {_short(message)}")
        role = message.get("role")
        if not isinstance(role, str) or role not in _MESSAGE_KEYS:
            known = ", ".join(_MESSAGE_KEYS)
            self._fail(f"{where}.role must be one of {known}, got {_short(role)}")
        self._keys(message, _MESSAGE_KEYS[role], {"role", "content"}, f"{where}.", optional_content=role)
        calls: Any = [] if message.get("tool_calls") is None else message["tool_calls"]
        if not isinstance(calls, list):
            self._fail(f"{where}.tool_calls must be a list, got {_short(calls)}")
        content = message.get("content")
        if content is None and calls:
            content = ""
        if not isinstance(content, str):
            self._fail(f"{where}.content must be a string, got {_short(content)}")
        for key in ("tool_call_id", "name"):
            if not isinstance(message.get(key, ""), str):
                self._fail(f"{where}.{key} must be a string, got {_short(message[key])}")
        read = tuple(self._call(call, f"{where}.tool_calls[{k}]") for k, call in enumerate(calls))
        return Message(role, content, read, message.get("tool_call_id"), message.get("name"))

    def _call(self, call: Any, where: str) -> ToolCall:
        if not isinstance(call, dict):
            self._fail(f"{where} must be an object, got {_short(call)}")
        self._keys(call, {"id", "type", "function"}, {"function"}, f"{where}.")
        if call.get("type", "function") != "function":
            self._fail(f"{where}.type must be 'function', got {_short(call['type'])}")
        if not isinstance(call.get("id", ""), str):
            self._fail(f"{where}.id must be a string, got {_short(call['id'])}")
        function = call["function"]
        if not isinstance(function, dict):
            self._fail(f"{where}.function must be an object, got {_short(function)}")
        self._keys(function, {"name", "arguments"}, {"name", "arguments"}, f"{where}.function.")
        name, arguments = function["name"], function["arguments"]
        if not isinstance(name, str) or not name:
            self._fail(f"{where}.function.name must be a string that is not empty, got {_short(name)}")
        written = arguments if isinstance(arguments, str) else None
        if written is not None:
            try:
                arguments = json.loads(written, parse_constant=self._constant, object_pairs_hook=self._object)
            except (ValueError, RecursionError) as error:
                self._fail(f"{where}.function.arguments is a string that is not JSON: {error}")
            self._whole_characters(arguments)
        if not isinstance(arguments, dict):
            self._fail(f"{where}.function.arguments must be an object, got {_short(arguments)}")
        return ToolCall(name, arguments, written, call.get("id"))

    def _keys(
        self,
        found: Mapping[str, Any],
        known: set[str],
        required: set[str],
        where: str,
        *,
        optional_content: str = "",
    ) -> None:
        """Refuse unknown keys and missing ones; an assistant who only calls tools may leave out content."""
        for key in found:
            if key not in known:
                self._fail(f"unknown key {where}{key}{did_you_mean(key, sorted(known))}")
        for key in sorted(required - set(found)):
            if not (key == "content" and optional_content == "assistant" and found.get("tool_calls")):
                self._fail(f"{where}{key} is missing")

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            self._fail(f"the key {next(n for n in names if names.count(n) > 1)!r} stands twice in one object")
        return found

    def _constant(self, name: str) -> NoReturn:
        self._fail(f"not valid JSON: {name} is no number of JSON's")

    def _fail(self, problem: str) -> NoReturn:
        raise TranscriptError(f"{self._path}, line {self._number}: {problem}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def groups_of(transcripts: list[Transcript]) -> Iterator[tuple[int, int]]:
    """For each transcript the number of its group, in order of appearance, and its place in it."""
    numbers: dict[tuple[type, str | int], int] = {}
    members: dict[int, int] = {}
    for transcript in transcripts:
        # 1 and "1" are different names.
        group = numbers.setdefault((type(transcript.group), transcript.group), len(numbers))
        yield group, members.setdefault(group, 0)
        members[group] += 1
