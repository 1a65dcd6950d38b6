"""The logic of `actfocus check-env`: what an environment promises, tried on thousands of episodes.

`python -m actfocus.envs.check NAME SEEDS` prints the digest of SEEDS whole episodes; the check runs it in
processes of its own, because a dependence on the process cannot be seen from inside one.
"""

import hashlib
import math
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    seeds: int = 1000,
    fuzz: int = 100_000,
    progress: Callable[[str], None] = lambda stage: None,
) -> EnvironmentReport:
    """Try `name` on the levels of `seeds` seeds and with `fuzz` random replies.

    `name` is a name of `ENVIRONMENTS`, or `package.module:Class` for a `TextEnv` of one's own; in a game with
    chance, the setting `success_rate=1.0` must turn chance off. `progress` is told the stage that begins.
    """
    if seeds < 1 or fuzz < 1:
        raise ValueError(f"seeds and fuzz must be at least 1, got {seeds} and {fuzz}")
    make_env(name)  # A wrong name is the caller's mistake, not a finding.
    problems: list[str] = []
    figures: dict[str, Any] = {}
    stages: dict[str, Callable[[], dict[str, Any]]] = {
        "Gymnasium's own check": lambda: _check_gymnasium(name),
        f"{seeds} episodes, twice": lambda: _check_reproducible(name, seeds, problems),
        "the expert": lambda: _check_expert(name, seeds, problems),
        f"{fuzz} random replies": lambda: _check_replies(name, seeds, fuzz, problems),
    }
    for stage, check in stages.items():
        progress(stage)
        # Whatever an environment raises is what the check is there to report.
        try:
            figures |= check()
        except Exception as error:
            problems.append(f"{stage}: {type(error).__name__}: {error}")
    return EnvironmentReport(name=name, seeds=seeds, problems=tuple(problems), **figures)


def _check_gymnasium(name: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(make_env(name))
    return {}


# The same episodes in every process. -------------------------------------------------------------------


def _check_reproducible(name: str, seeds: int, problems: list[str]) -> dict[str, Any]:
    """Play the same episodes in two processes that hash strings differently."""
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "actfocus.envs.check", name, str(seeds)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for hash_seed in HASH_SEEDS
    ]
    digests = []
    for output, errors in [child.communicate() for child in children]:
        if not output:
            raise RuntimeError((errors.strip() or "a process died without a word").splitlines()[-1])
        digests.append(output.split()[-1])
    if len(set(digests)) == 1:
        return {"digest": digests[0]}
    problems.append(
        "the same seeds gave other episodes in another process (set order, hash(), global state?)"
    )
    return {}


def episodes_digest(name: str, seeds: int) -> str:
    """SHA-256 over everything that one episode per seed shows, driven by expert, chance and a mixture."""
    env = make_env(name)
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
    actions = env.expert_actions() if rng.random() < expert_share else []
    if not actions:
        actions = [env.random_action(rng) for _ in range(rng.integers(env.actions_per_turn + 2))]
    return _reply(" ".join(env.remarks(rng)), actions[: env.actions_per_turn + 1])


def _reply(reasoning: str, actions: list[str]) -> str:
    return f"<think>{reasoning}</think><answer>{' || '.join(actions)}</answer>"


# Every level can be solved. ----------------------------------------------------------------------------


def _check_expert(name: str, seeds: int, problems: list[str]) -> dict[str, Any]:
    """Let the expert play every level: as it is, and without chance, where it must always win."""
    env = make_env(name)
    certain = make_env(name, success_rate=1.0) if hasattr(env, "success_rate") else env
    moves, solved, returns, unsolved = [], 0, 0.0, []
    for seed in range(seeds):
        certain.reset(seed=seed)
        level = certain.picture()
        moves.append(len(certain.expert_actions()))
        if not _expert_plays(certain)[0]:
            unsolved.append(seed)
        # Once more, with other luck and after an episode: neither may show in the level.
        for again in (certain, env):
            again.reset(seed=seed, options={"chance_seed": seed + 1})
            if again.picture() != level:
                raise AssertionError(f"the level of seed {seed} depends on more than the seed")
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


def _expert_plays(env: TextEnv) -> tuple[bool, float]:
    """Success and sum of rewards of the expert, who plans anew each turn."""

    def choose_reply() -> str:
        return _reply("I follow the plan.", env.expert_actions()[: env.actions_per_turn])

    outcomes = [outcome for _, outcome in _turns(env, choose_reply)]
    return outcomes[-1][4]["success"], sum(reward for _, reward, *_ in outcomes)


# Any reply at all. -------------------------------------------------------------------------------------


def _check_replies(name: str, seeds: int, fuzz: int, problems: list[str]) -> dict[str, Any]:
    """Play random replies of known meaning, and compare with a model of the budgets and the penalty."""
    env = make_env(name)
    source, rng = random.Random(0), np.random.default_rng(0)
    model = _Model(env, source)
    replies, penalties, found = 0, 0, 0
    while replies < fuzz and found < MAX_PROBLEMS:
        if model.over:
            model.start_episode(seed=source.randrange(seeds))
        case = random_case(source, lambda: env.random_action(rng))
        complaint = model.check(case)
        replies += 1
        penalties += model.penalised
        if complaint:
            found += 1
            problems.append(f"reply {replies}, {case.text[:200]!a}: {complaint}")
            model.over = True
    return {"replies": replies, "penalties": penalties}


class _Model:
    """The protocol once more, from known meanings: what each reply must do to budgets, reward and flags."""

    def __init__(self, env: TextEnv, source: random.Random) -> None:
        self.env = env
        self.source = source
        self.over = True
        self.penalised = False
        self.played: list[tuple[float, bool]] = []
        play = env.play

        def recorded_play(action: Any) -> tuple[float, bool]:
            self.played.append(play(action))
            return self.played[-1]

        env.play = recorded_play  # type: ignore[method-assign]

    def start_episode(self, seed: int) -> None:
        """Reset, with budgets of all sizes: after `reset`, since some games draw levels to fit them."""
        env, draw = self.env, self.source.randint
        env.reset(seed=seed)
        env.turns, env.actions_per_turn, env.actions_per_episode = draw(1, 30), draw(1, 4), draw(1, 20)
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
    print(episodes_digest(sys.argv[1], int(sys.argv[2])))
