"""Text from strangers: what a catalogue says, made safe for a page, a prompt and a terminal."""

import html
import re

_TERMINAL_CODE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-_])")
_TAG = re.compile(r"<[!/?|｜a-zA-Z][^<>]*>")
"""Of HTML, and of chat templates: `<|im_end|>` would end the turn of some model."""
_ENDLESS_NUMBER = re.compile(r"&#[0-9]{20,};?")
"""No character has such a number, and Python refuses to read a very long one."""
_SUSPECT = re.compile(r"[<&\[\]]|\|\|")
_PLAIN_BRACKETS = str.maketrans("[]", "()")
_NO_MARKUP = str.maketrans("<&", "  ")
_ROUNDS = 4


def clean(text: str) -> str:
    """Plain printable text on one line, with single blanks.

    Markup, terminal codes, control characters, invisible marks (direction, zero width) go; square brackets,
    which mean a button on our pages, become round ones, and the separator of actions loses a bar.
    """
    if text.isprintable() and not _SUSPECT.search(text):
        return " ".join(text.split())
    # What goes can leave new markup behind: `<a<b>>` a tag, `&amp;lt;` an entity.
    for _ in range(_ROUNDS):
        before, text = text, _clean_once(text)
        if text == before:
            return text
    # Nested that deeply by nobody in good faith.
    return _clean_once(text.translate(_NO_MARKUP))


def _clean_once(text: str) -> str:
    text = _TERMINAL_CODE.sub(" ", html.unescape(_ENDLESS_NUMBER.sub(" ", text)))
    # Before the tags: an invisible mark inside of one would hide it.
    text = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in text)
    text = _TAG.sub(" ", text).translate(_PLAIN_BRACKETS)
    text = re.sub(r"\|{2,}", "|", text)
    return " ".join(text.split())


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, cut behind a word where one ends, with `…` for what is missing."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    if not text[limit - 1].isspace():
        words = head.rpartition(" ")[0]
        # A word longer than half of the room is cut itself: else next to nothing would be left.
        head = words if len(words) > limit // 2 else head
    return head.rstrip() + "…"
