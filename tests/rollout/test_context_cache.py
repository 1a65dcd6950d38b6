"""The cache of ragged contexts, promises: whatever blocks, pauses, selections and closed gaps have made of
it, each row's hidden state is that of its own tokens read in one piece."""

import copy

import numpy as np
import pytest
import torch

from actfocus.rollout.context_cache import ContextCache


@pytest.fixture(params=[("tiny", 1e-5), ("lively", 1e-4)], ids=["tiny", "lively"])
def model(request):
    """The lively model reads its context more keenly, and adds rounding up more."""
    name, tolerance = request.param
    model = copy.copy(request.getfixturevalue(name))
    model.close = {"rtol": 0, "atol": tolerance}
    return model


def alone(model, ids):
    """The hidden state behind `ids`, without any cache."""
    return model.hidden(torch.tensor([ids]))[0, -1]


class Rows:
    """A cache, and what its rows hold in plain lists."""

    def __init__(self, model, rows):
        self.model, self.cache = model, ContextCache.empty(model, rows)
        self.ids = [[] for _ in range(rows)]

    def append(self, blocks):
        hidden_BD = self.cache.append(blocks)
        for row, block in enumerate(blocks):
            self.ids[row] = self.ids[row] + list(block)
            if block:
                torch.testing.assert_close(
                    hidden_BD[row], alone(self.model, self.ids[row]), **self.model.close
                )

    def select(self, rows):
        self.cache = self.cache.taken(rows)
        self.ids = [self.ids[row] for row in rows]

    def split_off(self, rows):
        ids = self.ids
        moved = Rows(self.model, 0)
        moved.cache, moved.ids = self.cache.split_off(rows), [ids[row] for row in rows]
        self.ids = [each for row, each in enumerate(ids) if row not in rows]
        return moved

    def close_gaps(self):
        self.cache = ContextCache.joined([(self.cache, range(len(self.ids)))])

    def width(self):
        return self.cache._mask_BT.shape[1]


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def test_ragged_blocks_and_pauses(model):
    rows = Rows(model, 3)
    rows.append([[5, 6, 7, 8], [9], [10, 11]])
    rows.append([[12], [], [13]])
    rows.append([[], [14], [15]])
    rows.append([[16, 17], [18, 19, 20], []])
    rows.append([[21], [22], [23]])


def test_closing_gaps_changes_no_hidden_state(model):
    rows = Rows(model, 3)
    rows.append([[5, 6, 7, 8], [9], [10, 11]])
    for token in range(20, 26):
        rows.append([[token], [], [token] if token % 2 else []])
    before = rows.width()
    rows.close_gaps()
    assert rows.width() == max(map(len, rows.ids)) == before
    rows.append([[], [30, 31], [32]])
    rows.select([1, 2])
    rows.close_gaps()
    assert rows.width() == max(map(len, rows.ids)) < before
    assert rows.cache._mask_BT.sum(1).tolist() == [len(ids) for ids in rows.ids]
    rows.append([[33], [34, 35]])
    rows.close_gaps()
    rows.append([[36], [37]])


def test_selecting_keeps_drops_repeats_and_reorders(model):
    rows = Rows(model, 3)
    rows.append([[5, 6, 7], [8], [9, 10]])
    rows.select([2, 0, 2, 1])
    rows.append([[11], [12, 13], [14], []])
    rows.select([3])
    rows.append([[15]])
    assert rows.ids == [[8, 15]]


def test_parts_grow_on_their_own_and_join_again(model):
    rows = Rows(model, 5)
    rows.append([[5, 6, 7], [8], [9, 10], [11, 12, 13, 14], [15]])
    parts = [rows.split_off([3, 0]), rows.split_off([1]), rows]  # the second of rows 1, 2, 4 is row 2
    assert rows.ids == [[8], [15]]
    for part, blocks in zip(parts, ([[[20], [21]]] * 3, [], [[[22], []], [[], [23, 24]]]), strict=True):
        for block in blocks:
            part.append(block)
    ids = [row for part in parts for row in part.ids]
    rows = Rows(model, 0)
    rows.cache = ContextCache.joined([(part.cache, range(len(part.ids))) for part in parts])
    rows.ids = ids
    assert rows.width() == max(map(len, rows.ids)) == 7
    assert rows.cache._mask_BT.sum(1).tolist() == [len(ids) for ids in rows.ids]
    rows.append([[40], [], [41, 42], [43], [44]])
    rows.append([[45], [46], [47], [48], [49]])


def test_a_long_history_of_everything(model):
    rng = np.random.default_rng(0)
    rows = Rows(model, 2)
    rows.append([rng.integers(0, 300, 9).tolist(), rng.integers(0, 300, 4).tolist()])
    for _ in range(25):
        move = rng.integers(0, 4)
        if move == 0:
            rows.close_gaps()
        elif move == 1:
            rows.select(rng.integers(0, len(rows.ids), rng.integers(1, 5)).tolist())
        else:
            blocks = [rng.integers(0, 300, rng.integers(0, 4)).tolist() for _ in rows.ids]
            if any(blocks):
                rows.append(blocks)
