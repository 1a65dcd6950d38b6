"""Random replies, well-formed and broken, whose meaning is known because of how they were made.

The meaning comes from the making and never from a parser: a parser checked against itself is always right.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
SPACES = ("", "", "", " ", "\n", "\t ", "\r\n", "\u00a0", "\u2003")
PIECES = (
    *("<", ">", "</", "<think", "/think>", "<answer", "answer>", "<THINK>", "</Answer>", "< think>"),
    *("|", "left", "Right", "up", "1,2,3", "(0,1)", " ", "\n", ".", "I am at "),
    *(
        "\x00",
        "\x1b[2J",
        "\x7f",
        "\x85",
        "\u2028",
        "\u202e",
        "\ud800",
        "\ufeff",
        "\U0001f600",
        "é",
        "e\u0301",
    ),
    *("√", "İ", "ﬁ", "０", "١", "中", "\u200b"),
)
MALFORMED_SHARE = 0.4
UNKNOWN_SHARE = 0.25
HUGE_SHARE = 0.0005


@dataclass(frozen=True)
class Part:
    """One action of an answer; `known` if the game has it."""

    text: str
    known: bool


@dataclass(frozen=True)
class Case:
    """A reply and what it means; without `parts` it must be penalised."""

    text: str
    reasoning: tuple[int, int] | None = None
    action: tuple[int, int] | None = None
    parts: tuple[Part, ...] = ()


def random_case(source: random.Random, legal_action: Callable[[], str]) -> Case:
    """A random reply; its known actions come from `legal_action`."""
    parts, answer = _random_answer(source, legal_action)
    pieces = [
        *(source.choice(SPACES), TAGS[0], tagless(source), TAGS[1]),
        *(source.choice(SPACES), TAGS[2], answer, TAGS[3], source.choice(SPACES)),
    ]
    if source.random() < MALFORMED_SHARE:
        return Case(source.choice(BREAKS)(source, pieces))
    # starts[i] is where piece i begins.
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    return Case("".join(pieces), (starts[2], starts[3]), (starts[6], starts[7]), parts)


def tagless(source: random.Random) -> str:
    """Text without any of the tags, though with much that looks like one."""
    pieces = source.choices(PIECES, k=source.randrange(8))
    pieces.append(chr(source.randrange(0x110000)))
    if source.random() < HUGE_SHARE:
        pieces *= 20_000
    text = "".join(pieces)
    return text.replace(">", "") if any(tag in text for tag in TAGS) else text


def _random_answer(source: random.Random, legal_action: Callable[[], str]) -> tuple[tuple[Part, ...], str]:
    parts, written = [], []
    for _ in range(source.choice((0, 1, 1, 1, 2, 2, 3, 6))):
        if source.random() < UNKNOWN_SHARE:
            # No game has an action that begins with this sign. A lone bar would shift the separator, and
            # taking it out could join the halves of a tag.
            part = Part("¿" + tagless(source).replace("|", "!"), known=False)
        else:
            change = source.choice((str, str.lower, str.upper, str.title, str.swapcase))
            part = Part(change(legal_action()), known=True)
        parts.append(part)
        written.append(source.choice(SPACES) + part.text + source.choice(SPACES))
        # Nothing, or only space, between two separators is no action.
        written += source.choices(SPACES, k=source.choice((0, 0, 0, 1, 2)))
    return tuple(parts), "||".join(written)


# Ways to break a well-formed reply, given as its nine pieces: the tags are those with an odd index. --------


def _without_a_tag(source: random.Random, pieces: list[str]) -> str:
    pieces[source.choice((1, 3, 5, 7))] = ""
    return "".join(pieces)


def _truncated(source: random.Random, pieces: list[str]) -> str:
    return "".join(pieces[:8])[: -source.randint(1, 30)]


def _with_a_tag_too_many(source: random.Random, pieces: list[str]) -> str:
    """Anywhere, even amid another tag, which it then destroys."""
    text = "".join(pieces)
    place = source.randint(0, len(text))
    return text[:place] + source.choice(TAGS) + text[place:]


def _nested(source: random.Random, pieces: list[str]) -> str:
    text = "".join(pieces)
    return text + text if source.random() < 0.5 else TAGS[0] + text + TAGS[1]


def _out_of_order(source: random.Random, pieces: list[str]) -> str:
    one, other = source.sample((1, 3, 5, 7), k=2)
    pieces[one], pieces[other] = pieces[other], pieces[one]
    return "".join(pieces)


def _text_outside(source: random.Random, pieces: list[str]) -> str:
    pieces[source.choice((0, 4, 8))] += "x" + tagless(source)
    return "".join(pieces)


def _wrong_tags(source: random.Random, pieces: list[str]) -> str:
    number = source.choice((1, 3, 5, 7))
    pieces[number] = source.choice((pieces[number].upper(), pieces[number].replace("<", "< "), "<action>"))
    return "".join(pieces)


def _no_format(source: random.Random, pieces: list[str]) -> str:
    return source.choice(("", " \n", pieces[2], pieces[6], tagless(source)))


BREAKS = (
    *(_without_a_tag, _truncated, _with_a_tag_too_many, _nested),
    *(_out_of_order, _text_outside, _wrong_tags, _no_format),
)
