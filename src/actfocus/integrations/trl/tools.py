"""Our environments as tools, for TRL's `environment_factory`: the model plays by calling `act`.

The reward is the environment's own (`get_reward`), so that `reward_funcs` may stay empty. With
`ActFocusGRPOTrainer(roles="tools")` the arguments of the calls are the actions.
"""

from typing import Any

from accelerate import PartialState
from datasets import Dataset

from actfocus.envs import make_env
from actfocus.envs.protocol import ACTION_SEPARATOR, REPLY_HINT, TextEnv
from actfocus.errors import ConfigError
from actfocus.integrations.levels import Split, level_seeds
from actfocus.rollout.seeds import Stream, derive_seed


class GameTool:
    """One game at a time, played by tool calls. TRL makes one per completion and resets it per episode."""

    def __init__(self, env: TextEnv, *luck: int) -> None:
        """Play `env`; `luck` and the number of the episode seed its chance."""
        self._env, self._luck = env, luck
        self._episodes = 0
        self._reward = 0.0
        self._over = True
        self.success = False
        """Whether the episode has been solved."""

    def reset(self, level: int | None = None, **row: Any) -> str:
        """Start an episode; TRL appends the returned text to the last user message of the prompt.

        Args:
            level: Seed of the level, from the data set.
            row: The other columns, not used.

        Raises:
            ConfigError: If the data set has no column `level`.
        """
        if level is None:
            raise ConfigError("the data set names no level: make it with the dataset() of the games")
        chance = derive_seed(Stream.CHANCE, level, self._episodes, *self._luck)
        self._episodes += 1
        observation, _ = self._env.reset(seed=level, options={"chance_seed": chance})
        self._reward, self._over, self.success = 0.0, False, False
        return observation.removesuffix(REPLY_HINT)  # it does not hold for a model that calls tools

    def act(self, actions: str) -> str:
        """Play one turn of the game.

        Args:
            actions: The action, or several of them separated by ||.

        Returns:
            What you see then.
        """
        if self._over:
            return "The game is over."
        reply = f"<think></think><answer>{actions}</answer>"
        observation, reward, terminated, truncated, info = self._env.step(reply)
        self._reward += float(reward)
        self._over = terminated or truncated
        self.success = bool(info["success"])
        text = observation.removesuffix(REPLY_HINT)
        return f"{text}\nThe game is over." if self._over else text

    def get_reward(self) -> float:
        """R: the sum of all rewards and penalties of the episode."""
        return self._reward


class GameTools:
    """Makes `GameTool`s: `environment_factory=games`, `train_dataset=games.dataset(rows)`."""

    def __init__(self, env: str, *, seed: int = 0, **settings: Any) -> None:
        """Choose the environment; arguments as of `EnvironmentRollout`.

        Raises:
            ConfigError: If there is no such environment or it refuses the settings.
        """
        self._name, self._settings, self._seed = env, settings, seed
        self._made = 0
        self._rules = make_env(env, **settings)

    def __call__(self) -> GameTool:
        """Another tool, with luck of its own on every process."""
        self._made += 1
        env = make_env(self._name, **self._settings)
        return GameTool(env, self._seed, PartialState().process_index, self._made)

    def dataset(self, rows: int, *, split: Split = "train") -> Dataset:
        """A data set of `rows` levels with prompts that explain the game; no level seed is in both splits.

        Raises:
            ConfigError: If there is no such split.
        """
        env = self._rules
        several = (
            f" Up to {env.actions_per_turn} actions may stand in one call, separated by {ACTION_SEPARATOR}."
            if env.actions_per_turn > 1
            else ""
        )
        system = f"{env.rules}\nThink first, then call the tool act.{several}"
        prompt = [{"role": "system", "content": system}, {"role": "user", "content": ""}]
        levels = level_seeds(rows, seed=self._seed, split=split)
        return Dataset.from_dict({"prompt": [prompt] * rows, "level": levels})
