"""Sokoban's remarks are true: parsed back and checked against `Board`, which sees only the picture."""

import re
from collections import Counter

import numpy as np
import pytest

from actfocus.envs.sokoban import Sokoban
from tests.envs.test_sokoban import MOVES, OPEN_ROOM, Board, levels

THING = "(player|box|target)"
CELL = r"\((\d),(\d)\)"
OFFSET = r"(0 away|\d (?:up|down|left|right)(?: and \d (?:left|right))?)"
CONTENT = "(a wall|free|the player|the box|the target)"
WAYS = "(up or down|left or right)"


def at(board, thing):
    return getattr(board, thing)


def is_cell(board, thing, row, column):
    return at(board, thing) == int(row) + int(column) * 1j


def is_offset(board, one, offset, other):
    found = at(board, other)
    if offset != "0 away":
        for part in offset.split(" and "):
            count, way = part.split(" ")
            assert int(count) > 0
            found += int(count) * MOVES[way.capitalize()]
    return found == at(board, one)


def is_distance(board, one, other, distance):
    gap = at(board, one) - at(board, other)
    return abs(gap.real) + abs(gap.imag) == int(distance)


def is_content(board, way, thing, content):
    names = {**dict.fromkeys("PS", "the player"), **dict.fromkeys("X√", "the box"), "O": "the target"}
    symbol = board.cells[at(board, thing) + MOVES[way.capitalize()]]
    return content == {**names, "#": "a wall", "_": "free"}[symbol]


def has_room(board, ways):
    return not any(board.box + MOVES[way.capitalize()] in board.walls for way in ways.split(" or "))


REMARKS = {
    rf"The {THING} is at {CELL}\.": is_cell,
    rf"Cell {CELL} holds the {THING}\.": lambda b, row, column, thing: is_cell(b, thing, row, column),
    rf"The {THING} is {OFFSET} from the {THING}\.": is_offset,
    rf"From the {THING} the {THING} is {OFFSET}\.": lambda b, x, y, offset: is_offset(b, y, offset, x),
    rf"The {THING} and the {THING} are (\d) apart\.": is_distance,
    rf"The distance from {THING} to {THING} is (\d)\.": is_distance,
    rf"(Up|Down|Left|Right) from the {THING} is {CONTENT}\.": is_content,
    rf"One step (up|down|left|right) from the {THING} is {CONTENT}\.": is_content,
    rf"There is room to push the box {WAYS}\.": has_room,
    rf"There is no room to push the box {WAYS}\.": lambda b, ways: not has_room(b, ways),
    rf"No wall stops a push {WAYS}\.": has_room,
    rf"A wall stops each push {WAYS}\.": lambda b, ways: not has_room(b, ways),
}


def is_true(remark, board):
    (found,) = [
        (match, check) for form, check in REMARKS.items() if (match := re.fullmatch(form, remark)) is not None
    ]
    match, check = found
    return check(board, *match.groups())


def test_remarks_are_true_and_short_and_use_every_wording():
    rng, seen = np.random.default_rng(1), Counter()
    for env in levels(150):
        for _ in range(4):
            board, remarks = Board(env.picture()), env.remarks(rng)
            assert 6 <= len(set(remarks)) == len(remarks) <= 12
            for remark in remarks:
                assert is_true(remark, board), (remark, env.picture())
                assert len(remark.split()) <= 14
                seen.update(form for form in REMARKS if re.fullmatch(form, remark))
            if env.play(env.random_action(rng))[1]:
                break
    assert set(seen) == set(REMARKS)
    assert min(seen.values()) > 20


@pytest.mark.parametrize(
    "remark",
    [
        "The box is at (2,1).",
        "Cell (1,1) holds the target.",
        "The box is 1 down and 1 left from the player.",
        "From the player the box is 1 down.",
        "The target is 0 away from the player.",
        "The target and the box are 3 apart.",
        "The distance from player to box is 1.",
        "Up from the player is free.",
        "One step right from the player is the box.",
        "There is no room to push the box up or down.",
        "A wall stops each push left or right.",
    ],
)
def test_the_check_of_remarks_finds_what_is_false(remark):
    assert not is_true(remark, Board(OPEN_ROOM))


def test_remarks_come_in_random_order_and_wording_from_their_own_stream():
    env = Sokoban()
    env.reset(seed=4)
    assert env.remarks(np.random.default_rng(3)) == env.remarks(np.random.default_rng(3))
    assert env.remarks(np.random.default_rng(3)) != env.remarks(np.random.default_rng(4))
