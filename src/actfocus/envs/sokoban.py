"""Sokoban in a 6 x 6 room with one box: push it onto the target."""

from collections import deque
from typing import ClassVar

import numpy as np

from actfocus.envs.protocol import TextEnv

Cell = tuple[int, int]
"""(row, column), counted from 0 at the top left wall."""
Positions = tuple[Cell, Cell]
"""Where the player and the box are."""

SIZE = 6
"""Rows and columns of the room, its border of wall included."""
FLOOR_CELLS = (8, 13)
"""Fewest and most floor cells; the interior has 16, so that a few of them are walls."""
LONGEST_SOLUTION = 10
"""Moves that the hardest levels need; the average is about 4."""

MOVE_REWARD = -0.1
BOX_REWARD = 1.0
"""Paid when the box comes onto the target, taken back when it leaves it."""
SOLVED_REWARD = 10.0

STEPS: dict[str, Cell] = {"Up": (-1, 0), "Down": (1, 0), "Left": (0, -1), "Right": (0, 1)}
_ACTIONS = {name.lower(): name for name in STEPS}


def _ahead(cell: Cell, step: Cell) -> Cell:
    return cell[0] + step[0], cell[1] + step[1]


def _behind(cell: Cell, step: Cell) -> Cell:
    return cell[0] - step[0], cell[1] - step[1]


def move(floor: frozenset[Cell], positions: Positions, step: Cell) -> Positions:
    """The positions after one step of the player; unchanged if a wall is in the way."""
    player, box = positions
    player = _ahead(player, step)
    if player == box:
        box = _ahead(box, step)
    return (player, box) if player in floor and box in floor else positions


def shortest_solution(floor: frozenset[Cell], positions: Positions, target: Cell) -> list[str]:
    """A shortest list of moves that brings the box to the target, by breadth-first search.

    Empty if the box is there already, and if it cannot get there.
    """
    queue: deque[tuple[Positions, list[str]]] = deque([(positions, [])])
    seen = {positions}
    while queue:
        current, moves = queue.popleft()
        if current[1] == target:
            return moves
        for name, step in STEPS.items():
            following = move(floor, current, step)
            if following not in seen:
                seen.add(following)
                queue.append((following, [*moves, name]))
    return []


def solution_lengths(floor: frozenset[Cell], target: Cell) -> dict[Positions, int]:
    """Moves to the nearest solution, for every pair of positions that has one: reverse play.

    The game runs backwards from every solved position: the player steps back, and pulls the box along or
    leaves it. The search needs no limit: one box on at most 13 cells of floor has 13 * 12 = 156 pairs.
    """
    lengths = {(player, target): 0 for player in sorted(floor) if player != target}
    queue = deque(lengths)
    while queue:
        current = queue.popleft()
        player, box = current
        for step in STEPS.values():
            origin = _behind(player, step)
            earlier = [(origin, box)]
            if box == _ahead(player, step):
                earlier.append((origin, player))
            for positions in earlier:
                if origin in floor and origin != box and positions not in lengths:
                    lengths[positions] = lengths[current] + 1
                    queue.append(positions)
    return lengths


def carve_room(rng: np.random.Generator) -> frozenset[Cell]:
    """The floor of a random room: the trail of a random walk, hence connected."""
    fewest, most = FLOOR_CELLS
    size = rng.integers(fewest, most + 1)
    row, column = (int(index) for index in rng.integers(1, SIZE - 1, size=2))
    floor = {(row, column)}
    steps = list(STEPS.values())
    while len(floor) < size:
        row, column = _ahead((row, column), steps[rng.integers(len(steps))])
        row, column = (min(max(index, 1), SIZE - 2) for index in (row, column))
        floor.add((row, column))
    return frozenset(floor)


class Sokoban(TextEnv):
    """Sokoban with one box; each level is solvable within the budget and none starts solved.

    Rewards: -0.1 for each move, blocked ones included; +1 when the box comes onto the target and -1 when it
    leaves it; +10 when solved, which ends the game.
    """

    rules: ClassVar[str] = (
        "Push the box onto the target in a walled room: step against the box and it moves one cell, unless"
        " a wall is behind it. You cannot pull."
        " Symbols: # wall, _ floor, P player, X box, O target, √ box on target, S player on target."
        " Coordinates are (row,column), counted from (0,0) at the top left."
        " Actions: Up, Down, Left, Right. Each costs 0.1. The box on the target pays 1, and solving pays 10."
    )

    def __init__(
        self,
        *,
        turns: int = 5,
        actions_per_turn: int = 2,
        actions_per_episode: int = 10,
        coordinates: bool = False,
        render_mode: str | None = None,
    ) -> None:
        """Budgets as in `TextEnv`; `coordinates` adds a line with the cells of player, box and target.

        A budget of fewer than `LONGEST_SOLUTION` moves leaves out the levels that need more; other budgets
        do not change the levels.
        """
        super().__init__(
            turns=turns,
            actions_per_turn=actions_per_turn,
            actions_per_episode=actions_per_episode,
            render_mode=render_mode,
        )
        self.coordinates = coordinates

    def new_level(self, rng: np.random.Generator) -> None:
        """Draw room and target, then a start among all that reverse play finds within the budget."""
        longest = min(LONGEST_SOLUTION, self.actions_per_episode, self.turns * self.actions_per_turn)
        starts: list[Positions] = []
        while not starts:  # In a few rooms the box cannot be moved to the target drawn.
            self.floor = carve_room(rng)
            cells = sorted(self.floor)
            self.target = cells[rng.integers(len(cells))]
            lengths = solution_lengths(self.floor, self.target)
            starts = [positions for positions, length in lengths.items() if 1 <= length <= longest]
        self.player, self.box = starts[rng.integers(len(starts))]

    def picture(self) -> str:
        """The room, one row a line; the coordinates below it if they are on."""
        rows = [" ".join(self._symbol((row, column)) for column in range(SIZE)) for row in range(SIZE)]
        if self.coordinates:
            player, box, target = map(_coordinates, (self.player, self.box, self.target))
            rows.append(f"Player {player}, box {box}, target {target}.")
        return "\n".join(rows)

    def read_action(self, text: str) -> str | None:
        """The direction that `text` names, in any case."""
        return _ACTIONS.get(text.lower())

    def play(self, action: str) -> tuple[float, bool]:
        """Move one cell in a direction of `STEPS`; the game is over once the box is on the target."""
        was_on = self.box == self.target
        self.player, self.box = move(self.floor, (self.player, self.box), STEPS[action])
        is_on = self.box == self.target
        self.success = is_on
        return MOVE_REWARD + BOX_REWARD * (is_on - was_on) + SOLVED_REWARD * is_on, is_on

    def expert_actions(self) -> list[str]:
        """A shortest solution by breadth-first search."""
        return shortest_solution(self.floor, (self.player, self.box), self.target)

    def random_action(self, rng: np.random.Generator) -> str:
        """One of the four directions."""
        return list(STEPS)[rng.integers(len(STEPS))]

    def remarks(self, rng: np.random.Generator) -> list[str]:
        """Ten true sentences: cells, offsets, distances, neighbours, room to push.

        "Free" is floor that nothing stands on; distances count rows plus columns.
        """
        places = {"player": self.player, "box": self.box, "target": self.target}
        choices = [
            (f"The {thing} is at {_coordinates(cell)}.", f"Cell {_coordinates(cell)} holds the {thing}.")
            for thing, cell in places.items()
        ]
        for one, other in [("box", "player"), ("target", "box"), ("target", "player")]:
            offset, distance = _offset(places[other], places[one])
            choices += [
                (f"The {one} is {offset} from the {other}.", f"From the {other} the {one} is {offset}."),
                (
                    f"The {one} and the {other} are {distance} apart.",
                    f"The distance from {other} to {one} is {distance}.",
                ),
            ]
        for thing in ("player", "box"):
            for name, step in STEPS.items():
                content = self._content(_ahead(places[thing], step))
                choices.append(
                    (
                        f"{name} from the {thing} is {content}.",
                        f"One step {name.lower()} from the {thing} is {content}.",
                    )
                )
        for one_way, other_way in [("Up", "Down"), ("Left", "Right")]:
            ways = f"{one_way.lower()} or {other_way.lower()}"
            choices.append(
                (f"There is room to push the box {ways}.", f"No wall stops a push {ways}.")
                if all(_ahead(self.box, STEPS[way]) in self.floor for way in (one_way, other_way))
                else (f"There is no room to push the box {ways}.", f"A wall stops each push {ways}.")
            )
        order = rng.permutation(len(choices))[:10]
        return [choices[index][rng.integers(2)] for index in order]

    def _symbol(self, cell: Cell) -> str:
        if cell not in self.floor:
            return "#"
        on_target = cell == self.target
        if cell == self.player:
            return "S" if on_target else "P"
        if cell == self.box:
            return "√" if on_target else "X"
        return "O" if on_target else "_"

    def _content(self, cell: Cell) -> str:
        names = {"#": "a wall", "P": "the player", "S": "the player", "X": "the box", "√": "the box"}
        return {**names, "O": "the target", "_": "free"}[self._symbol(cell)]


def _coordinates(cell: Cell) -> str:
    return f"({cell[0]},{cell[1]})"


def _offset(origin: Cell, cell: Cell) -> tuple[str, int]:
    """Where `cell` lies as seen from `origin`, such as "2 down and 1 left", and how far."""
    down, right = cell[0] - origin[0], cell[1] - origin[1]
    parts = []
    if down:
        parts.append(f"{abs(down)} {'down' if down > 0 else 'up'}")
    if right:
        parts.append(f"{abs(right)} {'right' if right > 0 else 'left'}")
    return " and ".join(parts) or "0 away", abs(down) + abs(right)
