"""The logic of `actfocus check-env`: what an environment promises, tried on thousands of episodes.

`python -m actfocus.envs.check NAME SETTINGS SEEDS` prints the digest of SEEDS whole episodes; the check runs
it in processes of its own, because a dependence on the process cannot be seen from inside one.
"""

import hashlib
import json
import math
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from actfocus.envs import make_env
from actfocus.envs.fuzz import Case, random_case
from actfocus.envs.protocol import FORMAT_PENALTY, TextEnv, parse_reply

MAX_PROBLEMS = 5
"""Bad replies after which the fuzzing stops: the rest would tell nothing new."""

HASH_SEEDS = ("1", "2")

_SKIPPED_WITHOUT = {
    "expert_actions": "whether every level can be solved",
    "random_action": "replies with legal actions",
}
"""What a game supplies for demonstrations → the check that cannot do without it."""

_GUESSES = (*"0123456789", "up", "down", "left", "right", "yes", "no")
"""Played where the game cannot name a legal action; many games know one of them."""

Game = Callable[..., TextEnv]
"""Makes the environment that is checked; takes settings that differ from those of the check."""

Outcome = tuple[str, float, bool, bool, dict[str, Any]]
"""What `step` returns."""


@dataclass(frozen=True)
class EnvironmentReport:
    """What `check_environment` found; a figure keeps its default where the check was cut short."""

    name: str
    seeds: int
    """Levels tried."""
    problems: tuple[str, ...]
    expert_moves: float | None = None
    """Actions in the expert's plan at the start of a level, on average."""
    expert_moves_most: int | None = None
    """The longest of these plans."""
    expert_success: float | None = None
    """Share of the levels that the expert solves, planning anew each turn. Without chance it is the ceiling;
    with slips it is not, since a shortest path may lead past holes that a careful player would avoid."""
    expert_return: float | None = None
    """The expert's sum of rewards, on average."""
    digest: str = ""
    """Of every observation, reward, flag and info of one episode per seed."""
    replies: int = 0
    """Fuzzed replies played."""
    penalties: int = 0
    """How many of them had to cost the penalty."""

    @property
    def ok(self) -> bool:
        """Whether the environment keeps all its promises."""
        return not self.problems


def check_environment(
    name: str,
    *,
    settings: dict[str, Any] | None = None,
    seeds: int = 1000,
    fuzz: int = 100_000,
    progress: Callable[[str], None] = lambda stage: None,
) -> EnvironmentReport:
    """Try `name` on the levels of `seeds` seeds and with `fuzz` random replies.

    `name` is a name of `ENVIRONMENTS`, or `package.module:Class` for a `TextEnv` of one's own; in a game with
    chance, the setting `success_rate=1.0` must turn chance off. `settings` are those of the environment, in
    JSON's types. `progress` is told the stage that begins.
    What a game without demonstrations cannot be tried for is skipped and named in one problem.
    """
    if seeds < 1 or fuzz < 1:
        raise ValueError(f"seeds and fuzz must be at least 1, got {seeds} and {fuzz}")
    game: Game = partial(make_env, name, **(settings or {}))
    missing = _missing(game())  # A wrong name is the caller's mistake, not a finding.
    problems: list[str] = [_not_demonstrated(name, missing)] if missing else []
    figures: dict[str, Any] = {}
    stages: dict[str, Callable[[], dict[str, Any]]] = {
        "Gymnasium's own check": lambda: _check_gymnasium(game),
        f"{seeds} episodes, twice": lambda: _check_reproducible(name, settings or {}, seeds, problems),
        "the expert": lambda: _check_expert(game, seeds, problems),
        "the levels": lambda: _check_levels(game, seeds),
        f"{fuzz} random replies": lambda: _check_replies(game, seeds, fuzz, problems),
    }
    # The expert sees to the levels too, where there is one.
    del stages["the expert" if "expert_actions" in missing else "the levels"]
    for stage, check in stages.items():
        progress(stage)
        # Whatever an environment raises is what the check is there to report.
        try:
            figures |= check()
        except Exception as error:
            problems.append(f"{stage}: {type(error).__name__}: {error}")
    return EnvironmentReport(name=name, seeds=seeds, problems=tuple(problems), **figures)


def _missing(env: TextEnv) -> list[str]:
    """The methods for demonstrations that a game does not supply."""
    methods = ("expert_actions", "random_action", "remarks")
    return [method for method in methods if getattr(type(env), method) is getattr(TextEnv, method)]


def _not_demonstrated(name: str, missing: list[str]) -> str:
    skipped = " and ".join(_SKIPPED_WITHOUT[method] for method in missing if method in _SKIPPED_WITHOUT)
    return (
        f"{name} has no {', '.join(missing)}: it can be trained on, but `actfocus warmstart` cannot"
        f" demonstrate it; skipped for that reason: {skipped or 'nothing'}"
    )


def _check_gymnasium(game: Game) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(game())
    return {}


# The same episodes in every process. -------------------------------------------------------------------


def _check_reproducible(
    name: str, settings: dict[str, Any], seeds: int, problems: list[str]
) -> dict[str, Any]:
    """Play the same episodes in two processes that hash strings differently."""
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "actfocus.envs.check", name, json.dumps(settings), str(seeds)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for hash_seed in HASH_SEEDS
    ]
    digests = []
    for child, (output, errors) in [(child, child.communicate()) for child in children]:
        if child.returncode or not output:
            raise RuntimeError((errors.strip() or "a process died without a word").splitlines()[-1])
        digests.append(output.split()[-1])
    if len(set(digests)) == 1:
        return {"digest": digests[0]}
    problems.append(
        "the same seeds gave other episodes in another process (set order, hash(), global state?)"
    )
    return {}


def episodes_digest(game: Game, seeds: int) -> str:
    """SHA-256 over everything that one episode per seed shows, driven by expert, chance and a mixture."""
    env = game()
    digest = hashlib.sha256(env.system_prompt.encode())
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        # 0: always the expert; 1: never; 2: half of the turns.
        expert_share = (1.0, 0.0, 0.5)[seed % 3]
        digest.update(repr(env.reset(seed=seed)).encode())
        for turn in _turns(env, partial(_driver_reply, env, rng, expert_share)):
            digest.update(repr(turn).encode())
    return digest.hexdigest()


def _turns(env: TextEnv, choose_reply: Callable[[], str]) -> Iterator[tuple[str, Outcome]]:
    """Play to the end: each reply and what `step` answered."""
    for _ in range(env.turns):
        reply = choose_reply()
        outcome = env.step(reply)
        yield reply, outcome
        if outcome[2] or outcome[3]:
            return
    raise AssertionError(f"an episode goes on after its {env.turns} turns")


def _driver_reply(env: TextEnv, rng: np.random.Generator, expert_share: float) -> str:
    missing = _missing(env)
    by_expert = rng.random() < expert_share and "expert_actions" not in missing
    actions = env.expert_actions() if by_expert else []
    if not actions:
        actions = [_some_action(env, rng, missing) for _ in range(rng.integers(env.actions_per_turn + 2))]
    remarks = [] if "remarks" in missing else env.remarks(rng)
    return _reply(" ".join(remarks), actions[: env.actions_per_turn + 1])


def _some_action(env: TextEnv, rng: np.random.Generator, missing: list[str]) -> str:
    return str(rng.choice(_GUESSES)) if "random_action" in missing else env.random_action(rng)


def _reply(reasoning: str, actions: list[str]) -> str:
    return f"<think>{reasoning}</think><answer>{' || '.join(actions)}</answer>"


# Every level can be solved. ----------------------------------------------------------------------------


def _check_expert(game: Game, seeds: int, problems: list[str]) -> dict[str, Any]:
    """Let the expert play every level: as it is, and without chance, where it must always win."""
    env = game()
    certain = game(success_rate=1.0) if hasattr(env, "success_rate") else env
    moves, solved, returns, unsolved = [], 0, 0.0, []
    for seed in range(seeds):
        certain.reset(seed=seed)
        level = certain.picture()
        moves.append(len(certain.expert_actions()))
        if not _expert_plays(certain)[0]:
            unsolved.append(seed)
        for again in (certain, env):
            _require_level(again, seed, level)
        success, total = _expert_plays(env)
        solved += success
        returns += total
    if unsolved:
        problems.append(
            f"the expert cannot solve {len(unsolved)} levels within the budget, such as seed {unsolved[0]}"
        )
    return {
        "expert_moves": float(np.mean(moves)),
        "expert_moves_most": max(moves),
        "expert_success": solved / seeds,
        "expert_return": returns / seeds,
    }


def _require_level(env: TextEnv, seed: int, level: str) -> None:
    """Reset once more, with other luck and after an episode: neither may show in the level."""
    env.reset(seed=seed, options={"chance_seed": seed + 1})
    if env.picture() != level:
        raise AssertionError(f"the level of seed {seed} depends on more than the seed")


def _check_levels(game: Game, seeds: int) -> dict[str, Any]:
    """What can be said of the levels without an expert: each one is there again after an episode."""
    env = game()
    for seed in range(seeds):
        env.reset(seed=seed)
        level, rng = env.picture(), np.random.default_rng(seed)
        for _ in _turns(env, partial(_driver_reply, env, rng, 0.0)):
            pass
        _require_level(env, seed, level)
    return {}


def _expert_plays(env: TextEnv) -> tuple[bool, float]:
    """Success and sum of rewards of the expert, who plans anew each turn."""

    def choose_reply() -> str:
        return _reply("I follow the plan.", env.expert_actions()[: env.actions_per_turn])

    outcomes = [outcome for _, outcome in _turns(env, choose_reply)]
    return outcomes[-1][4]["success"], sum(reward for _, reward, *_ in outcomes)


# Any reply at all. -------------------------------------------------------------------------------------


def _check_replies(game: Game, seeds: int, fuzz: int, problems: list[str]) -> dict[str, Any]:
    """Play random replies of known meaning, and compare with a model of the budgets and the penalty."""
    env = game()
    source, rng = random.Random(0), np.random.default_rng(0)
    model = _Model(env, source)
    replies, penalties, found = 0, 0, 0
    while replies < fuzz and found < MAX_PROBLEMS:
        if model.over:
            model.start_episode(seed=source.randrange(seeds))
        case = _random_case(env, source, rng)
        complaint = model.check(case)
        replies += 1
        penalties += model.penalised
        if complaint:
            found += 1
            problems.append(f"reply {replies}, {case.text[:200]!a}: {complaint}")
            model.over = True
    return {"replies": replies, "penalties": penalties}


def _random_case(env: TextEnv, source: random.Random, rng: np.random.Generator) -> Case:
    if "random_action" not in _missing(env):
        return random_case(source, lambda: env.random_action(rng))
    # No game has an action that begins with this sign.
    case = random_case(source, lambda: "¿")
    return replace(case, parts=tuple(replace(part, known=False) for part in case.parts))


class _Model:
    """The protocol once more, from known meanings: what each reply must do to budgets, reward and flags."""

    def __init__(self, env: TextEnv, source: random.Random) -> None:
        self.env = env
        self.source = source
        self.over = True
        self.penalised = False
        self.played: list[tuple[float, bool]] = []
        self.several = env.actions_per_turn > 1
        play = env.play

        def recorded_play(action: Any) -> tuple[float, bool]:
            self.played.append(play(action))
            return self.played[-1]

        env.play = recorded_play  # type: ignore[method-assign]

    def start_episode(self, seed: int) -> None:
        """Reset, with budgets of all sizes: after `reset`, since some games draw levels to fit them."""
        env, draw = self.env, self.source.randint
        env.reset(seed=seed)
        env.turns, several, env.actions_per_episode = draw(1, 30), draw(1, 4), draw(1, 20)
        # A game of one action a turn may offer other actions after it: a second one has no known meaning.
        env.actions_per_turn = several if self.several else 1
        self.turns_left, self.actions_left = env.turns, env.actions_per_episode
        self.over = False

    def check(self, case: Case) -> str | None:
        """Play one reply; what is wrong with the outcome, if anything."""
        self.penalised = False
        self.played.clear()
        try:
            reply = parse_reply(case.text)
            outcome = self.env.step(case.text)
        except Exception as error:
            return f"raised {type(error).__name__}: {error}"
        if (reply.reasoning, reply.action) != (case.reasoning, case.action):
            return f"spans {reply.reasoning}, {reply.action}, not {case.reasoning}, {case.action}"
        return self._compare(case, *outcome)

    def _compare(
        self,
        case: Case,
        observation: str,
        reward: float,
        terminated: bool,
        truncated: bool,
        info: dict[str, Any],
    ) -> str | None:
        expected = self._expected_actions(case)
        gains = [gain for gain, _ in self.played]
        self.turns_left -= 1
        self.actions_left -= len(expected)
        ended = any(over for _, over in self.played)
        exhausted = not ended and (self.turns_left == 0 or self.actions_left == 0)
        self.over = ended or exhausted
        total = sum(gains) + FORMAT_PENALTY * self.penalised
        if info["played"] != expected or len(gains) != len(expected):
            return f"played {info['played']}, not {expected}"
        if not math.isclose(reward, total, abs_tol=1e-9):
            return f"reward {reward}, not {total}"
        if (terminated, truncated) != (ended, exhausted):
            return f"terminated, truncated = {terminated}, {truncated}, not {ended}, {exhausted}"
        if (info["problem"] is not None) != self.penalised:
            return f"the problem reads {info['problem']!r}, and penalised is {self.penalised}"
        if self.env.actions_left != self.actions_left:
            return f"{self.env.actions_left} actions left, not {self.actions_left}"
        if observation not in self.env.observation_space:
            return "the observation is not in the observation space"
        return self._check_end() if self.over else None

    def _expected_actions(self, case: Case) -> list[str]:
        """The actions that must have been played; notes whether the reply must be penalised."""
        expected: list[str] = []
        self.penalised = not case.parts
        for part in case.parts[: self.env.actions_per_turn]:
            # `played` tells which of our actions ended the game; what follows it is not even read.
            if len(expected) == self.actions_left or any(over for _, over in self.played[: len(expected)]):
                break
            if part.known:
                expected.append(part.text)
            else:
                self.penalised = True
        return expected

    def _check_end(self) -> str | None:
        try:
            self.env.step("")
        except gymnasium.error.ResetNeeded:
            return None
        return "step() after the end of the episode does not raise ResetNeeded"


if __name__ == "__main__":
    print(episodes_digest(partial(make_env, sys.argv[1], **json.loads(sys.argv[2])), int(sys.argv[3])))
