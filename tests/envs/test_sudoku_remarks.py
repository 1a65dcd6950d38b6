"""Sudoku's remarks are true: parsed back and checked against `Board`, which sees only the picture."""

import re
from collections import Counter

import numpy as np
import pytest

from tests.envs.test_sudoku import Board, hand_made, levels

CELL = r"(\d,\d)"
UNIT = r"([Rr]ow \d|[Cc]olumn \d|[Tt]he (?:top|bottom) (?:left|right) block)"
OR, AND = r"(\d(?: or \d)+)", r"(\d(?: and \d)+)"
SEVERAL = r"(\d(?: and \d)*)"


def cell_of(text):
    row, column = text.split(",")
    return int(row), int(column)


def has_candidates(board, cell, digits):
    where = cell_of(cell)
    return board.digits[where] == 0 and board.legal(where) == [
        int(digit) for digit in re.findall(r"\d", digits)
    ]


def lacks(board, unit, digits):
    held = {board.digits[cell] for cell in board.unit(unit)}
    return sorted({1, 2, 3, 4} - held) == [int(digit) for digit in re.findall(r"\d", digits)]


def is_only_home(board, unit, digit, cell):
    empty = [where for where in board.unit(unit) if board.digits[where] == 0]
    return [where for where in empty if int(digit) in board.legal(where)] == [cell_of(cell)]


REMARKS = {
    r"Empty cells: (\d+)\.": lambda b, count: len(b.empty) == int(count),
    r"The number of empty cells is (\d+)\.": lambda b, count: len(b.empty) == int(count),
    rf"Cell {CELL} can be {OR}\.": has_candidates,
    rf"In cell {CELL} {AND} are legal\.": has_candidates,
    rf"Cell {CELL} can only be (\d)\.": has_candidates,
    rf"Only (\d) is legal in cell {CELL}\.": lambda b, digit, cell: has_candidates(b, cell, digit),
    rf"Cell {CELL} has no legal digit\.": lambda b, cell: has_candidates(b, cell, ""),
    rf"No digit is legal in cell {CELL}\.": lambda b, cell: has_candidates(b, cell, ""),
    rf"{UNIT} needs {SEVERAL}\.": lacks,
    rf"{UNIT} lacks {SEVERAL}\.": lacks,
    rf"{UNIT} has all digits\.": lambda b, unit: lacks(b, unit, ""),
    rf"No digit is missing in {UNIT}\.": lambda b, unit: lacks(b, unit, ""),
    rf"In {UNIT} the only empty cell for (\d) is {CELL}\.": is_only_home,
    rf"In {UNIT} only empty cell {CELL} can be (\d)\.": lambda b, u, cell, d: is_only_home(b, u, d, cell),
}


def is_true(remark, board):
    found = [(match, check) for form, check in REMARKS.items() if (match := re.fullmatch(form, remark))]
    ((match, check),) = found
    return check(board, *match.groups())


def test_remarks_are_true_and_short_and_use_every_wording():
    rng, seen = np.random.default_rng(1), Counter()
    for clues in (6, 10, 15):
        for env in levels(50, clues=clues):
            for _ in range(6):
                board, remarks = Board(env.picture()), env.remarks(rng)
                assert 6 <= len(set(remarks)) == len(remarks) <= 12
                for remark in remarks:
                    assert is_true(remark, board), (remark, env.picture())
                    assert len(remark.split()) <= 14
                    seen.update(form for form in REMARKS if re.fullmatch(form, remark))
                if env.play(env.read_action(env.random_action(rng)))[1]:
                    break
    assert set(seen) == set(REMARKS)
    assert min(seen.values()) > 5


@pytest.mark.parametrize(
    "remark",
    [
        "Empty cells: 5.",
        "Cell 1,1 can be 1 or 3.",
        "In cell 4,2 1 and 2 are legal.",
        "Cell 1,1 can only be 1.",
        "Only 1 is legal in cell 3,1.",
        "Cell 1,3 can only be 3.",
        "No digit is legal in cell 1,2.",
        "Row 1 needs 1.",
        "Column 2 lacks 3.",
        "The top left block has all digits.",
        "In row 1 only empty cell 1,1 can be 2.",
        "In column 1 the only empty cell for 2 is 1,1.",
    ],
)
def test_the_check_of_remarks_finds_what_is_false(remark):
    assert not is_true(remark, Board(hand_made().picture()))


def test_remarks_come_in_random_order_and_wording_from_their_own_stream():
    env = hand_made()
    assert env.remarks(np.random.default_rng(3)) == env.remarks(np.random.default_rng(3))
    assert env.remarks(np.random.default_rng(3)) != env.remarks(np.random.default_rng(4))
