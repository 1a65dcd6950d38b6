"""The check must pass good environments and catch broken ones; each one here breaks one promise."""

import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actfocus.envs import check, fuzz, make_env
from actfocus.envs.check import EnvironmentReport, check_environment
from actfocus.envs.frozen_lake import FrozenLake
from actfocus.envs.protocol import FORMAT_PENALTY, REPLY_TAGS, Reply, TextEnv, parse_reply
from actfocus.errors import ConfigError

SEEDS, FUZZ = 12, 1000


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child processes of the check must find this module too."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves starting Python twice where other processes are not the point."""

    def check_here(name: str, settings: dict[str, Any], seeds: int, problems: list[str]) -> dict[str, Any]:
        return {"digest": check.episodes_digest(partial(make_env, name, **settings), seeds)}

    monkeypatch.setattr(check, "_check_reproducible", check_here)


def problems_of(broken: type[TextEnv]) -> str:
    report = check_environment(f"{__name__}:{broken.__name__}", seeds=SEEDS, fuzz=FUZZ)
    assert not report.ok
    return "\n".join(report.problems)


# Good environments. ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frozen-lake", "sokoban", "sudoku", "webshop"])
def test_our_environments_keep_their_promises(name: str) -> None:
    stages: list[str] = []
    report = check_environment(name, seeds=SEEDS, fuzz=FUZZ, progress=stages.append)
    assert report.problems == () and report.ok
    assert len(stages) == 4
    assert (report.name, report.seeds, report.replies) == (name, SEEDS, FUZZ)
    assert report.expert_moves and report.expert_moves_most
    assert 1 <= report.expert_moves <= report.expert_moves_most <= 16
    if name != "frozen-lake":
        assert report.expert_success == 1.0
    assert 0.4 * FUZZ < report.penalties < 0.9 * FUZZ
    assert len(report.digest) == 64


@pytest.mark.usefixtures("one_process")
def test_frozen_lake_reports_the_expert_with_slips() -> None:
    report = check_environment("frozen-lake", seeds=200, fuzz=10)
    assert report.ok
    assert report.expert_success and 0.8 < report.expert_success < 1.0
    assert report.expert_return == report.expert_success


def test_the_digest_depends_on_the_seeds_and_repeats() -> None:
    lake = partial(make_env, "frozen-lake")
    assert check.episodes_digest(lake, 6) == check.episodes_digest(lake, 6)
    assert check.episodes_digest(lake, 6) != check.episodes_digest(lake, 7)


def test_settings_reach_the_game_in_every_process() -> None:
    settings = {"clues": 12, "turns": 4}
    report = check_environment("sudoku", settings=settings, seeds=6, fuzz=50)
    assert report.ok and report.expert_moves == 4  # the four empty cells
    assert report.digest == check.episodes_digest(partial(make_env, "sudoku", **settings), 6)


def test_a_game_of_ones_own_is_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The console script does not have it in `sys.path`, and neither have these tests."""
    (tmp_path / "my_lake.py").write_text("from actfocus.envs.frozen_lake import FrozenLake as Game")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    report = check_environment("my_lake:Game", seeds=2, fuzz=20)
    assert report.problems == ()
    assert report.digest == check.episodes_digest(partial(make_env, "frozen-lake"), 2)


def test_wrong_calls_raise() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        check_environment("frozen-lake", seeds=0)
    with pytest.raises(ConfigError, match="did you mean 'frozen-lake'"):
        check_environment("frozen-pond")
    with pytest.raises(ConfigError, match="no_such_module:Game"):
        check_environment("no_such_module:Game")


# Games without demonstrations. -------------------------------------------------------------------------


class Guess(TextEnv):
    """The README's game: what training needs, and nothing else."""

    rules = "Find a number from 1 to 9."

    def __init__(self) -> None:
        super().__init__(turns=4, actions_per_turn=1, actions_per_episode=4)

    def new_level(self, rng: np.random.Generator) -> None:
        self.number, self.heard = int(rng.integers(1, 10)), "Nothing is known."

    def picture(self) -> str:
        return self.heard

    def read_action(self, text: str) -> int | None:
        return int(text) if text.isdecimal() else None

    def play(self, guess: int) -> tuple[float, bool]:
        self.success = guess == self.number
        self.heard = f"{guess} is {'too low' if guess < self.number else 'too high'}."
        return float(self.success), self.success


class Chatty(Guess):
    def random_action(self, rng: np.random.Generator) -> str:
        return str(rng.integers(1, 10))

    def remarks(self, rng: np.random.Generator) -> list[str]:
        return [self.heard]


class Crashes(Guess):
    def play(self, guess: int) -> tuple[float, bool]:
        return 1 / (guess - 5), False


class KeepsTheNumber(Guess):
    number = 0

    def new_level(self, rng: np.random.Generator) -> None:
        self.heard = f"The last number was {self.number}."
        self.number = int(rng.integers(1, 10))


@pytest.mark.parametrize(
    ("game", "missing", "skipped"),
    [
        (Guess, "expert_actions, random_action, remarks", "solved and replies with legal actions"),
        (Chatty, "expert_actions", "whether every level can be solved"),
    ],
)
def test_a_game_without_demonstrations_is_told_so_once(game: type[Guess], missing: str, skipped: str) -> None:
    name = f"{__name__}:{game.__name__}"
    report = check_environment(name, seeds=SEEDS, fuzz=FUZZ)
    (problem,) = report.problems
    assert problem.startswith(f"{name} has no {missing}: it can be trained on")
    assert problem.endswith(skipped)
    assert (report.expert_moves, report.expert_success, report.replies) == (None, None, FUZZ)
    assert len(report.digest) == 64
    assert (report.penalties == FUZZ) == (game is Guess)  # no reply has a legal action


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("game", "found"), [(Crashes, "play raised ZeroDivisionError"), (KeepsTheNumber, "more than the seed")]
)
def test_what_can_be_checked_without_demonstrations_is(game: type[Guess], found: str) -> None:
    problems = problems_of(game)
    assert problems.count("has no expert_actions") == 1
    assert found in problems


# Broken environments. ----------------------------------------------------------------------------------

Step = tuple[str, float, bool, bool, dict[str, Any]]


class PaysThePenaltyTwice(FrozenLake):
    def step(self, response: str) -> Step:
        observation, reward, terminated, truncated, info = super().step(response)
        reward += FORMAT_PENALTY * (info["problem"] is not None)
        return observation, reward, terminated, truncated, info


class HashesStrings(FrozenLake):
    def new_level(self, rng: np.random.Generator) -> None:
        super().new_level(np.random.default_rng([int(rng.integers(100)), hash("lake") % 1000]))


class ShowsTheOrderOfASet(FrozenLake):
    def picture(self) -> str:
        return f"{super().picture()}\n{' '.join({'left', 'right', 'up', 'down'})}"


class RemembersTheLastLevel(FrozenLake):
    levels = 0

    def new_level(self, rng: np.random.Generator) -> None:
        self.levels += 1
        for _ in range(self.levels % 3):
            super().new_level(rng)
        super().new_level(rng)


class CannotBeSolved(FrozenLake):
    def expert_actions(self) -> list[str]:
        return super().expert_actions() and ["Up"]


class NeverEnds(FrozenLake):
    def step(self, response: str) -> Step:
        self.turn = 1
        return super().step(response)


class PlaysOneActionTooMany(FrozenLake):
    def step(self, response: str) -> Step:
        self.actions_per_turn += 1
        try:
            return super().step(response)
        finally:
            self.actions_per_turn -= 1


class FailsOnOtherScripts(FrozenLake):
    def read_action(self, text: str) -> int | None:
        text.encode("utf-8")
        return super().read_action(text)


class GoesOnAfterTheEnd(FrozenLake):
    def step(self, response: str) -> Step:
        self._over = False
        return super().step(response)


class PaysForTalk(FrozenLake):
    def step(self, response: str) -> Step:
        observation, reward, terminated, truncated, info = super().step(response)
        return observation, reward + 0.01 * (len(response) > 60), terminated, truncated, info


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (PaysThePenaltyTwice, "reward -0.2, not -0.1"),
        (RemembersTheLastLevel, "depends on more than the seed"),
        (CannotBeSolved, "the expert cannot solve"),
        (NeverEnds, "goes on after its 5 turns"),
        (PlaysOneActionTooMany, "played ["),
        (FailsOnOtherScripts, "raised UnicodeEncodeError"),
        (GoesOnAfterTheEnd, "does not raise ResetNeeded"),
        (PaysForTalk, "reward 0.01, not 0.0"),
    ],
)
@pytest.mark.usefixtures("one_process")
def test_broken_environments_are_caught(broken: type[FrozenLake], problem: str) -> None:
    assert problem in problems_of(broken)


@pytest.mark.parametrize("broken", [HashesStrings, ShowsTheOrderOfASet])
def test_what_differs_between_processes_is_caught(broken: type[FrozenLake]) -> None:
    assert problems_of(broken).startswith("the same seeds gave other episodes in another process")


def test_a_crash_in_another_process_is_reported() -> None:
    assert "AssertionError: an episode goes on" in problems_of(NeverEnds)


class TalksAndFallsOver(FrozenLake):
    def new_level(self, rng: np.random.Generator) -> None:
        print("drawing a level")
        raise OSError("no such level")


def test_a_crash_in_another_process_is_reported_whatever_it_printed_before() -> None:
    problems: list[str] = []
    with pytest.raises(RuntimeError, match="no such level"):
        check._check_reproducible(f"{__name__}:TalksAndFallsOver", {}, 1, problems)
    assert problems == []


@pytest.mark.usefixtures("one_process")
def test_a_parser_that_is_off_by_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(text: str) -> Reply:
        reply = parse_reply(text)
        start = reply.action and (reply.action[0] - 1, reply.action[1])
        return Reply(reply.reasoning, start, reply.actions, reply.error)

    monkeypatch.setattr(check, "parse_reply", shifted)
    report = check_environment("frozen-lake", seeds=3, fuzz=50)
    assert "spans" in report.problems[0]
    assert report.replies < 50


@pytest.mark.usefixtures("one_process")
def test_problems_do_not_carry_raw_terminal_commands() -> None:
    assert all(problems.isprintable() for problems in problems_of(FailsOnOtherScripts).split("\n"))


def test_ok_means_no_problems() -> None:
    assert EnvironmentReport("x", 1, ()).ok
    assert not EnvironmentReport("x", 1, ("broken",)).ok


# The fuzzer. -------------------------------------------------------------------------------------------


def test_the_fuzzer_reaches_every_kind_of_reply() -> None:
    source = random.Random(1)
    cases = [fuzz.random_case(source, lambda: "Left") for _ in range(4000)]
    assert all(
        case.text[slice(*case.action)].count("||") >= len(case.parts) - 1 for case in cases if case.action
    )
    assert any(len(case.text) > 100_000 for case in cases)
    kinds: list[Callable[[fuzz.Case], object]] = [
        lambda case: case.action is None,
        lambda case: case.action and not case.parts,
        lambda case: len(case.parts) > 4,
        lambda case: any(part.known for part in case.parts) and any(not part.known for part in case.parts),
        lambda case: case.text.strip() == "",
        lambda case: "\x1b" in case.text,
        lambda case: "\ud800" in case.text,
        lambda case: all(case.text.count(tag) == 1 for tag in REPLY_TAGS) and case.action is None,
        lambda case: any(case.text.count(tag) > 1 for tag in REPLY_TAGS),
    ]
    for kind in kinds:
        assert sum(bool(kind(case)) for case in cases) > 10
