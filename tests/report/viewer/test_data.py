"""Records and packed data, promises:

1. Every figure is on its own token, at four digits; what is missing or not finite is null; a list of another
   length than the tokens is left out and named, never shifted onto them.
2. The log-prob ratio to the reference is computed before it is rounded.
3. 100 trajectories take less than 5 MB, whatever their figures.
4. A limit takes whole groups, trained ones first.
"""

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest

from actfocus.config import Config
from actfocus.report.viewer.collect import choose
from actfocus.report.viewer.data import Vocabulary, pack_episode, pack_step, ranges, run_facts
from actfocus.report.viewer.page import render_page
from actfocus.report.viewer.records import FIGURES, Episode, read_episode
from actfocus.report.viewer.text import Reader
from tests.report.viewer.runs import REPLY, Record, plain, play, tiny_chat, with_figures

NAN = float("nan")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(tiny_chat())


def unpack(packed: Record) -> dict[str, Any]:
    found = json.loads(zlib.decompress(base64.b64decode(packed["tokens"])))
    assert isinstance(found, dict)
    return found


def test_figures_are_on_their_tokens(reader: Reader) -> None:
    record = with_figures(play([REPLY] * 2), seed=3)
    vocabulary = Vocabulary()
    packed = pack_episode(read_episode(record), reader, vocabulary)
    tokens = unpack(packed)
    assert [vocabulary.entries()[index][0] for index in tokens["pieces"]] == record["ids"]
    assert tokens["roles"] == "".join(map(str, record["roles"]))
    sampled = [token for token, role in enumerate(record["roles"]) if role]
    for name in set(FIGURES) - {"ratio", "to_reference"}:
        assert tokens["figures"][name] == [pytest.approx(record[name][t], rel=5e-4) for t in sampled], name
    differences = [record["old_logprobs"][t] - record["ref_logprobs"][t] for t in sampled]
    assert tokens["figures"]["to_reference"] == [pytest.approx(value, rel=5e-4) for value in differences]
    ratios = [pytest.approx(record["ratio"][t] - 1, rel=6e-4) for t in sampled]
    assert tokens["figures"]["ratio"] == ratios
    assert (packed["length"], packed["sampled"]) == (len(record["ids"]), len(sampled))
    assert packed["seed"] == str(2**62)


def test_the_ratio_to_the_reference_is_not_drowned_by_rounding(reader: Reader) -> None:
    record = with_figures(play([REPLY]))
    record["old_logprobs"] = [-10.81234] * len(record["ids"])
    record["ref_logprobs"] = [-10.81111] * len(record["ids"])
    tokens = unpack(pack_episode(read_episode(record), reader, Vocabulary()))
    assert set(tokens["figures"]["to_reference"]) == {-0.00123}


def test_a_difference_beyond_all_numbers_is_missing(reader: Reader) -> None:
    record = with_figures(play([REPLY]))
    record["old_logprobs"] = [1e308] * len(record["ids"])
    record["ref_logprobs"] = [-1e308] * len(record["ids"])
    episode = read_episode(record)
    assert set(episode.figures["to_reference"]) == {None}
    assert "to_reference" not in ranges([episode])


def test_colours_range_over_sampled_tokens_alone() -> None:
    record = with_figures(play([REPLY] * 2), seed=3)
    expected = ranges([read_episode(record)])
    assert {*FIGURES} <= expected.keys()
    for name in {*FIGURES} & record.keys():
        pairs = zip(record[name], record["roles"], strict=True)
        record[name] = [value if role else 1000.0 for value, role in pairs]
    assert ranges([read_episode(record)]) == expected


def test_missing_figures_are_null(reader: Reader) -> None:
    record = with_figures(play([REPLY]))
    first = record["roles"].index(3)
    record["signal"][first : first + 4] = [None, NAN, float("inf"), -0.0]
    record["entropy"] = None
    del record["values"]
    packed = pack_episode(read_episode(record), reader, Vocabulary())
    tokens = unpack(packed)
    assert tokens["figures"]["signal"][:4] == [None, None, None, 0]
    assert {"entropy", "values"}.isdisjoint(tokens["figures"])
    assert all(np.isfinite(bounds).all() for bounds in ranges([read_episode(record)]).values())


@pytest.mark.parametrize("name", ["weights", "roles", "turns"])
def test_a_list_of_another_length_is_left_out(name: str, reader: Reader) -> None:
    record = with_figures(play([REPLY]))
    record[name] = record[name][1:]
    episode = read_episode(record)
    assert f"{name} has {len(record['ids']) - 1} entries" in episode.notes[0]
    tokens = unpack(pack_episode(episode, reader, Vocabulary()))
    assert "weights" not in tokens["figures"] or name != "weights"
    if name == "roles":
        assert set(tokens["roles"]) == {"?"}
        assert len(tokens["figures"]["weights"]) == len(record["ids"])


@pytest.mark.parametrize("ids", [None, "x", [1, -1], [1.5], [True], [2**40]])
def test_a_record_without_ids_is_refused(ids: Any) -> None:
    with pytest.raises(ValueError, match="no list of token ids"):
        read_episode({"ids": ids})


def test_a_record_of_ids_alone_can_be_shown(reader: Reader) -> None:
    packed = pack_episode(read_episode({"ids": [5, 6, 7]}), reader, Vocabulary())
    assert (packed["success"], packed["return"], packed["trained"]) == (None, 0.0, False)
    assert unpack(packed)["messages"] == [["reply", 0, 3]]


def test_turns_never_fall(reader: Reader) -> None:
    record = plain(play([REPLY] * 2))
    record["turns"] = [1 - turn for turn in record["turns"]]
    assert read_episode(record).turns == [1] * len(record["ids"])


def episode(group: int, trained: bool) -> Episode:
    record = {"ids": [1], "start": {"group": group}} | ({"weights": [0.0]} if trained else {})
    return read_episode(record)


def test_a_limit_keeps_whole_groups_trained_ones_first() -> None:
    episodes = [episode(group, group == 2) for group in range(3) for _ in range(4)]
    assert choose(episodes, 12) == episodes
    assert [e.group for e in choose(episodes, 9)] == [0] * 4 + [2] * 4
    assert [e.group for e in choose(episodes, 7)] == [2] * 4
    assert [e.group for e in choose(episodes, 3)] == [2] * 3


def test_100_long_trajectories_take_less_than_5_mb(reader: Reader) -> None:
    # Replies of a hundred words over five turns, and every figure drawn anew: nothing for zlib to find.
    rng = np.random.default_rng(0)
    words = [
        "the",
        "goal",
        "is",
        "two",
        "cells",
        "down",
        "and",
        "left",
        "of",
        "a",
        "hole",
        "I",
        "see",
        "frozen",
    ]
    packed, vocabulary, tokens = [], Vocabulary(), 0
    for number in range(100):
        replies = [
            f"<think> {' '.join(rng.choice(words, 100))}</think><answer> Up</answer>" for _ in range(5)
        ]
        record = with_figures(play(replies, group=number), seed=number)
        tokens += len(record["ids"])
        packed.append(read_episode(record))
    data = {
        "run": run_facts("r", Config()),
        "steps": [pack_step(1, packed, 100, reader, vocabulary)],
        "pieces": vocabulary.entries(),
        "notes": [],
    }
    size = len(render_page(data).encode())
    assert tokens > 40_000
    assert size < 5e6
    print(f"{tokens} tokens, {size / 1e6:.2f} MB")
