"""What Sokoban promises.

1. Every level can be solved within the budget, none starts solved, and levels differ widely.
2. A level depends on its seed alone, in every process.
3. Moves and rewards follow the rules; the expert is optimal; a box on its target pays once.
4. The picture tells all. Moves, levels and remarks (their tests are a file of their own) are checked against
   a second implementation below, which reads nothing but the picture.
"""

import re
from collections import Counter, deque

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.envs import make_env
from actfocus.envs.sokoban import Sokoban, carve_room, shortest_solution, solution_lengths
from tests.envs.processes import printed_in_every_process

MOVES = {"Up": -1, "Down": 1, "Left": -1j, "Right": 1j}

OPEN_ROOM = """
# # # # # #
# P _ _ _ #
# _ X _ _ #
# _ _ O _ #
# _ _ # # #
# # # # # #
"""


class Board:
    """The second implementation: cells are row + column * 1j."""

    def __init__(self, picture):
        lines = [line.split(" ") for line in picture.strip().split("\n")[:6]]
        assert [len(line) for line in lines] == [6] * 6
        self.cells = {
            row + column * 1j: symbol for row, line in enumerate(lines) for column, symbol in enumerate(line)
        }
        self.walls = {cell for cell, symbol in self.cells.items() if symbol == "#"}
        self.player, self.box, self.target = (self._only(names) for names in ("PS", "X√", "OS√"))

    def _only(self, symbols):
        (cell,) = [cell for cell, symbol in self.cells.items() if symbol in symbols]
        return cell

    def after(self, player, box, name):
        step = MOVES[name]
        ahead, beyond = player + step, player + 2 * step
        if ahead in self.walls or (ahead == box and beyond in self.walls):
            return player, box
        return ahead, beyond if ahead == box else box

    def fewest_moves(self):
        """None if there is no solution."""
        depth = {(self.player, self.box): 0}
        queue = deque(depth)
        while queue:
            here = queue.popleft()
            if here[1] == self.target:
                return depth[here]
            for name in MOVES:
                there = self.after(*here, name)
                if there not in depth:
                    depth[there] = depth[here] + 1
                    queue.append(there)
        return None


def set_level(env, picture):
    env.reset(seed=0)
    board = Board(picture)
    cells = {
        kind: [(int(cell.real), int(cell.imag)) for cell, symbol in board.cells.items() if symbol in symbols]
        for kind, symbols in [("floor", "_PXOS√"), ("player", "PS"), ("box", "X√"), ("target", "OS√")]
    }
    env.floor = frozenset(cells["floor"])
    (env.player,), (env.box,), (env.target,) = cells["player"], cells["box"], cells["target"]
    assert env.picture() == picture.strip()


def reply(*actions):
    return f"<think>so</think><answer>{' || '.join(actions)}</answer>"


def levels(count=300, **settings_):
    env = Sokoban(**settings_)
    for seed in range(count):
        env.reset(seed=seed)
        yield env


# 1. Levels. --------------------------------------------------------------------------------------------


def test_levels_are_walled_unsolved_and_solvable_within_the_budget():
    lengths = []
    for env in levels():
        board = Board(env.picture())
        border = {cell for cell in board.cells if {cell.real, cell.imag} & {0, 5}}
        assert border <= board.walls
        assert board.box != board.target
        lengths.append(board.fewest_moves())
    assert all(1 <= length <= 10 for length in lengths)
    assert 3.7 < np.mean(lengths) < 4.6
    assert set(lengths) >= set(range(1, 9))


def test_levels_vary():
    boards = [Board(env.picture()) for env in levels()]
    assert len({tuple(board.cells.values()) for board in boards}) > 280
    assert len({frozenset(board.walls) for board in boards}) > 200
    interior_walls = Counter(len(board.walls) - 20 for board in boards)
    assert set(interior_walls) == set(range(3, 9))


def test_floor_is_connected():
    rng = np.random.default_rng(5)
    for _ in range(200):
        floor = carve_room(rng)
        reached, queue = set(), [min(floor)]
        while queue:
            row, column = cell = queue.pop()
            reached.add(cell)
            near = {(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)}
            queue += (near & floor) - reached
        assert reached == floor


def test_a_small_budget_draws_levels_that_fit_it():
    for budget in ({"actions_per_episode": 3}, {"turns": 3, "actions_per_turn": 1}):
        assert {Board(env.picture()).fewest_moves() for env in levels(100, **budget)} == {1, 2, 3}


def test_a_large_budget_leaves_the_levels_alone():
    large = [env.picture() for env in levels(50, turns=50, actions_per_turn=5, actions_per_episode=99)]
    assert large == [env.picture() for env in levels(50)]


def test_reverse_play_finds_exactly_the_solvable_positions():
    rng = np.random.default_rng(2)
    for _ in range(6):
        floor = carve_room(rng)
        target = sorted(floor)[rng.integers(len(floor))]
        forward = {}
        for positions in [(player, box) for player in floor for box in floor if player != box]:
            moves = shortest_solution(floor, positions, target)
            if moves or positions[1] == target:
                forward[positions] = len(moves)
        assert solution_lengths(floor, target) == forward


# 2. Seeds. ---------------------------------------------------------------------------------------------


def test_level_depends_on_its_seed_alone():
    pictures = [env.picture() for env in levels(30)]
    np.random.seed(1)
    fresh = Sokoban()
    for seed in reversed(range(30)):
        first, _ = fresh.reset(seed=seed, options={"chance_seed": 7})
        assert pictures[seed] in first
    assert fresh.reset()[0] != first  # Without a seed the stream goes on.


def test_levels_are_the_same_in_every_process():
    script = (
        "from actfocus.envs import make_env; env = make_env('sokoban')\n"
        "for seed in range(30): print(env.reset(seed=seed)[0]); print(env.expert_actions())"
    )
    output = printed_in_every_process(script)
    for env in levels(30):
        assert f"{env.picture()}\n" in output


# 3. Play. ----------------------------------------------------------------------------------------------


def test_gymnasium_accepts_it(recwarn):
    check_env(gymnasium.make("actfocus/Sokoban-v0").unwrapped)
    assert not [str(warning.message) for warning in recwarn]


def test_rewards_of_an_episode_by_hand():
    env = Sokoban()
    set_level(env, OPEN_ROOM)
    # A wall twice, a step, a push to the right, the walk around the corner, the push down.
    _, reward, terminated, truncated, info = env.step(reply("Up", "left"))
    assert (reward, terminated, truncated) == (pytest.approx(-0.2), False, False)
    assert env.picture() == OPEN_ROOM.strip()
    _, reward, *_ = env.step(reply("DOWN", "Right"))
    assert reward == pytest.approx(-0.2)
    assert (env.player, env.box) == ((2, 2), (2, 3))
    observation, reward, terminated, *_ = env.step(reply("Up", "Right"))
    assert reward == pytest.approx(-0.2)
    assert not terminated
    assert "Actions left: 4." in observation
    _, reward, terminated, truncated, info = env.step(reply("Down", "Down"))
    assert reward == pytest.approx(-0.1 + 1 + 10)
    assert (terminated, truncated, info["success"]) == (True, False, True)
    assert info["played"] == ["Down"]
    assert env.picture().split("\n")[2:4] == ["# _ _ P _ #", "# _ _ √ _ #"]


def test_unknown_action_costs_the_penalty_and_spends_no_action():
    env = Sokoban()
    set_level(env, OPEN_ROOM)
    observation, reward, *_, info = env.step(reply("Jump", "Right"))
    assert reward == pytest.approx(-0.1 - 0.1)
    assert info["played"] == ["Right"]
    assert "Actions left: 9." in observation


def test_a_box_leaving_the_target_takes_its_reward_back():
    env = Sokoban()
    set_level(
        env,
        """
# # # # # #
# _ _ _ _ #
# P √ _ _ #
# _ _ _ _ #
# _ _ _ _ #
# # # # # #
""",
    )
    reward, over = env.play("Right")
    assert reward == pytest.approx(-0.1 - 1)
    assert not over
    assert not env.success
    assert env.picture().split("\n")[2] == "# _ S X _ #"


def test_a_stuck_box_ends_by_budget():
    env = Sokoban()
    set_level(
        env,
        """
# # # # # #
# X _ _ _ #
# P _ O _ #
# _ _ _ _ #
# _ _ _ _ #
# # # # # #
""",
    )
    assert env.expert_actions() == []
    for turn in range(1, 6):
        _, reward, terminated, truncated, info = env.step(reply("Up", "Up"))
        assert reward == pytest.approx(-0.2)
        assert (terminated, truncated, info["success"]) == (False, turn == 5, False)
    assert env.picture().split("\n")[1:3] == ["# X _ _ _ #", "# P _ O _ #"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40), st.lists(st.sampled_from(list(MOVES)), max_size=20))
def test_play_follows_the_rules_and_the_expert_stays_optimal(seed, moves):
    env = Sokoban()
    env.reset(seed=seed)
    for name in moves:
        before = Board(env.picture())
        expected = before.after(before.player, before.box, name)
        reward, over = env.play(env.read_action(name))
        after = Board(env.picture())
        assert (after.player, after.box) == expected
        assert (after.walls, after.target) == (before.walls, before.target)
        assert over == env.success == (after.box == after.target)
        assert reward == pytest.approx(10.9 if over else -0.1)
        if over:
            break
    plan = env.expert_actions()
    assert len(plan) == (Board(env.picture()).fewest_moves() or 0)
    overs = [env.play(name)[1] for name in plan]
    assert overs == [False] * (len(plan) - 1) + [True] * bool(plan)


def test_expert_replies_solve_every_level_within_the_turns():
    for env in levels(100):
        plan, rewards, terminated = env.expert_actions(), [], False
        for first in range(0, len(plan), 2):
            assert not terminated
            _, reward, terminated, truncated, info = env.step(reply(*plan[first : first + 2]))
            rewards.append(reward)
        assert terminated
        assert not truncated
        assert info["success"]
        assert sum(rewards) == pytest.approx(11 - 0.1 * len(plan))


@pytest.mark.parametrize("text", ["Up", "up", "DOWN", "Left", "rIgHt"])
def test_actions_are_read_in_any_case(text):
    assert Sokoban().read_action(text) == text.capitalize()


@pytest.mark.parametrize("text", ["", "U", "Up Down", "north", "Up!", "1"])
def test_other_text_is_no_action(text):
    assert Sokoban().read_action(text) is None


def test_random_actions_are_uniform():
    env, rng = Sokoban(), np.random.default_rng(0)
    counts = Counter(env.random_action(rng) for _ in range(2000))
    assert set(counts) == set(MOVES)
    assert min(counts.values()) > 420


# 4. Pictures. ------------------------------------------------------------------------------------------


def test_coordinates_are_an_option():
    env = make_env("sokoban", coordinates=True)
    env.reset(seed=0)
    env.floor = frozenset((row, column) for row in range(1, 5) for column in range(1, 5))
    env.player, env.box, env.target = (1, 1), (2, 2), (3, 3)
    assert env.picture().split("\n")[6:] == ["Player (1,1), box (2,2), target (3,3)."]
    assert env.picture().split("\n")[:3] == ["# # # # # #", "# P _ _ _ #", "# _ X _ _ #"]
    assert not re.search(r"\(\d", make_env("sokoban").reset(seed=0)[0])


def test_rules_are_short_and_explain_every_symbol():
    assert len(Sokoban.rules.split()) <= 90
    for symbol in "#_PXO√S":
        assert re.search(rf"(^|\s){re.escape(symbol)} ", Sokoban.rules)
