"""From a transcript to tokens and roles, through the model's own chat template.

The template writes everything around the replies; a reply stands as the transcript has it, whatever a
template would trim or leave out of its history. Roles:

| message of the assistant | reasoning | action |
|---|---|---|
| with tool calls | its content | each call's arguments |
| without | between the think tags | between the answer tags, as in training |

The rest of a reply (tags, names of functions, end of turn, a reply in neither form) is OTHER.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from actfocus.diagnosis.transcripts import Message, ToolCall, Transcript, TranscriptError, groups_of
from actfocus.envs.protocol import parse_reply
from actfocus.focus import Role, token_roles
from actfocus.models.chat import Chat
from actfocus.rollout.sampler import written_opening
from actfocus.rollout.trajectory import Start, Trajectory

Span = tuple[int, int, Role]


class Scribe:
    """Writes conversations as one model reads them.

    Where the template knows tool calls, they are written by it. Otherwise they are written as text, in the
    form of Hermes and Qwen: `<tool_call>` lines in the reply, `<tool_response>` lines in a user message.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.knows_calls = self._probe_calls()
        """Whether the template writes tool calls itself."""
        self._end_of_turn: int = chat.encode_reply("")[-1]
        self._end_text: str = chat.tokenizer.decode([self._end_of_turn], skip_special_tokens=False)

    def record(self, path: Path, transcript: Transcript, start: Start) -> Trajectory:
        """The transcript as a record of tokens; its return stands as the one reward.

        Raises:
            TranscriptError: If the template refuses the conversation, or writes it in a way in which its
                replies cannot be found for certain; it names file and line.
        """
        return _Writer(self._chat, self, path, transcript).write(start)

    def messages(self, transcript: Transcript, mark: str) -> list[tuple[dict[str, Any], Message]]:
        """What the template is given, with the message each entry stands for; `mark` for a reply's text."""
        found: list[tuple[dict[str, Any], Message]] = []
        for message in transcript.messages:
            given = self._given(message, mark)
            last = found[-1] if found else None
            if message.role == "tool" and not self.knows_calls and last and last[1].role == "tool":
                last[0]["content"] += "\n" + given["content"]
            elif message.role == "user" and last and last[1].role == "system" and not self._chat.takes_system:
                found[-1] = (given | {"content": f"{last[1].content}\n\n{message.content}"}, message)
            else:
                found.append((given, message))
        return found

    def _given(self, message: Message, mark: str) -> dict[str, Any]:
        if message.role == "tool":
            if not self.knows_calls:
                return {"role": "user", "content": f"<tool_response>\n{message.content}\n</tool_response>"}
            known = {"tool_call_id": message.tool_call_id, "name": message.name}
            optional = {key: value for key, value in known.items() if value is not None}
            return {"role": "tool", "content": message.content} | optional
        if message.role != "assistant":
            return {"role": message.role, "content": message.content}
        if not message.calls or not self.knows_calls:
            return {"role": "assistant", "content": mark}
        calls = [_given_call(call) for call in message.calls]
        return {"role": "assistant", "content": mark if message.content else "", "tool_calls": calls}

    def render(
        self, messages: Sequence[dict[str, Any]], *, header: bool, tools: Sequence[Any] | None = None
    ) -> str:
        """The template's text; with `header`, up to where the next reply begins. Raises what it raises."""
        given = {"tools": list(tools)} if tools is not None and self.knows_calls else {}
        text: str = self._chat.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=header, **given
        )
        return text

    def close(self, ids: list[int]) -> list[int]:
        """The ids of a reply with the token that ends it."""
        return [*ids, self._end_of_turn]

    def cut(self, reply: str) -> tuple[str, bool]:
        """The text of a reply before the end of its turn, and whether the template wrote that end."""
        at = reply.rfind(self._end_text)
        return (reply[:at], True) if at >= 0 else (reply, False)

    @property
    def end_text(self) -> str:
        """How the template writes the end of a turn."""
        return self._end_text

    def _probe_calls(self) -> bool:
        call = ToolCall("xXnameXx", {"xXkeyXx": "xXvalueXx"}, None, "abcdefghi")
        asked = {"role": "user", "content": "u"}
        called = {"role": "assistant", "content": "", "tool_calls": [_given_call(call)]}
        try:
            text: str = self._chat.tokenizer.apply_chat_template([asked, called], tokenize=False)
        except Exception:  # a template raises what it likes
            return False
        return "xXnameXx" in text and "xXvalueXx" in text


class _Writer:
    """Writes one conversation, reply by reply."""

    def __init__(self, chat: Chat, scribe: Scribe, path: Path, transcript: Transcript) -> None:
        self._chat, self._scribe, self._path, self._transcript = chat, scribe, path, transcript

    def write(self, start: Start) -> Trajectory:
        mark = _unused_mark(self._transcript)
        pairs = self._scribe.messages(self._transcript, mark)
        given = [entry for entry, _ in pairs]
        record = Trajectory(start, rewards=[self._transcript.total_return], ended="terminated")
        done, ended, turn = "", True, 0
        for place, (_, message) in enumerate(pairs):
            if message.role != "assistant":
                continue
            before = self._render(given[:place], header=True)
            after = self._render(given[: place + 1], header=False)
            if not before.startswith(done) or not after.startswith(before):
                self._fail(
                    f"the chat template writes reply {turn + 1} in another way once it is history, so it is"
                    " not known what the model read; name a model whose template keeps replies as they are"
                )
            context = before[len(done) :]
            if not ended:  # the token that ended the last reply is the one that the next turn begins with
                context = context.removeprefix(self._scribe.end_text)
            reply, ended = self._scribe.cut(after[len(before) :])
            lead, text, spans = self._reply(reply, message, mark, turn, before)
            record.add_context(self._encode(context + lead), turn)
            if not record.ids:
                self._fail("the chat template writes nothing before the first reply, so nothing predicts it")
            ids = self._scribe.close(self._encode(text))
            record.add_reply(ids, self._roles(ids, text, spans, turn), [0.0] * len(ids), turn)
            done = before + reply + (self._scribe.end_text if ended else "")
            turn += 1
        return record

    def _reply(
        self, reply: str, message: Message, mark: str, turn: int, before: str
    ) -> tuple[str, str, list[Span]]:
        """What the template puts before a reply, the reply's text, and the spans in it."""
        if not message.calls or not self._scribe.knows_calls:
            lead, _, behind = reply.partition(mark)
            if mark not in reply or behind.strip():
                self._fail(f"the chat template changes the text of reply {turn + 1}")
            return lead, *(_as_text(message) if message.calls else _tagged(message.content, before + lead))
        lead, text = "", reply
        if message.content:
            if mark not in reply:
                self._fail(f"the chat template leaves out the text before the calls of reply {turn + 1}")
            lead, _, behind = reply.partition(mark)
            text = message.content + behind
        spans: list[Span] = [(0, len(message.content), Role.REASONING)] if message.content else []
        at = len(message.content)
        for call in message.calls:
            start, at = self._find(text, call, at, turn)
            spans.append((start, at, Role.ACTION))
        return lead, text, spans

    def _find(self, text: str, call: ToolCall, start: int, turn: int) -> tuple[int, int]:
        """Where the template wrote the arguments of a call."""
        found = [(text.find(form, start), form) for form in _forms(call)]
        places = [(at, -len(form)) for at, form in found if at >= 0]
        if not places:
            self._fail(
                f"the chat template does not write the arguments of {call.name} in reply {turn + 1} as JSON,"
                " so it is not known which tokens they are"
            )
        at, length = min(places)
        return at, at - length

    def _roles(self, ids: list[int], text: str, spans: list[Span], turn: int) -> list[int]:
        decoded, offsets = self._chat.decode(ids)
        if decoded != text:
            self._fail(
                f"reply {turn + 1} does not come back from the tokenizer as it was (an end-of-turn token in"
                " it, or a tokenizer that changes text), so its characters cannot be laid on tokens"
            )
        roles: list[int] = token_roles(ids, offsets, spans, [True] * len(ids)).tolist()
        return roles

    def _render(self, given: Sequence[dict[str, Any]], *, header: bool) -> str:
        try:
            return self._scribe.render(given, header=header, tools=self._transcript.tools)
        except Exception as error:  # a template raises what it likes
            self._fail(f"the chat template refuses the conversation: {error or type(error).__name__}")

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._chat.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _fail(self, problem: str) -> NoReturn:
        raise TranscriptError(f"{self._path}, line {self._transcript.line}: {problem}")


def records_of(
    path: Path, transcripts: list[Transcript], chat: Chat, *, longest: int | None
) -> tuple[list[Trajectory], Scribe]:
    """All transcripts as records of tokens, with their groups numbered in order of appearance.

    Args:
        path: Their file, for errors.
        transcripts: What was read from it.
        chat: Tokenizer and template of the model.
        longest: Tokens that the model reads at most; None if it does not say.

    Raises:
        TranscriptError: See `Scribe.record`; also for a conversation longer than `longest`.
    """
    scribe, records = Scribe(chat), []
    for transcript, (group, member) in zip(transcripts, groups_of(transcripts), strict=True):
        record = scribe.record(path, transcript, Start(group, member, 0, 0, 0))
        if longest is not None and len(record.ids) > longest:
            raise TranscriptError(
                f"{path}, line {transcript.line}: the conversation has {len(record.ids)} tokens, but the"
                f" model reads at most {longest}"
            )
        records.append(record)
    return records, scribe


def _tagged(content: str, before: str) -> tuple[str, list[Span]]:
    """A reply without calls, and the spans between its tags; the template may have written the first one."""
    opening = written_opening(before, content)
    parsed, shift = parse_reply(opening + content), len(opening)
    found = [(parsed.reasoning, Role.REASONING), (parsed.action, Role.ACTION)]
    return content, [(span[0] - shift, span[1] - shift, role) for span, role in found if span is not None]


def _as_text(message: Message) -> tuple[str, list[Span]]:
    """Content and calls as text, for a template that knows no calls, and the spans in it."""
    text = message.content
    spans: list[Span] = [(0, len(text), Role.REASONING)] if text else []
    for call in message.calls:
        arguments = _forms(call)[0]
        text += "\n" if text else ""
        text += f'<tool_call>\n{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": '
        spans.append((len(text), len(text) + len(arguments), Role.ACTION))
        text += f"{arguments}}}\n</tool_call>"
    return text, spans


def _forms(call: ToolCall) -> list[str]:
    """The arguments as a model or a template may have written them, the likeliest first."""
    given = call.arguments
    forms = [json.dumps(given, ensure_ascii=ascii) for ascii in (False, True)]
    forms += [json.dumps(given, ensure_ascii=ascii, separators=(",", ":")) for ascii in (False, True)]
    return forms if call.written is None else [call.written, *forms]


def _given_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return ({"id": call.id} if call.id is not None else {}) | {"type": "function", "function": function}


def _unused_mark(transcript: Transcript) -> str:
    """A word that stands for a reply while the template is rendered, and that occurs nowhere else."""
    text, number = str(transcript), 0
    while f"xXreply{number}Xx" in text:
        number += 1
    return f"xXreply{number}Xx"
