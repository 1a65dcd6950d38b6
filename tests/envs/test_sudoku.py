"""What Sudoku promises.

1. Every puzzle has one solution, the asked number of clues, and a budget that covers the empty cells.
2. A puzzle depends on its seed alone, in every process.
3. Rewards follow the rules, each cell pays once, a wrong digit can be mended, and the expert is shortest.
4. The picture tells all. Play, puzzles and remarks (their tests are a file of their own) are checked against
   a second implementation below, which reads nothing but the picture.
"""

import re
from collections import Counter

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.envs import make_env
from actfocus.envs.sudoku import Placement, Sudoku, full_grids
from tests.envs.processes import printed_in_every_process

CLUES = [4, 6, 9, 10, 15]

SOLUTION = ["1234", "3412", "2341", "4123"]
# (1,1) and (1,2) each take 1 or 2 at first; (3,1) and (4,2) tell which.
PUZZLE = ["..34", "3412", ".341", "4.23"]


class Board:
    """The second implementation: (row, column) → digit, counted from 1, 0 for an empty cell."""

    def __init__(self, picture):
        *rows, legal = picture.split("\n")
        words = {(r, c): word for r, row in enumerate(rows, 1) for c, word in enumerate(row.split(" "), 1)}
        assert sorted(words) == [(r, c) for r in range(1, 5) for c in range(1, 5)]
        assert all(re.fullmatch(r"\.|[1-4]\*?", word) for word in words.values())
        self.givens = {cell for cell, word in words.items() if word.endswith("*")}
        self.digits = {cell: 0 if word == "." else int(word[0]) for cell, word in words.items()}
        self.empty = [cell for cell, digit in self.digits.items() if digit == 0]
        self.legal_line = legal

    def unit(self, name):
        if name.endswith("block"):
            rows = (1, 2) if "top" in name else (3, 4)
            columns = (1, 2) if "left" in name else (3, 4)
            return [(r, c) for r in rows for c in columns]
        kind, number = name.split(" ")
        return [cell for cell in self.digits if cell[kind.lower() == "column"] == int(number)]

    def legal(self, cell):
        """The digits that may be written into `cell` now."""
        if cell in self.givens:
            return []
        counted = self.digits if self.digits[cell] == 0 else self.givens
        rivals = [other for other in counted if other != cell and share_a_unit(cell, other)]
        taken = {self.digits[other] for other in rivals} | {self.digits[cell]}
        return sorted({1, 2, 3, 4} - taken)

    def solutions(self):
        """All ways to complete the given digits."""
        return list(complete({cell: self.digits[cell] for cell in self.givens}))


def share_a_unit(one, other):
    same_block = all((a - 1) // 2 == (b - 1) // 2 for a, b in zip(one, other, strict=True))
    return one[0] == other[0] or one[1] == other[1] or same_block


def complete(digits):
    todo = [(r, c) for r in range(1, 5) for c in range(1, 5) if (r, c) not in digits]
    if not todo:
        yield digits
        return
    cell = todo[0]
    for digit in {1, 2, 3, 4} - {held for other, held in digits.items() if share_a_unit(cell, other)}:
        yield from complete({**digits, cell: digit})


def set_level(env, puzzle, solution):
    env.reset(seed=0)
    env.solution = [int(digit) for digit in "".join(solution)]
    env.grid = [0 if digit == "." else int(digit) for digit in "".join(puzzle)]
    env.given = frozenset(cell for cell, digit in enumerate(env.grid) if digit)


def hand_made():
    env = Sudoku()
    set_level(env, PUZZLE, SOLUTION)
    return env


def reply(*actions):
    return f"<think>so</think><answer>{' || '.join(actions)}</answer>"


def levels(count, **settings_):
    env = Sudoku(**settings_)
    for seed in range(count):
        env.reset(seed=seed)
        yield env


# 1. Puzzles. -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clues", CLUES)
def test_every_puzzle_has_one_solution_and_the_asked_clues(clues):
    for env in levels(120, clues=clues):
        board = Board(env.picture())
        assert len(board.givens) == clues
        assert len(board.empty) == 16 - clues
        (solution,) = board.solutions()
        assert list(solution[cell] for cell in sorted(solution)) == env.solution


def test_all_full_grids_are_known_once():
    grids = {tuple(digits[cell] for cell in sorted(digits)) for digits in complete({})}
    assert len(full_grids()) == len(grids) == 288
    assert {tuple(grid) for grid in full_grids().tolist()} == grids


def test_puzzles_vary():
    puzzles = [(tuple(env.solution), env.given) for env in levels(400)]
    assert len(set(puzzles)) == 400
    assert len({solution for solution, _ in puzzles}) > 180
    kept = Counter(cell for _, givens in puzzles for cell in givens)
    assert all(0.5 < kept[cell] / 400 < 0.75 for cell in range(16))


@pytest.mark.parametrize("clues", [-1, 0, 3, 16, 17])
def test_impossible_clues_are_refused(clues):
    with pytest.raises(ValueError, match=f"clues must be from 4 to 15, got {clues}"):
        Sudoku(clues=clues)


@pytest.mark.parametrize(
    "budget", [{"actions_per_episode": 5}, {"turns": 2}, {"turns": 5, "actions_per_turn": 1}]
)
def test_a_budget_below_the_empty_cells_is_refused(budget):
    with pytest.raises(ValueError, match=r"a budget of [45] actions cannot fill 6 empty cells"):
        Sudoku(clues=10, **budget)
    Sudoku(clues=12, **budget)


# 2. Seeds. ---------------------------------------------------------------------------------------------


def test_puzzle_depends_on_its_seed_alone():
    pictures = [env.picture() for env in levels(30)]
    np.random.seed(1)
    fresh = Sudoku(turns=30, actions_per_episode=60)
    for seed in reversed(range(30)):
        first, _ = fresh.reset(seed=seed, options={"chance_seed": 7})
        assert pictures[seed] in first
    assert fresh.reset()[0] != first  # Without a seed the stream goes on.


def test_puzzles_are_the_same_in_every_process():
    script = (
        "from actfocus.envs import make_env; env = make_env('sudoku')\n"
        "for seed in range(30): print(env.reset(seed=seed)[0]); print(env.expert_actions())"
    )
    output = printed_in_every_process(script)
    for env in levels(30):
        assert f"{env.picture()}\n" in output


# 3. Play. ----------------------------------------------------------------------------------------------


def test_gymnasium_accepts_it(recwarn):
    check_env(gymnasium.make("actfocus/Sudoku-v0").unwrapped)
    assert not [str(warning.message) for warning in recwarn]


def test_rewards_of_a_straight_solution_by_hand():
    env = hand_made()
    _, reward, terminated, *_ = env.step(reply("1,1,1", "place 2 at row 1 col 2"))
    assert (reward, terminated) == (2.0, False)
    observation, reward, terminated, truncated, info = env.step(reply("3,1,2", "4,2,1"))
    assert (reward, terminated, truncated, info["success"]) == (12.0, True, False, True)
    assert "Reward of the last turn: 12." in observation
    assert env.picture().split("\n")[0] == "1 2 3* 4*"
    assert env.picture().endswith("Legal digits: no empty cell.")


def test_two_digits_in_each_others_cell_can_be_mended_by_hand():
    env = hand_made()
    _, reward, *_ = env.step(reply("1,1,2", "1,2,1"))  # Both legal, both wrong.
    assert reward == 1.0
    assert env.picture().split("\n")[0] == "2 1 3* 4*"
    assert env.picture().split("\n")[4] == "Legal digits: 3,1: none; 4,2: none."
    _, reward, *_ = env.step(reply("1,1,1", "1,2,2"))  # These cells have paid.
    assert reward == 0.0
    _, reward, terminated, *_, info = env.step(reply("3,1,2", "4,2,1"))
    assert (reward, terminated, info["success"]) == (12.0, True, True)


@pytest.mark.parametrize(
    ("why", "action"),
    [
        ("given", "1,3,4"),
        ("given, same digit", "1,3,3"),
        ("row", "1,1,3"),
        ("column", "1,2,3"),
        ("block", "1,1,4"),
        ("own digit again", "1,2,1"),
        ("own digit, given peer", "1,2,4"),
        ("empty cell, own peer", "1,1,1"),
    ],
)
def test_an_invalid_action_costs_a_tenth_and_changes_nothing(why, action):
    env = hand_made()
    env.step(reply("1,2,1"))
    before = env.picture()
    observation, reward, terminated, *_, info = env.step(reply(action))
    assert reward == pytest.approx(-0.1)
    assert env.picture() == before
    assert (terminated, info["problem"], info["played"]) == (False, None, [action])
    assert "Actions left: 14." in observation


def test_an_unknown_action_costs_the_penalty_and_spends_no_action():
    env = hand_made()
    observation, reward, *_, info = env.step(reply("1,5,1", "1,1,1"))
    assert reward == pytest.approx(1 - 0.1)
    assert info["problem"] == "unknown action '1,5,1'"
    assert "Actions left: 15." in observation


@pytest.mark.parametrize(
    ("text", "cell", "digit"),
    [
        ("1,1,1", 0, 1),
        ("1,2,3", 1, 3),
        (" 4 , 2,\t1 ", 13, 1),
        ("place 3 at row 2 col 4", 7, 3),
        ("PLACE  3 At Row 2 Col 4", 7, 3),
        ("Place 3 at row 2 column 4", 7, 3),
    ],
)
def test_both_notations_are_read(text, cell, digit):
    assert Sudoku().read_action(text) == Placement(cell, digit)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "1,1",
            "1,1,1,1",
            "0,1,1",
            "1,5,1",
            "1,1,0",
            "1,1,5",
            "1,1,11",
            "111",
            "1 1 1",
            "1,1,x",
            "-1,1,1",
        ),
        *("place 5 at row 1 col 1", "place 1 at row 0 col 1", "place 1 at row 1", "put 1 at row 1 col 1"),
    ],
)
def test_other_text_is_no_action(text):
    assert Sudoku().read_action(text) is None


PLACEMENTS = st.builds(Placement, st.integers(0, 15), st.integers(1, 4))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**40), st.sampled_from(CLUES), st.lists(PLACEMENTS, max_size=60))
def test_any_play_follows_the_rules_pays_each_cell_once_and_can_be_mended(seed, clues, placements):
    env = Sudoku(clues=clues)
    env.reset(seed=seed)
    (solution,) = Board(env.picture()).solutions()
    paid, earned = set(), 0.0
    for placement in placements:
        before = Board(env.picture())
        cell, digit = (placement.cell // 4 + 1, placement.cell % 4 + 1), placement.digit
        reward, over = env.play(placement)
        after = Board(env.picture())
        expected = before.digits
        if digit not in before.legal(cell):
            assert reward == -0.1
        else:
            expected = {**expected, cell: digit}
            due = 0 if cell in paid else 1 if digit == solution[cell] else 0.5
            assert reward == due + 10 * over
            paid.add(cell)
            earned += reward
        assert (after.digits, after.givens) == (expected, before.givens)
        assert over == env.success == (after.digits == solution)
        if over:
            break
    assert earned <= 16 - clues + 10
    board = Board(env.picture())
    plan = env.expert_actions()
    assert len(plan) == sum(board.digits[cell] != solution[cell] for cell in solution)
    results = [env.play(env.read_action(action)) for action in plan]
    assert all(reward >= 0 for reward, _ in results)
    assert [over for _, over in results] == [False] * (len(plan) - 1) + [True] * bool(plan)


def test_writing_one_cell_over_again_earns_nothing():
    env = hand_made()
    rewards = [env.play(Placement(0, digit))[0] for digit in (2, 1, 2, 1, 2, 1)]
    assert rewards == [0.5, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("clues", CLUES)
def test_expert_replies_solve_every_puzzle_with_all_rewards(clues):
    for env in levels(40, clues=clues):
        plan, total, terminated = env.expert_actions(), 0.0, False
        for first in range(0, len(plan), 2):
            assert not terminated
            _, reward, terminated, truncated, info = env.step(reply(*plan[first : first + 2]))
            total += reward
        assert (terminated, truncated, info["success"]) == (True, False, True)
        assert total == 16 - clues + 10


def test_the_expert_fills_the_most_constrained_cell_first():
    for env in levels(40, clues=6):
        for action in env.expert_actions():
            board = Board(env.picture())
            cell = tuple(map(int, action.split(",")[:2]))
            assert len(board.legal(cell)) == min(len(board.legal(empty)) for empty in board.empty)
            env.play(env.read_action(action))


def test_a_wrong_full_grid_goes_on_until_the_budget_is_spent():
    env = Sudoku(clues=10)
    set_level(env, PUZZLE, SOLUTION)
    env.step(reply("1,1,2", "1,2,1"))
    for turn in range(2, 9):
        _, _, terminated, truncated, info = env.step(reply("1,1,2", "1,1,2"))
        assert (terminated, truncated, info["success"]) == (False, turn == 8, False)


def test_random_actions_are_the_legal_ones_uniformly():
    env, rng = hand_made(), np.random.default_rng(0)
    env.play(Placement(0, 2))
    board = Board(env.picture())
    legal = [f"{r},{c},{digit}" for r, c in board.digits for digit in board.legal((r, c))]
    counts = Counter(env.random_action(rng) for _ in range(400 * len(legal)))
    assert sorted(counts) == sorted(legal)
    assert 330 < min(counts.values()) <= max(counts.values()) < 470
    assert "1,1,1" in legal  # One's own digit may be written over.


# 4. Pictures. ------------------------------------------------------------------------------------------


def test_picture_by_hand():
    assert hand_made().picture() == (
        ". . 3* 4*\n3* 4* 1* 2*\n. 3* 4* 1*\n4* . 2* 3*\nLegal digits: 1,1: 1 2; 1,2: 1 2; 3,1: 2; 4,2: 1."
    )


def test_legal_digits_of_the_picture_are_right():
    rng = np.random.default_rng(0)
    for env in levels(60, clues=6):
        for _ in range(8):
            board = Board(env.picture())
            shown = re.findall(r"(\d),(\d): ([\d ]+|none)", board.legal_line)
            assert [(int(r), int(c)) for r, c, _ in shown] == board.empty
            for r, c, digits in shown:
                expected = " ".join(map(str, board.legal((int(r), int(c))))) or "none"
                assert digits == expected
            env.play(env.read_action(env.random_action(rng)))


def test_rules_are_short():
    assert len(Sudoku.rules.split()) <= 90
    assert Sudoku.rules in make_env("sudoku").system_prompt
