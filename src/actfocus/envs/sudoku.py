"""Sudoku on a 4 x 4 grid: every row, column and 2 x 2 block holds 1, 2, 3 and 4 once."""

import re
from collections.abc import Iterator
from functools import cache
from typing import ClassVar, NamedTuple

import numpy as np

from actfocus.envs.protocol import TextEnv

DIGITS = (1, 2, 3, 4)
EMPTY = 0
CELLS = range(16)
"""The cells of the grid, row by row; cell 0 is written 1,1."""

RIGHT_REWARD = 1.0
LEGAL_REWARD = 0.5
INVALID_REWARD = -0.1
SOLVED_REWARD = 10.0

ROWS = tuple(tuple(range(first, first + 4)) for first in (0, 4, 8, 12))
COLUMNS = tuple(tuple(range(first, 16, 4)) for first in range(4))
BLOCKS = tuple((first, first + 1, first + 4, first + 5) for first in (0, 2, 8, 10))
UNITS = {
    **{f"row {number}": unit for number, unit in enumerate(ROWS, 1)},
    **{f"column {number}": unit for number, unit in enumerate(COLUMNS, 1)},
    **{
        f"the {place} block": unit
        for place, unit in zip(("top left", "top right", "bottom left", "bottom right"), BLOCKS, strict=True)
    },
}
"""Name → cells, for all that must hold each digit once."""

PEERS = tuple(
    frozenset(peer for unit in UNITS.values() if cell in unit for peer in unit) - {cell} for cell in CELLS
)
"""For each cell, the others that share a row, column or block with it."""

_NOTATIONS = (
    re.compile(r"(?P<row>[1-4])\s*,\s*(?P<column>[1-4])\s*,\s*(?P<digit>[1-4])"),
    re.compile(
        r"place\s+(?P<digit>[1-4])\s+at\s+row\s+(?P<row>[1-4])\s+col(umn)?\s+(?P<column>[1-4])",
        re.IGNORECASE,
    ),
)


class Placement(NamedTuple):
    """Write `digit` into `cell`."""

    cell: int
    digit: int


def _completions(grid: list[int]) -> Iterator[tuple[int, ...]]:
    """All ways to fill the empty cells of `grid` without a clash."""
    if EMPTY not in grid:
        yield tuple(grid)
        return
    cell = grid.index(EMPTY)
    for digit in DIGITS:
        if all(grid[peer] != digit for peer in PEERS[cell]):
            yield from _completions([*grid[:cell], digit, *grid[cell + 1 :]])


@cache
def full_grids() -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """All 288 full grids, one a row: few enough to see at once how many of them fit a puzzle."""
    return np.array(list(_completions([EMPTY] * 16)))


def legal_digits(grid: list[int], given: frozenset[int], cell: int) -> list[int]:
    """The digits that may be written into `cell`, in the sense of `Sudoku`; none if it is given."""
    if cell in given:
        return []
    rivals = PEERS[cell] if grid[cell] == EMPTY else PEERS[cell] & given
    taken = {grid[rival] for rival in rivals} | {grid[cell]}
    return [digit for digit in DIGITS if digit not in taken]


class Sudoku(TextEnv):
    """Sudoku with one solution, a digit an action.

    Given cells are never changed. The player's own digits may be written over, so that a wrong one can be
    mended. Legal is, in an empty cell, a digit that none of its peers holds; in a cell of the player, a new
    digit that no *given* peer holds: if the player's own digits counted too, two that stand in each other's
    cell would bar each other for good.

    Rewards: the first digit in a cell earns 1 if it is right, else 0.5, and later ones in the same cell
    nothing; an illegal digit costs 0.1 and changes nothing; solving earns 10 and ends the game.
    """

    rules: ClassVar[str] = (
        "Fill the 4 by 4 grid so that every row, column and 2 by 2 block holds 1, 2, 3 and 4 once."
        " A dot is an empty cell, a star marks a given digit, which stays; you may write over your own."
        " Rows and columns count from 1 at the top left."
        " Action: row,column,digit such as 2,3,1, or: place 1 at row 2 col 3."
        " The first digit in a cell pays 1 if right and 0.5 if only legal; an illegal one costs 0.1;"
        " solving pays 10."
    )

    def __init__(
        self,
        *,
        clues: int = 10,
        turns: int = 8,
        actions_per_turn: int = 2,
        actions_per_episode: int = 16,
        render_mode: str | None = None,
    ) -> None:
        """`clues` given digits, 4 to 15; the budgets (see `TextEnv`) must cover the other cells.

        Raises:
            ValueError: too few or too many clues, or a budget with which no puzzle could be solved.
        """
        super().__init__(
            turns=turns,
            actions_per_turn=actions_per_turn,
            actions_per_episode=actions_per_episode,
            render_mode=render_mode,
        )
        # No puzzle with 3 clues has a single solution, and with 16 nothing is left to do.
        if not 4 <= clues <= 15:
            raise ValueError(f"clues must be from 4 to 15, got {clues}")
        budget = min(actions_per_episode, turns * actions_per_turn)
        if budget < 16 - clues:
            raise ValueError(
                f"a budget of {budget} actions cannot fill {16 - clues} empty cells:"
                " raise turns, actions_per_turn or actions_per_episode, or give more clues"
            )
        self.clues = clues

    def new_level(self, rng: np.random.Generator) -> None:
        """Draw a full grid and the cells to keep, until no other full grid fits what is kept."""
        grids = full_grids()
        while True:
            solution = grids[rng.integers(len(grids))]
            kept = rng.permutation(16)[: self.clues]
            if (grids[:, kept] == solution[kept]).all(axis=1).sum() == 1:
                break
        self.solution: list[int] = solution.tolist()
        self.given = frozenset(kept.tolist())
        self.grid = [self.solution[cell] if cell in self.given else EMPTY for cell in CELLS]
        self._paid: set[int] = set()

    def legal_digits(self, cell: int) -> list[int]:
        """The digits that may be written into `cell` now; none if it is given."""
        return legal_digits(self.grid, self.given, cell)

    def picture(self) -> str:
        """The grid, one row a line, then the legal digits of each empty cell."""
        rows = [" ".join(self._symbol(cell) for cell in row) for row in ROWS]
        legal = [
            f"{_name(cell)}: {' '.join(map(str, self.legal_digits(cell))) or 'none'}"
            for cell in CELLS
            if self.grid[cell] == EMPTY
        ]
        return "\n".join([*rows, f"Legal digits: {'; '.join(legal) or 'no empty cell'}."])

    def read_action(self, text: str) -> Placement | None:
        """The placement that `text` names in either notation, None if a number is not from 1 to 4."""
        for notation in _NOTATIONS:
            if match := notation.fullmatch(text.strip()):
                row, column, digit = (int(match[name]) for name in ("row", "column", "digit"))
                return Placement(4 * (row - 1) + column - 1, digit)
        return None

    def play(self, action: Placement) -> tuple[float, bool]:
        """Write a digit if it is legal; the game is over once every cell is right."""
        cell, digit = action
        if digit not in self.legal_digits(cell):
            return INVALID_REWARD, False
        self.grid[cell] = digit
        reward = 0.0
        # Paid once per cell: else a cell written over again and again would be worth more than solving.
        if cell not in self._paid:
            self._paid.add(cell)
            reward = RIGHT_REWARD if digit == self.solution[cell] else LEGAL_REWARD
        self.success = self.grid == self.solution
        return reward + SOLVED_REWARD * self.success, self.success

    def expert_actions(self) -> list[str]:
        """The right digit for each cell that lacks it: first wrong cells, then the most constrained ones.

        In this order each digit is legal when its turn comes: a right digit never clashes with a given one,
        and once no wrong digit is left it clashes with none.
        """
        grid = list(self.grid)
        missing = [cell for cell in CELLS if grid[cell] != self.solution[cell]]
        actions = []
        while missing:
            cell = min(
                missing,
                key=lambda cell: (grid[cell] == EMPTY, len(legal_digits(grid, self.given, cell))),
            )
            missing.remove(cell)
            grid[cell] = self.solution[cell]
            actions.append(f"{_name(cell)},{grid[cell]}")
        return actions

    def random_action(self, rng: np.random.Generator) -> str:
        """One of the legal placements, those over a digit of one's own included; some exist until solved."""
        legal = [f"{_name(cell)},{digit}" for cell in CELLS for digit in self.legal_digits(cell)]
        return legal[rng.integers(len(legal))]

    def remarks(self, rng: np.random.Generator) -> list[str]:
        """Ten true sentences: what a cell can be, what a row, column or block needs.

        Whether a placed digit is right stands in the solution alone, so nothing is said of it.
        """
        empty = [cell for cell in CELLS if self.grid[cell] == EMPTY]
        choices = [(f"Empty cells: {len(empty)}.", f"The number of empty cells is {len(empty)}.")]
        for cell in CELLS:
            if self.grid[cell] == EMPTY:
                choices.append(_candidate_wordings(_name(cell), self.legal_digits(cell)))
        for name, unit in UNITS.items():
            subject = name[0].upper() + name[1:]
            held = {self.grid[cell] for cell in unit}
            lacking = [digit for digit in DIGITS if digit not in held]
            digits = " and ".join(map(str, lacking))
            choices.append(
                (f"{subject} needs {digits}.", f"{subject} lacks {digits}.")
                if lacking
                else (f"{subject} has all digits.", f"No digit is missing in {name}.")
            )
            for digit in lacking:
                homes = [cell for cell in unit if cell in empty and digit in self.legal_digits(cell)]
                if len(homes) == 1:
                    home = _name(homes[0])
                    choices.append(
                        (
                            f"In {name} the only empty cell for {digit} is {home}.",
                            f"In {name} only empty cell {home} can be {digit}.",
                        )
                    )
        return [choices[index][rng.integers(2)] for index in rng.permutation(len(choices))[:10]]

    def _symbol(self, cell: int) -> str:
        if self.grid[cell] == EMPTY:
            return "."
        return f"{self.grid[cell]}*" if cell in self.given else str(self.grid[cell])


def _name(cell: int) -> str:
    return f"{cell // 4 + 1},{cell % 4 + 1}"


def _candidate_wordings(name: str, digits: list[int]) -> tuple[str, str]:
    if not digits:
        return f"Cell {name} has no legal digit.", f"No digit is legal in cell {name}."
    if len(digits) == 1:
        return f"Cell {name} can only be {digits[0]}.", f"Only {digits[0]} is legal in cell {name}."
    either, all_of = (word.join(map(str, digits)) for word in (" or ", " and "))
    return f"Cell {name} can be {either}.", f"In cell {name} {all_of} are legal."
