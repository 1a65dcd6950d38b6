"""The taskset (levels), the task (scores) and the environment (an episode), as verifiers 0.4 names them."""

import multiprocessing
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Self

import verifiers.v1 as vf
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from actfocus.config import EnvConfig
from actfocus.envs import EVALUATION_SEEDS, configured_env
from actfocus.errors import ConfigError
from actfocus.integrations.levels import Split, level_seeds
from actfocus.rollout.seeds import Stream, derive_seed


def _from_texts(game: Any) -> Any:
    """A game from verifiers' command line, which has texts alone; ours takes no text for a number."""
    if not isinstance(game, dict):
        return game
    try:
        given = {key: str(value) for key, value in game.items() if value is not None}
        return EnvConfig.model_validate_strings(given)
    except ValidationError as error:
        # In one line: verifiers shows no more of what lies below its own settings.
        said = [f"{'.'.join(map(str, one['loc']))} {one['msg']}".strip() for one in error.errors()]
        raise ValueError("; ".join(said)) from None


class GameTasksetConfig(vf.TasksetConfig):
    """`--env.taskset.*`: which game, and which of its levels."""

    game: Annotated[EnvConfig, BeforeValidator(_from_texts)] = EnvConfig()
    """The game and its settings, as everywhere in ActFocus."""
    split: Split = "train"
    """Levels that training draws, or those that `actfocus eval` plays; no seed is in both."""
    rows: int = Field(256, ge=1)
    """Levels."""
    seed: int = Field(0, ge=0)
    """Which levels training draws; the evaluation levels are the same for every seed."""

    @model_validator(mode="after")
    def _enough_levels(self) -> Self:
        if self.split == "evaluation" and self.rows > len(EVALUATION_SEEDS):
            raise ValueError(f"there are {len(EVALUATION_SEEDS)} evaluation levels, not {self.rows}")
        return self


class GameData(vf.TaskData):
    """One level."""

    game: dict[str, Any]
    """The game's name and settings."""
    level_seed: int
    luck: list[int]
    """What the streams of chance of this level are derived from."""


class GameTask(vf.Task[GameData]):
    """The scores of an episode, read off what `GameEnv` noted in `trace.info["game"]`.

    Both are rewards, so that a run can choose what counts: `--env.taskset.task.rewards.success.weight 1`.
    """

    @vf.reward  # type: ignore[untyped-decorator]
    async def episode_return(self, trace: vf.Trace) -> float:
        """The sum of the game's rewards and penalties."""
        return float(trace.info["game"]["return"])

    @vf.reward(weight=0.0)  # type: ignore[untyped-decorator]
    async def success(self, trace: vf.Trace) -> float:
        """1 if the game was solved, else 0."""
        return float(trace.info["game"]["success"])

    @vf.metric  # type: ignore[untyped-decorator]
    async def game(self, trace: vf.Trace) -> dict[str, float]:
        """Turns, share of faulty replies, and what the game reports of itself."""
        played = trace.info["game"]
        faulty = sum(problem is not None for problem in played["problems"])
        turns = len(played["problems"])
        return {"turns": float(turns), "problem_share": faulty / max(1, turns), **played["figures"]}


class GameTaskset(vf.Taskset[GameTask, GameTasksetConfig]):
    """The levels of one game, each with its first observation as the prompt."""

    def load(self) -> Iterator[GameTask]:
        """The rows, made as they are asked for.

        Raises:
            ConfigError: If there is no such game or it refuses the settings.
        """
        config = self.config
        env = configured_env(config.game)
        levels = level_seeds(config.rows, seed=config.seed, split=config.split)
        for row, level_seed in enumerate(levels):
            observation, _ = env.reset(seed=level_seed)
            data = GameData(
                name=f"{config.game.name} level {level_seed}",
                prompt=observation,
                system_prompt=env.system_prompt,
                game=config.game.model_dump(exclude_none=True),
                level_seed=level_seed,
                luck=[row] if config.split == "evaluation" else [config.seed, row],
            )
            yield GameTask(data, config.task)


class GameEnvConfig(vf.SingleAgentEnvConfig):
    """`--env.*`: one seat, `agent`, which plays."""

    # verifiers' default is a paid sandbox; a chat needs no more than an empty folder.
    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    """The model that plays."""


class GameEnv(vf.SingleAgentEnv, vf.Env[GameEnvConfig]):
    """An episode: the game is the user of the chat, and ends it.

    A `SingleAgentEnv`, because verifiers replays and tunes (`replay`, `gepa`) no other.
    """

    def __init__(self, config: GameEnvConfig) -> None:
        """Load the taskset; raises what verifiers raises."""
        super().__init__(config)
        self._episodes: Counter[int] = Counter()
        """Level seed → episodes begun: the members of a group share the level and not the luck."""

    async def run(self, task: GameTask, agents: vf.Agents) -> None:
        """Play one level to its end.

        Raises:
            ConfigError: If the level is not the one that the task shows.
        """
        data = task.data
        env = configured_env(EnvConfig(**data.game))
        chance_seed = self._chance_seed(data)
        observation, info = env.reset(seed=data.level_seed, options={"chance_seed": chance_seed})
        if observation != data.prompt:
            raise ConfigError(f"{data.name} looks otherwise than in the task: is it of another version?")
        record: dict[str, Any] = {
            "level_seed": data.level_seed,
            "chance_seed": chance_seed,
            "return": 0.0,
            "success": False,
            "problems": [],
            "ended": "cut",  # by a limit of verifiers', until the game ends it
            "figures": _floats(info["figures"]),
        }
        async with agents.agent.interaction(task) as chat:
            chat.trace.info["game"] = record
            segment = await chat.turn()
            while not segment.terminated:
                observation, reward, terminated, truncated, info = env.step(whole_reply(segment))
                record["return"] += float(reward)
                record["success"] = bool(info["success"])
                record["problems"].append(info["problem"])
                record["figures"] = _floats(info["figures"])
                if terminated or truncated:
                    record["ended"] = "terminated" if terminated else "truncated"
                    break
                segment = await chat.turn(observation)

    def _chance_seed(self, data: GameData) -> int:
        """The luck of this episode: in one process the n-th of a level has the same in every run."""
        if multiprocessing.parent_process() is not None:
            # The workers of a pool share the episodes of a level and cannot count each other's.
            return secrets.randbits(63)
        member = self._episodes[data.level_seed]
        self._episodes[data.level_seed] += 1
        return derive_seed(Stream.CHANCE, *data.luck, member)


def whole_reply(segment: vf.Segment) -> str:
    """The reply with its reasoning, which many servers take out of the text and hand over apart."""
    for message in reversed(segment.messages):
        if isinstance(message, vf.AssistantMessage):
            text = message.content or ""
            if message.reasoning_content and "<think>" not in text:
                return f"<think>{message.reasoning_content}</think>{text}"
            return text
    return str(segment.last_reply)


def _floats(figures: dict[str, Any]) -> dict[str, float]:
    # A game of the user's own may reckon in NumPy's types, which JSON does not know.
    return {name: float(value) for name, value in figures.items()}
