"""Text from strangers, promises.

1. What is cleaned is printable, on one line, with single blanks, and holds no button, no separator of
   actions, no tag; cleaning it again changes nothing.
2. What was harmless stays.
3. No text is slow, however long and odd.
4. A cut text is short enough, marked as cut, and ends on a whole word where it can.
"""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actfocus.envs.webshop.text import clean, cut

PIECES = [
    *("<", "<<", "</", "<!--", "<|", "|>", ">", ">>", "b", "think", "answer", "im_end", "script"),
    *("&lt;", "&gt;", "&LT", "&amp;", "&AMP", "amp;", "lt;", "&", "&#60;", "&#x3c;", "#60;", "#38;"),
    *("&#91;", "&lbrack;", "&rsqb;", "&vert;", "&verbar;", "&#124", "&#27;", "&#0;", "&#x202e;", "&zwnj;"),
    *("\x1b[31m", "\x1b[", "\x1b]0;", "\x1b]8;;http://x", "\x07", "\x1b\\", "\x1b", "\x9b31m", "\x9d", "m"),
    *("\u200b", "\u200d", "\u202e", "\u2066", "\u2069", "\ufeff", "\xad", "\u2028", "\x85", "\xa0", "\u3000"),
    *("\0", "\r\n", "\t", " ", "\ud800", "\U000e0041", "|", "||", "[", "]", "é", "日本", "wood", "12"),
]
NESTING = ["<", ">", "b", "&", "amp;", "lt;", "gt", ";", "#60;", "\u200b", "\x1b[m", "|", " "]
hostile = (
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
    | st.lists(st.sampled_from(NESTING), max_size=14).map("".join)
    | st.text(max_size=60)
)


def assert_harmless(text: str) -> None:
    assert text.isprintable()
    assert text == " ".join(text.split())
    assert not set("[]") & set(text)
    assert "||" not in text
    tag = re.search(r"<[/!?|｜a-zA-Z][^<>]*>", text)
    assert tag is None, tag


# 1. Harmless


@given(hostile)
def test_what_is_cleaned_is_harmless(text: str) -> None:
    assert_harmless(clean(text))


@given(hostile)
def test_cleaning_again_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize("tag", ["think", "answer", "b", "script", "|im_end|", "｜User｜", "/s", "!--x--"])
@pytest.mark.parametrize(
    "hidden",
    [
        "<{}>",
        "</{}>",
        "<{} >",
        "&lt;{}&gt;",
        "&lt{}&gt",
        "&#60;{}&#62;",
        "&#x00003C;{}&#x3e;",
        "&amp;lt;{}&amp;gt;",
        "&amp;amp;amp;lt;{}&gt;",
        "&l\u200bt;{}&gt;",
        "<\u200b{}>",
        "<{}\u202e>",
        "\u2066<\x1b[0m{}>",
        "<{}\x1b[1m>",
        "<{}\n>",
        "<{}<b>>",
        "<{}<i<b>>>",
        "<{}&lt;b&gt;>",
        "<<{}>>",
        "<<b>{}>",
        "&lt;<b>{}&gt;",
    ],
)
def test_no_tag_gets_through(tag: str, hidden: str) -> None:
    cleaned = clean(f"solid {hidden.format(tag)} wood")
    assert_harmless(cleaned)
    assert cleaned.startswith("solid ") and cleaned.endswith(" wood")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("\x1b[31mred\x1b[0m chair", "red chair"),
        ("\x1b[38;2;1;2;3mred", "red"),
        ("\x1b]0;own the window\x07chair", "chair"),
        ("\x1b]8;;http://evil\x1b\\chair\x1b]8;;\x1b\\", "chair"),
        ("\u202echair\u2069", "chair"),
        ("ch\u200ba\xadir", "chair"),
        ("<b>solid</b> wood", "solid wood"),
        ("solid<br/>wood", "solid wood"),
        ("R&amp;D &eacute;t&eacute;", "R&D été"),
        ("[buy now]", "(buy now)"),
        ("&#91;buy now&rsqb;", "(buy now)"),
        ("click || search", "click | search"),
        ("a |\u200b||\u200b| b", "a | b"),
        ("a\r\nb\u2028c\xa0d", "a b c d"),
        ("\ud800chair", "chair"),
        ("", ""),
        ("\0\u200b", ""),
    ],
)
def test_what_is_left(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


# 2. What was harmless stays


@given(st.lists(st.text("abcXYZ019 .,;:!?'\"#%()*+-/=@_{}~>é日🙂★", max_size=12), max_size=6).map(" ".join))
def test_plain_text_stays(text: str) -> None:
    assert clean(text) == " ".join(text.split())


@pytest.mark.parametrize(
    "text", ["size < 5 & > 3", "<3", "a <5 b", "5' | 6'", "A&B", "salt & pepper", "I <3 U>"]
)
def test_lone_marks_stay(text: str) -> None:
    assert clean(text) == text


# 3. Speed


@pytest.mark.parametrize(
    "unit",
    [
        *("<", "<a", "<a>", "</", ">", "&", "&amp;", "amp;", "&#", "&#60;", "&lt;a", "<!--", "<a b='"),
        *("\x1b", "\x1b[", "\x1b]", "\x1b[0;", "\x9b", "\u200b", "\u202e", "|", "[", " ", "\t", "x", "日"),
    ],
)
@pytest.mark.parametrize("before", ["", "&", "&#", "<a", "\x1b[", "\x1b]"])
def test_long_texts_are_fast(before: str, unit: str) -> None:
    text = before + unit * (100_000 // len(unit)) + "<"
    begin = time.process_time()
    cleaned = clean(text)
    assert time.process_time() - begin < 1
    assert_harmless(cleaned)


@pytest.mark.parametrize("nest", ["<a" * 20_000 + ">" * 20_000, "&" + "amp;" * 25_000 + "lt;b&gt;"])
def test_deep_nests_are_fast_and_come_out_clean(nest: str) -> None:
    begin = time.process_time()
    cleaned = clean(nest)
    assert time.process_time() - begin < 1
    assert_harmless(cleaned)
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize("number", ["9" * 5_000, "0" * 5_000 + "60", "x" + "f" * 5_000])
def test_endless_character_references(number: str) -> None:
    # Python refuses to read so long a number, and html.unescape passes its error on.
    cleaned = clean(f"solid &#{number}; wood")
    assert_harmless(cleaned)
    assert cleaned.startswith("solid") and cleaned.endswith("wood")


# 4. Cuts

words = st.lists(st.text("abcdé", min_size=1, max_size=30), max_size=20).map(" ".join)


@given(words, st.integers(1, 80))
def test_cut(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
        return
    assert short.endswith("…")
    head = short[:-1]
    assert text.startswith(head)
    assert head == head.rstrip()
    if text[len(head)] != " ":
        # Inside of a word: only one that would have left less than half of the room filled.
        assert len(head) == limit - 1
        assert len(head.rpartition(" ")[0]) <= limit / 2
    else:
        # The next word would have been too long.
        assert len(" ".join(text[: len(head) + 1 :].split())) == len(head)
        following = text[len(head) + 1 :].partition(" ")[0]
        assert len(head) + 1 + len(following) > limit - 1 or not head


@given(hostile, st.integers(1, 30))
def test_a_cut_of_a_clean_text_is_clean(text: str, limit: int) -> None:
    short = cut(clean(text), limit)
    assert len(short) <= limit
    assert clean(short) == short
    assert cut(short, limit) == short


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [
        ("solid wood chair", 16, "solid wood chair"),
        ("solid wood chair", 15, "solid wood…"),
        ("solid wood chair", 11, "solid wood…"),
        ("solid wood chair", 10, "solid woo…"),
        ("solid wood chair", 9, "solid…"),
        ("an elephant", 4, "an…"),
        ("solid", 3, "so…"),
        ("x" * 100, 10, "x" * 9 + "…"),
        ("an " + "x" * 100, 10, "an xxxxxx…"),
        ("solid", 1, "…"),
    ],
)
def test_where_a_text_is_cut(text: str, limit: int, short: str) -> None:
    assert cut(text, limit) == short
