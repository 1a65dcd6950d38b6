"""The text protocol that all environments share: replies, budgets, penalty.

A `TextEnv` is a `gymnasium.Env` whose observation is the text of one user message and whose action is
the whole text of one reply. A game supplies its level, its picture and its moves; everything that the
games have in common is decided here, once.
"""

import math
import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Text

from actfocus.errors import ConfigError, GameError

FORMAT_PENALTY = -0.1
"""Added once to a turn whose reply is malformed or names an unknown action."""

ACTION_SEPARATOR = "||"
REPLY_TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
REPLY_HINT = " Reply as <think>...</think><answer>...</answer>."
"""What every observation ends with."""
_TAG = re.compile("|".join(map(re.escape, REPLY_TAGS)))

RECORD_KEYS = {"schema", "step", "evaluation", "gradient_share"}
"""What a line of `metrics.jsonl` holds beside figures: no figure of a game can be called so."""

EVALUATION_SEEDS = range(0, 1_000_000)
"""Level seeds that evaluation draws from; training and demonstrations never use them."""


class Printable(Text):
    """The space of printable texts with line ends; `Text` itself needs every character listed."""

    def contains(self, x: Any) -> bool:
        """Whether `x` is such a text, and not too long."""
        return isinstance(x, str) and len(x) <= self.max_length and x.replace("\n", "").isprintable()


@dataclass(frozen=True)
class Reply:
    """A parsed reply.

    `reasoning` and `action` are character ranges [start, end) of the text between the tags, None when the
    format is broken (an empty answer keeps them); `actions` are the stripped action texts; `error` says what
    is wrong, None if nothing.
    """

    reasoning: tuple[int, int] | None
    action: tuple[int, int] | None
    actions: tuple[str, ...]
    error: str | None


def parse_reply(text: str) -> Reply:
    """Parse `<think>…</think><answer>…</answer>`; only whitespace may stand around the two spans.

    Each tag must occur exactly once and in this order: with a repeated or nested tag it would be a guess
    which text decides, and a guess would train the wrong tokens.
    """

    def malformed(error: str) -> Reply:
        return Reply(None, None, (), error)

    tags = list(_TAG.finditer(text))
    names = [tag.group() for tag in tags]
    if names != REPLY_TAGS:
        missing = [tag for tag in REPLY_TAGS if tag not in names]
        repeated = [tag for tag in REPLY_TAGS if names.count(tag) > 1]
        if missing:
            return malformed("missing " + " ".join(missing))
        return malformed("repeated " + " ".join(repeated) if repeated else "tags out of order")
    opened, closed, answer, end = tags
    outside = text[: opened.start()] + text[closed.end() : answer.start()] + text[end.end() :]
    if outside.strip():
        return malformed("text outside the tags")
    action = (answer.end(), end.start())
    parts = text[slice(*action)].split(ACTION_SEPARATOR)
    actions = tuple(part.strip() for part in parts if part.strip())
    return Reply((opened.end(), closed.start()), action, actions, None if actions else "empty answer")


class TextEnv(gymnasium.Env[str, str]):
    """A turn-based game played in text: R = sum of the rewards and penalties of all turns.

    `reset(seed=s)` fixes the level; `reset(seed=s, options={"chance_seed": c})` also fixes the stream of
    chance (slips), so that the members of a group share the level and not the luck.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}
    rules: str
    """What the system message says of the game: goal, symbols, actions and their notation."""

    def __init__(
        self, *, turns: int, actions_per_turn: int, actions_per_episode: int, render_mode: str | None = None
    ) -> None:
        """Budgets: at most `turns` replies, `actions_per_turn` in one, `actions_per_episode` in all."""
        for name, value in [
            ("turns", turns),
            ("actions_per_turn", actions_per_turn),
            ("actions_per_episode", actions_per_episode),
        ]:
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.turns = turns
        self.actions_per_turn = actions_per_turn
        self.actions_per_episode = actions_per_episode
        self.render_mode = render_mode
        self.observation_space = Printable(max_length=20_000)
        self.action_space = Printable(max_length=2_000)
        self.chance = np.random.default_rng(0)
        self._over = True

    # What a game supplies. -----------------------------------------------------------------------------

    @abstractmethod
    def new_level(self, rng: np.random.Generator) -> None:
        """Draw a level from `rng` alone."""

    @abstractmethod
    def picture(self) -> str:
        """The state as the player sees it."""

    @abstractmethod
    def read_action(self, text: str) -> Any | None:
        """The action that `text` names, None if it names none."""

    @abstractmethod
    def play(self, action: Any) -> tuple[float, bool]:
        """Play one action: its reward, and whether the game is over. Sets `self.success` when solved."""

    def figures(self) -> dict[str, float]:
        """What is reported of an episode beside success and return, such as a score; nothing by default."""
        return {}

    def shorthand(self, text: str) -> str:
        """The action that a person means who plays by hand and types `text`; the text itself by default."""
        return text

    # What only demonstrations and checks need. ---------------------------------------------------------

    def expert_actions(self) -> list[str]:
        """A shortest list of actions that solves the game from here; empty if there is none."""
        raise self._no_demonstrations("expert_actions")

    def random_action(self, rng: np.random.Generator) -> str:
        """A legal action, uniformly at random."""
        raise self._no_demonstrations("random_action")

    def remarks(self, rng: np.random.Generator) -> list[str]:
        """True sentences about the state, in random order and wording: the stuff of demonstrations."""
        raise self._no_demonstrations("remarks")

    def _no_demonstrations(self, method: str) -> ConfigError:
        return ConfigError(f"{type(self).__name__} cannot be demonstrated: it has no method {method}")

    # What all games share. -----------------------------------------------------------------------------

    @property
    def system_prompt(self) -> str:
        """The system message: the rules and the reply format."""
        several = (
            f" Up to {self.actions_per_turn} actions may stand in one answer, separated by"
            f" {ACTION_SEPARATOR}."
            if self.actions_per_turn > 1
            else ""
        )
        return (
            f"{self.rules}\nThink first, then act. Reply as"
            f" <think>your reasoning</think><answer>your action</answer>.{several}"
        )

    @property
    def actions_left(self) -> int:
        """Actions that the episode still allows."""
        return self.actions_per_episode - self.actions_used

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an episode; `options["chance_seed"]` seeds the stream of chance."""
        super().reset(seed=seed)
        self.level_seed = seed
        """For games that keep levels of their own for evaluation."""
        options = options or {}
        self.new_level(self.np_random)
        chance_seed = options.get("chance_seed")
        # Drawn even when it is not used, so that later levels do not depend on who seeds the chance.
        own_seed = int(self.np_random.integers(2**63))
        if chance_seed is None:
            chance_seed = own_seed
        # A stream of its own: a chance seed equal to the level's must not replay the draws of the level.
        self.chance = np.random.default_rng(np.random.SeedSequence(chance_seed, spawn_key=(1,)))
        self.turn = 1
        self.actions_used = 0
        self.success = False
        self._over = False
        return self._observation(None), {"success": False, "figures": self._finite_figures()}

    def step(self, response: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play one reply.

        Raises:
            gymnasium.error.ResetNeeded: After the end of an episode.
            GameError: If a reward or a figure is not a finite number, or a figure's name is taken.
        """
        if self._over:
            raise gymnasium.error.ResetNeeded("The episode is over: call reset() before step().")
        reply = parse_reply(response)
        problem, reward, played, terminated = reply.error, 0.0, [], False
        for text in reply.actions[: self.actions_per_turn]:
            if terminated or self.actions_left == 0:
                break
            action = self.read_action(text)
            if action is None:
                problem = f"unknown action {text[:80]!r}"
                continue
            gain, terminated = self.play(action)
            reward += self._finite("play gave the reward", gain)
            self.actions_used += 1
            played.append(text)
        if problem is not None:
            reward += FORMAT_PENALTY
        self.turn += 1
        truncated = not terminated and (self.turn > self.turns or self.actions_left == 0)
        self._over = terminated or truncated
        figures = self._finite_figures()
        info = {"success": self.success, "problem": problem, "played": played, "figures": figures}
        return self._observation(reward), reward, terminated, truncated, info

    def _finite_figures(self) -> dict[str, float]:
        figures = self.figures()
        for name in RECORD_KEYS & set(figures):
            raise GameError(f"the game {type(self).__name__}: a figure cannot be called {name}: rename it")
        return {name: self._finite(f"figures gave {name} =", value) for name, value in figures.items()}

    def _finite(self, what: str, value: Any) -> float:
        # One that is not would poison the means of a whole step, or the weights of the model.
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise GameError(f"the game {type(self).__name__}: {what} {value!r}, which is no finite number")
        return number

    def render(self) -> str:
        """The state as text (`render_mode="ansi"`)."""
        return self.picture()

    def _observation(self, last_reward: float | None) -> str:
        heading = f"Turn {min(self.turn, self.turns)} of {self.turns}."
        if last_reward is not None:
            heading += f" Reward of the last turn: {last_reward:.4g}."
        return f"{heading}\n{self.picture()}\nActions left: {self.actions_left}.{REPLY_HINT}"
