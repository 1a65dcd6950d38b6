"""Between text and tokens: chat template, end of turn, and which token wrote which characters.

Sampled ids are never re-tokenised: a conversation grows by the ids that were sampled and by the template's
ids around them, and only text is ever made from ids, not ids from sampled text.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from actfocus.errors import ModelError

COMPACT_TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The chat template of models that have none of their own."""

# Stands for a reply while the template is rendered; templates trim and escape nothing in it.
_REPLY_MARK = "xXreplyXx"
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Chat:
    """A tokenizer with its chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises `ModelError` if the tokenizer has no end-of-sequence token."""
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no end-of-sequence token, so no reply could ever end")
        if tokenizer.chat_template is None:
            tokenizer.chat_template = COMPACT_TEMPLATE
        self.tokenizer = tokenizer
        self._pieces: dict[int, str] = {}
        # `all_special_ids` alone would leave out what has no role of its own, such as the <|end|> of Phi-3.
        added = tokenizer.added_tokens_decoder.items()
        self.special_ids = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
        self.takes_system = self._try_system_role()
        self._closing = self._find_closing()
        self._end_of_turn: int = self._closing[-1] if self._closing else tokenizer.eos_token_id
        self.end_ids = {tokenizer.eos_token_id, self._end_of_turn}

    def opening(self, system: str, user: str) -> list[int]:
        """Ids of system message, first user message and the header of the first reply."""
        return self._encode(self._render([*self._opening_messages(system, user)]))

    def next_turn(self, user: str, *, reply_ended: bool) -> list[int]:
        """Ids that stand between a sampled reply and the next one.

        `reply_ended`: whether the model itself sampled the end of its turn; if it was cut off, the
        template's end-of-turn token is put in, as context.
        """
        ids = self._encode(self._render_next(user))
        closed = len(self._closing)
        return ids[closed:] if reply_ended and ids[:closed] == self._closing else ids

    def encode_reply(self, text: str) -> list[int]:
        """Ids of a reply that was written and not sampled (a demonstration), end of turn included."""
        return [*self._encode(text), self._end_of_turn]

    def decode(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Text of sampled ids, and for each id the range [start, end) of the characters it writes.

        Ids that end a turn write nothing. Where several ids write one character between them (the bytes of
        an emoji), each carries the whole character. Bytes that make no character write the replacement
        character, and it is theirs alone: the tag that follows them keeps its own range.
        """
        visible = [i for i in ids if i not in self.end_ids]
        pieces = [self._piece(i) for i in visible]
        text = self._text(visible)
        if _UNFINISHED in text or "".join(pieces) != text:
            text, ranges = self._decode_slowly(visible, text)
        else:
            ranges, start = [], 0
            for piece in pieces:
                ranges.append((start, start + len(piece)))
                start += len(piece)
        remaining = iter(ranges)
        end = len(text)
        return text, [(end, end) if i in self.end_ids else next(remaining) for i in ids]

    def _decode_slowly(
        self, ids: Sequence[int], whole_text: str, *, slide: bool = True
    ) -> tuple[str, list[tuple[int, int]]]:
        """Decode a growing window, for ids that do not decode one by one.

        The window slides on where it ends on a whole character. A few decoders look further back than it
        reaches; they are asked again with a window that holds everything.
        """
        text, before = "", ""
        ranges: list[tuple[int, int]] = []
        window, settled = 0, 0
        for now, token_id in enumerate(ids, start=1):
            after = self._text(ids[window:now])
            kept = _common_prefix(before, after)
            if before.endswith(_UNFINISHED) and after != before + self._piece(token_id):
                kept = min(kept, len(before) - 1)  # the id goes on with the unfinished character
            start = len(text) - len(before) + kept
            text = text[: len(text) - len(before)] + after
            if kept < len(before):  # where several replacement characters became one, all their ids wrote it
                ranges[window:] = [(min(lo, start), min(hi, len(text))) for lo, hi in ranges[window:]]
            ranges.append((start, len(text)))
            if slide and not after.endswith(_UNFINISHED):
                window, settled = settled, now
                after = self._text(ids[window:now])
            before = after
        if slide and text != whole_text:
            return self._decode_slowly(ids, whole_text, slide=False)
        return text, ranges

    def _piece(self, token_id: int) -> str:
        if token_id not in self._pieces:
            self._pieces[token_id] = self._text([token_id])
        return self._pieces[token_id]

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _opening_messages(self, system: str, user: str) -> list[dict[str, str]]:
        if self.takes_system:
            return [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return [{"role": "user", "content": f"{system}\n\n{user}"}]

    def _find_closing(self) -> list[int]:
        """Ids that the template puts behind a reply, up to its end-of-turn token; empty if it has none.

        The end of a turn may be another token (<|im_end|>) than the tokenizer ends a text with, and a blank
        may stand before it. A template without one starts the next turn at once, and that start then ends
        the turn.
        """
        closing = self._encode(self._after_reply([]))
        ends = [k for k, token_id in enumerate(closing) if token_id in self.special_ids]
        if ends:
            return closing[: ends[0] + 1]
        first = self._encode(self._render_next("u"))[:1]
        return first if self.special_ids.issuperset(first) else []

    def _render_next(self, user: str) -> str:
        return self._after_reply([{"role": "user", "content": user}])

    def _after_reply(self, following: list[dict[str, str]]) -> str:
        reply = {"role": "assistant", "content": _REPLY_MARK}
        messages = [*self._opening_messages("s", "u"), reply, *following]
        return self._render(messages, header=bool(following)).partition(_REPLY_MARK)[2]

    def _render(self, messages: list[dict[str, str]], *, header: bool = True) -> str:
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=header)
        return text

    def _try_system_role(self) -> bool:
        """Some templates refuse a system message; its text then opens the first user message."""
        try:
            return "xXsystemXx" in self._render(
                [{"role": "system", "content": "xXsystemXx"}, {"role": "user", "content": "u"}]
            )
        except Exception:  # a template raises what it likes
            return False


def _common_prefix(a: str, b: str) -> int:
    """Characters at the start that two texts share."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
