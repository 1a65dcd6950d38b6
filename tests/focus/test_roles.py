"""Which token is what, over generated transcripts: every token has exactly one role, and it is the right one.

A transcript has several turns; its replies are well formed, or lack, repeat, nest, reorder or truncate their
tags, in text of one to four bytes a character. Each is cut into tokens at random, tags and single characters
included, and the roles are compared with a search character by character (`tests/oracle.py`); for replies
that were built well formed also with what was built.
"""

import random
import runpy
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.envs import parse_reply
from tests import oracle
from tests.modules import roles_module, weights_module

Role = roles_module.Role

UNCHECKED = runpy.run_path(roles_module.__file__)
"""The same source without the run-time type checks, which take ten times as long as what they check."""

ACTION = 2
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
WORDS = [
    *["up", "Left", " ", "  ", "\n", "||", "push", "0", "\x00", "\ufffd", "\u200b"],
    *["é", "ß", "π≈3", "e\u0301", "上へ", "左", "🙂", "👩\u200d🚀", "שלום"],
    *["<", ">", "</", "<think", "answer>", "</answ", "<Answer>", "< think>", "&lt;"],
]
TRANSCRIPTS_PER_SEED = 700
SEEDS = range(32)


@dataclass
class Transcript:
    """One episode as text, cut into tokens."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    offsets: list[tuple[int, int]] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    built: list[tuple[int, int, int]] = field(default_factory=list)
    """The spans of the replies that were built well formed, known without parsing."""


def prose(rng, most=6):
    """Text of all sorts that holds no whole tag."""
    while True:
        text = "".join(rng.choices(WORDS, k=rng.randint(0, most)))
        if not any(tag in text for tag in TAGS):
            return text


def random_reply(rng):
    """A reply, and where its spans lie if it is well formed by construction (else None)."""
    reasoning, action = prose(rng), prose(rng)
    pieces = [TAGS[0], reasoning, TAGS[1], TAGS[2], action, TAGS[3]]
    kind = rng.randrange(10)
    if kind < 4:
        gaps = [rng.choice(["", "", "\n", " \n"]) for _ in range(3)]
        if rng.random() < 0.15:
            pieces[1] = reasoning = ""
        if rng.random() < 0.15:
            pieces[4] = action = rng.choice(["", " "])
        begin = len(gaps[0]) + len(TAGS[0])
        then = begin + len(reasoning) + len(TAGS[1]) + len(gaps[1]) + len(TAGS[2])
        text = gaps[0] + "".join(pieces[:3]) + gaps[1] + "".join(pieces[3:]) + gaps[2]
        return text, [
            (begin, begin + len(reasoning), Role.REASONING),
            (then, then + len(action), Role.ACTION),
        ]
    if kind == 4:
        del pieces[rng.choice([0, 2, 3, 5])]
    elif kind == 5:
        pieces.insert(rng.randint(0, 6), rng.choice(TAGS))
    elif kind == 6:
        pieces[1] = prose(rng) + "".join(pieces) + prose(rng)
    elif kind == 7:
        whole = "".join(pieces)
        return whole[: rng.randint(0, len(whole) - 1)], None
    elif kind == 8:
        rng.shuffle(pieces)
        if [piece for piece in pieces if piece in TAGS] == TAGS:
            pieces.append(TAGS[0])
    else:
        pieces.insert(rng.choice([0, 3, 6]), "word")
    return "".join(pieces), None


def random_tokens(rng, text):
    """Cut `text` into tokens: (start, end) characters each, several tokens for one character included."""
    data = text.encode()
    character_of_byte = [place for place, letter in enumerate(text) for _ in letter.encode()]
    cut_share = rng.choice([0.05, 0.3, 0.7, 1.0])
    between_characters = rng.random() < 0.3
    cuts = [0]
    for place in range(1, len(data)):
        if between_characters and character_of_byte[place] == character_of_byte[place - 1]:
            continue
        if rng.random() < cut_share:
            cuts.append(place)
    cuts.append(len(data))
    return [
        (character_of_byte[start], character_of_byte[end - 1] + 1)
        for start, end in pairwise(cuts)
        if end > start
    ]


def random_transcript(rng):
    made = Transcript()

    def write(text, forced):
        """Append the tokens of `text`; the first `forced` of them (all: None) are not sampled."""
        tokens = random_tokens(rng, text)
        for place, (start, end) in enumerate(tokens):
            made.ids.append(rng.randrange(50_000))
            made.offsets.append((len(made.text) + start, len(made.text) + end))
            made.sampled.append(forced is not None and place >= forced)
        made.text += text

    def write_silent(is_sampled):
        """A special token, such as the end of a turn, that writes no text."""
        made.ids.append(rng.randrange(50_000, 50_010))
        made.offsets.append((len(made.text), len(made.text)))
        made.sampled.append(is_sampled)

    for _ in range(rng.randint(1, 3)):
        # Observations may show tags too: what counts is who wrote them.
        write(prose(rng) + rng.choice(["", "<think>x</think><answer>y</answer>", "<answer>"]), None)
        write_silent(False)
        reply, built = random_reply(rng)
        here = len(made.text)
        parsed = parse_reply(reply)
        for place, role in [(parsed.reasoning, Role.REASONING), (parsed.action, Role.ACTION)]:
            if place is not None:
                made.spans.append((here + place[0], here + place[1], role))
        if built is not None:
            assert parsed.reasoning is not None and parsed.action is not None
            made.built += [(here + start, here + end, role) for start, end, role in built]
        else:
            assert parsed.reasoning is None and parsed.action is None
        write(reply, rng.choice([0, 0, 0, 1, 2]))
        if rng.random() < 0.8:
            write_silent(True)
    rng.shuffle(made.spans)
    return made


def check_roles(seed, count, *, unchecked=False):
    rng = random.Random(seed)
    every_role, every_sampled = [], []
    for _ in range(count):
        made = random_transcript(rng)
        if unchecked:
            spans = [(start, end, UNCHECKED["Role"](role)) for start, end, role in made.spans]
            got = UNCHECKED["token_roles"](made.ids, made.offsets, spans, made.sampled)
        else:
            got = roles_module.token_roles(made.ids, made.offsets, made.spans, made.sampled)
        assert got.dtype == torch.int8
        assert got.shape == (len(made.ids),)
        expected = oracle.roles(made.offsets, made.built, made.sampled)
        assert got.tolist() == expected == oracle.roles(made.offsets, made.spans, made.sampled), made
        every_role.append(got)
        every_sampled += made.sampled
    roles_BT = torch.cat(every_role)[None]
    signal_BT = torch.where(roles_BT == ACTION, -20.0, torch.nan)
    weights_BT = weights_module.token_weights(roles_BT, signal_BT, alpha=0.1, beta=0.5)
    assert ((weights_BT == 0) == ~torch.tensor(every_sampled)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_transcripts(seed):
    check_roles(seed, TRANSCRIPTS_PER_SEED, unchecked=True)
    check_roles(seed, 20)


def test_the_transcripts_are_worth_testing():
    """Every role, every way to be malformed, and tokens that straddle what they can straddle, are there."""
    assert len(SEEDS) * TRANSCRIPTS_PER_SEED >= 20_000
    rng, seen = random.Random(0), set()
    for _ in range(1500):
        made = random_transcript(rng)
        seen |= {("role", role) for role in oracle.roles(made.offsets, made.spans, made.sampled)}
        seen |= {"empty span" for start, end, _ in made.spans if start == end}
        seen |= {"shared character" for a, b in pairwise(made.offsets) if a[1] > b[0]}
        for start, end in made.offsets:
            inside = {role for s, e, role in made.spans if max(s, start) < min(e, end)}
            if len(inside) == 2:
                seen.add("both spans")
            if any(max(s, start) < min(e, end) and not s <= start < end <= e for s, e, _ in made.spans):
                seen.add("over an edge")
    assert seen == {
        *[("role", role) for role in range(4)],
        "empty span",
        "shared character",
        "both spans",
        "over an edge",
    }
    errors = {str(parse_reply(random_reply(rng)[0]).error).split()[0] for _ in range(1500)}
    assert errors == {"None", "missing", "repeated", "tags", "text", "empty"}


@st.composite
def offsets_and_spans(draw):
    """Disjoint spans, neighbours included, and token ranges that need not be in order or join up."""
    length = draw(st.integers(0, 24))
    edges = draw(st.lists(st.integers(0, length), min_size=0, max_size=8).map(sorted))
    kinds = st.sampled_from([Role.REASONING, Role.ACTION])
    spans = [(start, end, draw(kinds)) for start, end in pairwise(edges)]
    spans = draw(st.permutations([span for span in spans if draw(st.booleans())]))
    ranges = st.tuples(st.integers(0, length), st.integers(0, length)).map(lambda pair: tuple(sorted(pair)))
    tokens = draw(st.lists(st.tuples(st.integers(0, 99), ranges, st.booleans()), max_size=12))
    return tokens, spans


@settings(max_examples=400, deadline=None, derandomize=True)
@given(offsets_and_spans())
def test_any_ranges(case):
    tokens, spans = case
    ids, offsets, sampled = ([token[place] for token in tokens] for place in range(3))
    got = roles_module.token_roles(ids, offsets, spans, sampled)
    assert got.tolist() == oracle.roles(offsets, spans, sampled)


def test_the_rule_by_hand():
    """Text `<think>a</think><answer>b</answer>`: "a" is character 7, "b" is character 24."""
    spans = [(7, 8, Role.REASONING), (24, 25, Role.ACTION)]
    cases = [
        ((0, 7), Role.OTHER),  # the tag touches the span and does not enter it
        ((7, 8), Role.REASONING),
        ((6, 9), Role.REASONING),  # one character is enough
        ((8, 24), Role.OTHER),
        ((7, 25), Role.ACTION),  # action comes before reasoning
        ((24, 26), Role.ACTION),
        ((25, 34), Role.OTHER),
        ((24, 24), Role.OTHER),  # writes nothing
        ((34, 34), Role.OTHER),
    ]
    offsets = [offset for offset, _ in cases]
    ids = list(range(len(cases)))
    got = roles_module.token_roles(ids, offsets, spans, [True] * len(cases))
    assert got.tolist() == [role for _, role in cases]
    assert roles_module.token_roles(ids, offsets, spans, [False] * len(cases)).tolist() == [0] * len(cases)


def test_no_tokens():
    assert roles_module.token_roles([], [], [], []).shape == (0,)


@pytest.mark.parametrize(
    ("ids", "offsets", "sampled"),
    [
        ([1], [(0, 1), (1, 2)], [True, True]),
        ([1, 2], [(0, 1)], [True, True]),
        ([1, 2], [(0, 1), (1, 2)], [True]),
        ([1, 2], [(0, 1), (2, 1)], [True, True]),
    ],
)
def test_input_that_does_not_fit_together_is_refused(ids, offsets, sampled):
    with pytest.raises(ValueError, match=r"ids, \d+ offsets|ends before it starts"):
        roles_module.token_roles(ids, offsets, [(0, 2, Role.ACTION)], sampled)
