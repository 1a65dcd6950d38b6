"""FrozenLake, judged by what its pictures show: the tests read the grid and never the game's own state."""

import re
from collections import Counter

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from actfocus.envs import make_env
from actfocus.envs.frozen_lake import FrozenLake
from tests.envs.processes import printed_in_every_process

SEEDS = range(400)
STEPS = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
Cell = tuple[int, int]


def lake(seed: int = 0, *, chance_seed: int | None = None, **settings: float) -> FrozenLake:
    env = make_env("frozen-lake", **settings)
    assert isinstance(env, FrozenLake)
    env.reset(seed=seed, options={"chance_seed": chance_seed})
    return env


def reply(*actions: str) -> str:
    return f"<think>go</think><answer>{' || '.join(actions)}</answer>"


def grid(env: FrozenLake) -> dict[Cell, str]:
    rows = env.picture().splitlines()[:4]
    cells = {(r, c): symbol for r, row in enumerate(rows) for c, symbol in enumerate(row.split(" "))}
    assert len(cells) == 16
    return cells


def find(env: FrozenLake, symbols: str) -> Cell:
    (cell,) = [cell for cell, symbol in grid(env).items() if symbol in symbols]
    return cell


def ahead(cell: Cell, way: str) -> Cell:
    """The next cell; the same at the edge."""
    row, column = cell[0] + STEPS[way][0], cell[1] + STEPS[way][1]
    return (row, column) if 0 <= row < 4 and 0 <= column < 4 else cell


def distance(env: FrozenLake) -> int:
    """Moves to the goal, by spreading from the player one ring at a time."""
    cells, reached = grid(env), {find(env, "P")}
    for moves in range(17):
        if find(env, "G") in reached:
            return moves
        reached |= {ahead(cell, way) for cell in reached for way in STEPS if cells[ahead(cell, way)] != "O"}
    raise AssertionError("the goal cannot be reached")


def test_gymnasium_accepts_it() -> None:
    check_env(gymnasium.make("actfocus/FrozenLake-v0").unwrapped)


def test_it_plays_through_gymnasium_make() -> None:
    env = gymnasium.make("actfocus/FrozenLake-v0", success_rate=1.0)
    env.reset(seed=0)
    assert env.step("")[1] == -0.1


# Levels. -----------------------------------------------------------------------------------------------


def test_levels_are_valid_and_as_measured() -> None:
    distances, holes = [], []
    for seed in SEEDS:
        env = lake(seed)
        symbols = Counter(grid(env).values())
        assert set(symbols) <= set("P_OG")
        assert symbols["P"] == symbols["G"] == 1
        distances.append(distance(env))
        holes.append(symbols["O"])
    assert min(distances) >= 1 and max(distances) <= 10
    assert np.mean(distances) == pytest.approx(2.7, abs=0.2)
    # 14 cells besides start and goal, a tenth of them holes; a little fewer, as the goal must be reachable.
    assert np.mean(holes) == pytest.approx(1.4, abs=0.2)


def test_levels_differ() -> None:
    assert len({lake(seed).picture() for seed in SEEDS}) > 0.9 * len(SEEDS)


def test_a_level_depends_on_its_seed_alone() -> None:
    used = lake(seed=99)
    used.step(reply("Left"))
    for seed in range(50):
        used.reset(seed=seed)
        pictures = {
            used.picture(),
            lake(seed, success_rate=1.0).picture(),
            lake(seed, chance_seed=5).picture(),
        }
        assert len(pictures) == 1


def test_the_levels_of_evaluation_stay_what_they_are() -> None:
    """Figures of other versions would not compare with ours if these changed."""
    assert lake(seed=0).picture() == (
        "_ G _ _\n_ O _ _\n_ O _ _\n_ P _ _\nPlayer (3,1), goal (0,1), holes (1,1) (2,1)."
    )


def test_same_levels_and_slips_in_every_process() -> None:
    script = (
        "import numpy as np\n"
        "from actfocus.envs import make_env\n"
        "env = make_env('frozen-lake')\n"
        "for seed in range(20):\n"
        "    print(env.reset(seed=seed), env.expert_actions(), env.remarks(np.random.default_rng(seed)))\n"
        "    print(env.step('<think></think><answer>Left || Up</answer>'))\n"
    )
    assert printed_in_every_process(script).count("Turn 2 of 5") > 10


# Moves. ------------------------------------------------------------------------------------------------


def test_without_slips_each_move_goes_where_it_says() -> None:
    for seed in range(100):
        env = lake(seed, success_rate=1.0, turns=50, actions_per_episode=100)
        rng = np.random.default_rng(seed)
        for _ in range(20):
            cells, player = grid(env), find(env, "P")
            way = env.random_action(rng)
            target = ahead(player, way.lower())
            _, reward, terminated, _, info = env.step(reply(way.swapcase()))
            assert find(env, "PX√") == target
            assert reward == (1.0 if cells[target] == "G" else 0.0)
            assert terminated == (cells[target] in "GO")
            assert info["success"] == (cells[target] == "G")
            assert grid(env)[target] == {"G": "√", "O": "X"}.get(cells[target], "P")
            if terminated:
                break


def test_the_edge_costs_an_action() -> None:
    env = lake(seed=0, success_rate=1.0)
    before = env.picture()
    assert env.step(reply("Down"))[1] == 0.0
    assert env.picture() == before
    assert env.actions_left == 9


@pytest.mark.parametrize("success_rate", [0.8, 0.5, 1.0])
def test_slips_are_as_frequent_as_the_setting_says(success_rate: float) -> None:
    trials = 4000
    # A level that starts away from the edge, so that a move and its slips end in three different cells.
    env = next(
        env for seed in SEEDS if (env := lake(seed, success_rate=success_rate)).player in (5, 6, 9, 10)
    )
    start = env.player
    landed: Counter[int] = Counter()
    for _ in range(trials):
        env.play(2)  # Right.
        landed[env.player - start] += 1
        env.player = start
    slip = (1 - success_rate) / 2
    for change, share in {1: success_rate, 4: slip, -4: slip}.items():
        bound = 5 * (trials * share * (1 - share)) ** 0.5  # Five standard deviations.
        assert abs(landed.pop(change, 0) - trials * share) <= bound
    assert not landed


def test_a_group_shares_the_level_but_not_the_slips() -> None:
    def path(chance_seed: int) -> list[str]:
        env = lake(seed=3, chance_seed=chance_seed)
        pictures = [env.picture()]
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(reply("Left", "Right"))
            pictures.append(env.picture())
            over = terminated or truncated
        return pictures

    paths = [path(chance_seed) for chance_seed in range(16)]
    assert len({pictures[0] for pictures in paths}) == 1
    assert len({"\n".join(pictures) for pictures in paths}) > 4
    assert paths[0] == path(0)


@pytest.mark.parametrize("success_rate", [0.0, -0.1, 1.1])
def test_an_impossible_success_rate_is_refused(success_rate: float) -> None:
    with pytest.raises(ValueError, match="success_rate"):
        FrozenLake(success_rate=success_rate)


# The expert. -------------------------------------------------------------------------------------------


def test_the_expert_takes_a_shortest_path_from_wherever_it_stands() -> None:
    for seed in range(150):
        env = lake(seed, success_rate=1.0)
        assert len(env.expert_actions()) == distance(env)
        moved = False
        while plan := env.expert_actions():
            env.step(reply(*plan[:2]))
            moved = True
        assert moved and env.success


def test_no_plan_from_a_hole() -> None:
    for seed in range(200):
        env = lake(seed, success_rate=1.0)
        player = find(env, "P")
        for way in STEPS:
            if grid(env)[ahead(player, way)] == "O":
                env.step(reply(way))
                assert env.expert_actions() == []
                assert "X" in grid(env).values()
                return
    raise AssertionError("no level starts beside a hole")


# Words. ------------------------------------------------------------------------------------------------


def test_the_rules_are_true_of_the_setting() -> None:
    slippery, certain = (
        FrozenLake(success_rate=0.75).system_prompt,
        FrozenLake(success_rate=1.0).system_prompt,
    )
    assert "slippery" in slippery and "0.75" in slippery
    assert not re.search("slip|probab|side", certain)
    assert len(FrozenLake().rules.split()) <= 90


CELL = r"\((\d),(\d)\)"
OFFSET = r"(?:(\d) (down|up))?(?: and )?(?:(\d) (left|right))?"
CONTENTS = {"frozen": "_", "a hole": "O", "the goal": "G"}


def is_true(env: FrozenLake, remark: str) -> bool:
    """Whether `remark` holds in the picture; a remark of no known form is not true."""
    cells, player, goal = grid(env), find(env, "PX√"), find(env, "G√")
    holes = list(cells.values()).count("O")
    if found := re.fullmatch(rf"(?:I am at|The player is at|My cell is) {CELL}\.", remark):
        return player == (int(found[1]), int(found[2]))
    if found := re.fullmatch(rf"(?:The goal is at|The goal lies at|I want to reach) {CELL}\.", remark):
        return goal == (int(found[1]), int(found[2]))
    if found := re.fullmatch(rf"(?:There is a hole at {CELL}|The cell {CELL} is a hole)\.", remark):
        row, column = (int(number) for number in found.groups() if number)
        return cells[row, column] == "O"
    if found := re.fullmatch(rf"(?:The goal is|From here the goal is|The goal lies) {OFFSET}\.", remark):
        down = int(found[1] or 0) * (1 if found[2] == "down" else -1)
        right = int(found[3] or 0) * (1 if found[4] == "right" else -1)
        return any(found.groups()) and goal == (player[0] + down, player[1] + right)
    if found := re.fullmatch(r"(?:The lake has|I see) (no|\d) (holes?)\.", remark):
        return found[1] == (str(holes) if holes else "no") and (found[2] == "hole") == (holes == 1)
    if found := re.fullmatch(r"(?:I have|There (?:are|is)) (no|\d+) actions? left\.", remark):
        return env.actions_left == int(found[1])
    if found := re.fullmatch(r"(?:One step )?(left|down|right|up) is (.+)\.", remark, re.IGNORECASE):
        neighbour = ahead(player, found[1].lower())
        return found[2] == "the edge" if neighbour == player else cells[neighbour] == CONTENTS[found[2]]
    return False


def test_remarks_are_true_short_and_few() -> None:
    rng = np.random.default_rng(0)
    words: set[str] = set()
    shapes: set[str] = set()
    for seed in range(250):
        env = lake(seed, actions_per_episode=5)
        over = False
        while not over:
            remarks = env.remarks(rng)
            assert 6 <= len(remarks) == len(set(remarks)) <= 12
            for remark in remarks:
                assert is_true(env, remark), (remark, env.picture())
                assert len(remark.split()) <= 14
                words.update(re.findall("[a-z]+", remark.lower()))
                shapes.add(re.sub(r"\d", "0", remark))
            _, _, terminated, truncated, _ = env.step(reply(env.random_action(rng)))
            over = terminated or truncated
    assert len(words) < 60
    for way in ("Left", "Down", "Right", "Up"):
        for content in ("the edge", "frozen", "a hole", "the goal"):
            assert {f"{way} is {content}.", f"One step {way.lower()} is {content}."} <= shapes
    assert {"The lake has no holes.", "I see 0 hole.", "I see 0 holes.", "There is 0 action left."} <= shapes


def test_remarks_tell_all_that_a_plan_needs() -> None:
    for seed in range(30):
        text = " ".join(lake(seed).remarks(np.random.default_rng(seed))).lower()
        for way in STEPS:
            assert re.search(rf"{way} is (the edge|frozen|a hole|the goal)\.", text)
        assert re.search(r"\d (up|down|left|right)\b", text)


def test_remarks_come_in_random_order_and_wording() -> None:
    env = lake(seed=0)
    firsts = Counter(env.remarks(np.random.default_rng(seed))[0] for seed in range(100))
    assert len(firsts) > 10


def test_remarks_hold_when_the_game_is_over() -> None:
    env = lake(seed=1, success_rate=1.0, turns=10)
    env.step(reply(*env.expert_actions()[:2]))
    env.step(reply(*env.expert_actions()[:2]))
    assert env.success
    assert re.search(r"goal (is|lies) here\.", " ".join(env.remarks(np.random.default_rng(0))))
