"""The text that each recorded token writes, and which message of the conversation it belongs to."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from actfocus.models.chat import Chat
from actfocus.report.viewer.records import Episode

# Stand for contents while the template is rendered; no template trims or escapes anything in them.
_SYSTEM, _USER = "xXsystemXx", "xXuserXx"


class Piece(NamedTuple):
    """What one token writes: the pieces of a conversation, put together, are its text."""

    id: int
    text: str
    """The characters that it adds; none if the tokens before it have begun all that it helps to write."""
    whole: str
    """The characters that it helps to write, if a token before it has begun them; else empty."""


class Message(NamedTuple):
    """A stretch of tokens, from the end of the last one to `end`."""

    kind: str
    """`system`, `user`, `reply`, or `template`: what the chat template writes around them."""
    turn: int
    end: int


class Reader:
    """Reads episodes with one tokenizer."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._frames = self._find_frames()

    def read(self, episode: Episode) -> tuple[list[Piece], list[Message]]:
        """The pieces of all tokens, and the messages that they form."""
        all_pieces: list[Piece] = []
        messages: list[Message] = []
        tokens = range(len(episode.ids))
        for (turn, sampled), run in groupby(tokens, lambda t: (episode.turns[t], episode.is_sampled(t))):
            # Decoded as the sampler decoded it: one reply, or one stretch of context, at a time.
            pieces = self.pieces([episode.ids[t] for t in run])
            kinds = ["reply"] * len(pieces) if sampled else self.context_kinds(pieces)
            for position, kind in enumerate(kinds, start=len(all_pieces) + 1):
                if messages and messages[-1][:2] == (kind, turn):
                    messages.pop()
                messages.append(Message(kind, turn, position))
            all_pieces += pieces
        return all_pieces, messages

    def pieces(self, ids: Sequence[int]) -> list[Piece]:
        """What each id of a reply, or of a stretch of context, writes."""
        text, ranges = self._chat.decode(ids)
        found, shown = [], 0
        for token_id, (start, end) in zip(ids, ranges, strict=True):
            if token_id in self._chat.end_ids:  # writes nothing for the game; here it is shown
                found.append(Piece(token_id, self._token_text(token_id), ""))
                continue
            whole = text[start:end] if start < shown else ""
            found.append(Piece(token_id, text[max(start, shown) : end], whole))
            shown = max(shown, end)
        return found

    def context_kinds(self, pieces: Sequence[Piece]) -> list[str]:
        """Of each token of a stretch of context: `system`, `user` or `template`.

        If the text does not fit the chat template, special tokens are template and all else is `user`.
        """
        text = "".join(piece.text for piece in pieces)
        contents = next((found for frame in self._frames if (found := frame.contents(text))), None)
        if contents is None:
            return ["template" if piece.id in self._chat.special_ids else "user" for piece in pieces]
        kinds, start, last = [], 0, "template"
        for piece in pieces:
            end = start + len(piece.text)
            if piece.text:  # a token that adds nothing goes with the one that began its character
                last = next((kind for kind, lo, hi in contents if start < hi and end > lo), "template")
            kinds.append(last)
            start = end
        return kinds

    def _token_text(self, token_id: int) -> str:
        return str(self._chat.tokenizer.decode([token_id], skip_special_tokens=False))

    def _find_frames(self) -> list["_Frame"]:
        contexts = [
            self._chat.opening(_SYSTEM, _USER),
            self._chat.next_turn(_USER, reply_ended=False),
            self._chat.next_turn(_USER, reply_ended=True),
        ]
        texts = ["".join(piece.text for piece in self.pieces(ids)) for ids in contexts]
        return [frame for text in texts if (frame := _Frame.of(text)) is not None]


class _Frame(NamedTuple):
    """The template's text around the messages of one stretch of context."""

    before: str
    between: str | None
    after: str

    @classmethod
    def of(cls, text: str) -> "_Frame | None":
        before, found, rest = text.partition(_SYSTEM)
        if not found:
            before, rest = "", text
        between, found_user, after = rest.partition(_USER)
        if not found_user:
            return None
        if not found:
            return cls(between, None, after)
        # Only blanks between the two: a template without system messages, and no telling where one ends.
        return cls(before, between if between.strip() else None, after)

    def contents(self, text: str) -> list[tuple[str, int, int]] | None:
        """Kind and range [start, end) of each message in `text`; None if the frame does not fit."""
        start, end = len(self.before), len(text) - len(self.after)
        if start > end or not text.startswith(self.before) or not text.endswith(self.after):
            return None
        if self.between is None:
            return [("user", start, end)]
        middle = text.find(self.between, start, end)
        if middle < 0:
            return None
        return [("system", start, middle), ("user", middle + len(self.between), end)]
