"""FrozenLake: walk over a 4x4 lake to the goal and around the holes; Gymnasium supplies the dynamics."""

from collections import deque
from functools import lru_cache

import numpy as np
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.envs.toy_text.utils import categorical_sample

from actfocus.envs.protocol import TextEnv

SIZE = 4
FROZEN_PROBABILITY = 0.9
ACTIONS = ("Left", "Down", "Right", "Up")
"""In the order of Gymnasium's action numbers."""

STEPS = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""What each action adds to (row, column)."""

_Outcomes = dict[int, dict[int, list[tuple[float, int, float, bool]]]]

_INTENDED = 1
"""Gymnasium lists the outcomes of a move as slip, intended move, slip."""


class FrozenLake(TextEnv):
    """Reward 1 at the goal; a hole ends the episode. Cells are numbered row by row, as in Gymnasium."""

    def __init__(
        self,
        *,
        turns: int = 5,
        actions_per_turn: int = 2,
        actions_per_episode: int = 10,
        success_rate: float = 0.8,
        render_mode: str | None = None,
    ) -> None:
        """A move goes astray, to one of the two sides, with probability 1 - `success_rate`."""
        super().__init__(
            turns=turns,
            actions_per_turn=actions_per_turn,
            actions_per_episode=actions_per_episode,
            render_mode=render_mode,
        )
        if not 0 < success_rate <= 1:
            raise ValueError(f"success_rate must be above 0 and at most 1, got {success_rate}")
        self.success_rate = success_rate
        self.rules = (
            f"Cross a frozen lake of {SIZE} by {SIZE} cells to reach the goal."
            " Symbols: P you, _ frozen, O hole, G goal, X you in a hole, √ you on the goal."
            " Coordinates are (row,column), counted from (0,0) at the top left."
            f" Actions: {', '.join(ACTIONS)}. Each moves you one cell; the edge stops you."
        )
        if success_rate < 1:
            self.rules += (
                f" The ice is slippery: a move goes the way you want with probability {success_rate:g},"
                " otherwise to one of its two sides."
            )
        self.rules += " The goal pays 1; a hole ends the game."

    def new_level(self, rng: np.random.Generator) -> None:
        """Draw holes, start and goal until the goal can be reached."""
        while True:
            cells = np.where(rng.random(SIZE * SIZE) < FROZEN_PROBABILITY, "F", "H")
            start, goal = rng.choice(SIZE * SIZE, size=2, replace=False)
            cells[start], cells[goal] = "S", "G"
            rows = tuple("".join(row) for row in cells.reshape(SIZE, SIZE))
            self._outcomes = _transitions(rows, self.success_rate)
            self.player, self.goal = int(start), int(goal)
            self.holes = tuple(int(cell) for cell in np.flatnonzero(cells == "H"))
            if self.expert_actions():
                return

    def picture(self) -> str:
        """The grid, then the coordinates of player, goal and holes."""
        symbols = ["_"] * (SIZE * SIZE)
        symbols[self.goal] = "G"
        for hole in self.holes:
            symbols[hole] = "O"
        symbols[self.player] = {"G": "√", "O": "X"}.get(symbols[self.player], "P")
        rows = [" ".join(symbols[first : first + SIZE]) for first in range(0, SIZE * SIZE, SIZE)]
        holes = " ".join(map(_coordinates, self.holes)) or "none"
        rows.append(f"Player {_coordinates(self.player)}, goal {_coordinates(self.goal)}, holes {holes}.")
        return "\n".join(rows)

    def read_action(self, text: str) -> int | None:
        """Gymnasium's number of the named direction."""
        return next((number for number, name in enumerate(ACTIONS) if name.lower() == text.lower()), None)

    def play(self, action: int) -> tuple[float, bool]:
        """Move, or slip."""
        outcomes = self._outcomes[self.player][action]
        drawn = categorical_sample([probability for probability, *_ in outcomes], self.chance)
        _, self.player, reward, over = outcomes[drawn]
        self.success = self.player == self.goal
        return float(reward), over

    def expert_actions(self) -> list[str]:
        """The shortest path by breadth-first search; with slips it holds until the first of them."""
        if self.player in self.holes:
            return []
        paths: dict[int, list[str]] = {self.player: []}
        queue = deque([self.player])
        while queue:
            cell = queue.popleft()
            if cell == self.goal:
                return paths[cell]
            for number, name in enumerate(ACTIONS):
                following = self._outcomes[cell][number][_INTENDED][1]
                if following not in paths and following not in self.holes:
                    paths[following] = [*paths[cell], name]
                    queue.append(following)
        return []

    def random_action(self, rng: np.random.Generator) -> str:
        """One of the four directions."""
        return ACTIONS[rng.integers(len(ACTIONS))]

    def remarks(self, rng: np.random.Generator) -> list[str]:
        """Where player, goal and holes are, what lies next to the player, how many actions are left."""
        here, goal, offset = _coordinates(self.player), _coordinates(self.goal), self._offset()
        holes = "1 hole" if len(self.holes) == 1 else f"{len(self.holes) or 'no'} holes"
        actions = "1 action" if self.actions_left == 1 else f"{self.actions_left or 'no'} actions"
        be = "is" if self.actions_left == 1 else "are"
        choices = [
            [f"I am at {here}.", f"The player is at {here}.", f"My cell is {here}."],
            [f"The goal is at {goal}.", f"The goal lies at {goal}.", f"I want to reach {goal}."],
            [
                f"The goal is {offset}.",
                f"From here the goal is {offset}.",
                f"The goal lies {offset}.",
            ],
            [f"The lake has {holes}.", f"I see {holes}."],
            [f"I have {actions} left.", f"There {be} {actions} left."],
        ]
        for hole in rng.permutation(self.holes)[:2]:
            where = _coordinates(int(hole))
            choices.append([f"There is a hole at {where}.", f"The cell {where} is a hole."])
        for direction, neighbour in zip(ACTIONS, self._neighbours(), strict=True):
            way = direction.lower()
            choices.append([f"{direction} is {neighbour}.", f"One step {way} is {neighbour}."])
        return [choices[i][rng.integers(len(choices[i]))] for i in rng.permutation(len(choices))]

    def _offset(self) -> str:
        """Where the goal lies from the player: "2 down and 1 left", or "here"."""
        (row, column), (goal_row, goal_column) = divmod(self.player, SIZE), divmod(self.goal, SIZE)
        down, right = goal_row - row, goal_column - column
        parts = []
        if down:
            parts.append(f"{abs(down)} {'down' if down > 0 else 'up'}")
        if right:
            parts.append(f"{abs(right)} {'right' if right > 0 else 'left'}")
        return " and ".join(parts) or "here"

    def _neighbours(self) -> list[str]:
        """What lies in the direction of each action."""
        found = []
        for down, right in STEPS:
            row, column = self.player // SIZE + down, self.player % SIZE + right
            cell = row * SIZE + column
            if not (0 <= row < SIZE and 0 <= column < SIZE):
                found.append("the edge")
            elif cell == self.goal:
                found.append("the goal")
            else:
                found.append("a hole" if cell in self.holes else "frozen")
        return found


@lru_cache(maxsize=256)
def _transitions(rows: tuple[str, ...], success_rate: float) -> _Outcomes:
    """Gymnasium's table: state → action → (probability, next state, reward, over) per outcome.

    Cached, because making it is the slowest part of a reset and the members of a group share the level.
    """
    table: _Outcomes = FrozenLakeEnv(desc=list(rows), success_rate=success_rate).P
    return table


def _coordinates(cell: int) -> str:
    row, column = divmod(cell, SIZE)
    return f"({row},{column})"
