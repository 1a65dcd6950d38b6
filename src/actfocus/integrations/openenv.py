"""Our games as OpenEnv environments: a server, and the client that plays on it.

    python -m actfocus.integrations.openenv --env frozen-lake --success-rate 1 --port 8000

    from actfocus.integrations.openenv import GameAction, GameClient
    with GameClient(base_url="http://127.0.0.1:8000").sync() as client:
        result = client.reset(seed=7)
        result = client.step(GameAction(reply="<think>The goal is right.</think><answer>Right</answer>"))

A connection is a session with a game of its own. docs/environments_elsewhere.md says what goes over the wire.
"""

import secrets
import sys
import uuid
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

import gymnasium
import tyro
from pydantic import Field

from actfocus.config import EnvConfig
from actfocus.envs import EVALUATION_SEEDS, make_env
from actfocus.errors import ActfocusError, ConfigError, did_you_mean
from actfocus.integrations.versions import is_of, require_version

SUPPORTED = ">=0.10,<0.11"
"""OpenEnv's versions whose seams `tests/integrations/test_openenv_contract.py` pins."""

# Before anything that imports openenv: what is missing or out of range is said in one line.
try:
    require_version("openenv", SUPPORTED, is_of(0, 10), "pip install 'actfocus[openenv]'")
except ImportError as missing:
    if __name__ != "__main__":
        raise
    print(f"error: {missing}", file=sys.stderr)
    sys.exit(2)

import uvicorn  # noqa: E402
from fastapi import FastAPI, Request  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402
from openenv.core import EnvClient  # noqa: E402
from openenv.core.client_types import StepResult  # noqa: E402
from openenv.core.env_server import Action, Environment, Observation, State, create_app  # noqa: E402
from openenv.core.env_server.types import EnvironmentMetadata  # noqa: E402

_RESET_KEYS = ("seed", "episode_id", "chance_seed")


class GameAction(Action):
    """One turn of the player."""

    reply: str = Field(description="The whole reply, <think>...</think><answer>...</answer>.")


class GameObservation(Observation):
    """What the game answers; `reward` (None after a reset) and `done` stand beside it."""

    text: str = Field(description="The next user message.")
    system_prompt: str | None = Field(None, description="The system message; after a reset only.")
    success: bool = Field(False, description="Whether the game is solved.")
    truncated: bool = Field(False, description="Whether it ended because a budget is spent.")
    problem: str | None = Field(None, description="What was wrong with the reply; it cost the penalty.")
    played: list[str] = Field(default_factory=list, description="The actions of the reply that were played.")
    figures: dict[str, float] = Field(
        default_factory=dict, description="What the game reports beside success."
    )


class GameState(State):
    """Where an episode stands; `step_count` counts replies."""

    game: str = Field("", description="The game's name.")
    level_seed: int | None = Field(None, description="Seed of the level; None before the first reset.")
    chance_seed: int | None = Field(None, description="Seed of the slips; None if the level's seed decides.")
    total_return: float = Field(0.0, description="Sum of rewards and penalties so far.")
    success: bool = Field(False, description="Whether the game is solved.")
    done: bool = Field(False, description="Whether the episode is over.")


class GameEnvironment(Environment[GameAction, GameObservation, GameState]):
    """A `TextEnv` behind OpenEnv's interface; rewards, texts and ends are the game's own."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    # The sessions of a server share caches and WebShop's stemmer, which is not safe among threads; games are
    # Python, so that a thread for each would gain nothing.
    REQUIRES_SINGLE_THREAD_EXECUTOR = True

    def __init__(self, game: str, **settings: Any) -> None:
        """Make the game.

        Args:
            game: Its name, or `package.module:Class`.
            settings: The game's own.

        Raises:
            ConfigError: If there is no such game or it refuses the settings.
        """
        super().__init__()
        self._env = make_env(game, **settings)
        self._state = GameState(game=game)

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        chance_seed: int | None = None,
        **unknown: Any,
    ) -> GameObservation:
        """Start an episode.

        Args:
            seed: Of the level; None draws one that evaluation does not use. Levels below 1 000 000 are those
                of evaluation.
            episode_id: The client's name for the episode.
            chance_seed: Of the slips; None leaves them to the level's seed.
            unknown: Refused, so that a misspelt seed does not quietly play another level.

        Raises:
            ConfigError: If a seed is no integer of 0 or more, or a name is unknown.
        """
        for key in unknown:
            raise ConfigError(
                f"reset has no {key!r}: it takes {', '.join(_RESET_KEYS)}{did_you_mean(key, _RESET_KEYS)}"
            )
        for key, value in (("seed", seed), ("chance_seed", chance_seed)):
            if value is not None and (type(value) is not int or value < 0):
                raise ConfigError(f"{key} must be an integer of 0 or more, got {value!r}")
        if seed is None:
            # 53 bits, because clients in JavaScript would round more.
            seed = max(secrets.randbits(53), EVALUATION_SEEDS.stop)
        options = {} if chance_seed is None else {"chance_seed": chance_seed}
        text, info = self._env.reset(seed=seed, options=options)
        self._state = GameState(
            episode_id=episode_id or str(uuid.uuid4()),
            game=self._state.game,
            level_seed=seed,
            chance_seed=chance_seed,
        )
        return GameObservation(
            text=text, system_prompt=self._env.system_prompt, figures=_floats(info["figures"])
        )

    def step(self, action: GameAction, timeout_s: float | None = None, **unused: Any) -> GameObservation:
        """Play one reply; a malformed one costs the penalty, as everywhere.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset, and after the end of an episode.
        """
        if self._state.level_seed is None:
            raise gymnasium.error.ResetNeeded(
                "There is no episode yet: call reset() before step(), both on one connection (/ws)."
            )
        text, reward, terminated, truncated, info = self._env.step(action.reply)
        # A game of the user's own may reckon in NumPy's types, which JSON does not know.
        reward, done = float(reward), bool(terminated or truncated)
        self._state.step_count += 1
        self._state.total_return += reward
        self._state.success, self._state.done = bool(info["success"]), done
        return GameObservation(
            text=text,
            reward=reward,
            done=done,
            success=self._state.success,
            truncated=bool(truncated),
            problem=info["problem"],
            played=info["played"],
            figures=_floats(info["figures"]),
        )

    @property
    def state(self) -> GameState:
        """Where the episode stands."""
        return self._state

    def get_metadata(self) -> EnvironmentMetadata:
        """What `/metadata` says of the game."""
        return EnvironmentMetadata(
            name=f"actfocus-{self._state.game}",
            description=self._env.rules,
            version=version("actfocus"),
        )

    def close(self) -> None:
        """Close the game."""
        self._env.close()


class GameClient(EnvClient[GameAction, GameObservation, GameState]):
    """Plays on a server of this module; `.sync()` gives a blocking client."""

    def _step_payload(self, action: GameAction) -> dict[str, Any]:
        payload: dict[str, Any] = action.model_dump()
        return payload

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[GameObservation]:
        outcome = {"reward": payload["reward"], "done": payload["done"]}
        observation = GameObservation(**payload["observation"], **outcome)
        return StepResult(observation=observation, **outcome)

    def _parse_state(self, payload: dict[str, Any]) -> GameState:
        return GameState(**payload)


def create_game_app(game: str, *, sessions: int = 64, **settings: Any) -> FastAPI:
    """The server's application, for uvicorn or a container.

    Args:
        game: Its name, or `package.module:Class`.
        sessions: Connections at a time; one more is refused with `CAPACITY_REACHED`.
        settings: The game's own.

    Raises:
        ConfigError: If there is no such game or it refuses the settings.
    """
    if sessions < 1:
        raise ConfigError(f"sessions must be at least 1, got {sessions}")
    # Made once before the first client comes: refusals are the operator's, and WebShop builds its index.
    make_env(game, **settings).close()
    app = create_app(
        partial(GameEnvironment, game, **settings),
        GameAction,
        GameObservation,
        env_name=f"actfocus-{game}",
        max_concurrent_envs=sessions,
        state_cls=GameState,
    )
    # Else plain HTTP would answer a client's mistake with 500 and no word of what it was.
    for mistake in (ActfocusError, gymnasium.error.ResetNeeded):
        app.add_exception_handler(mistake, _bad_request)
    return app


def _bad_request(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=400)


def _floats(figures: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items()}


def serve(
    game: Annotated[EnvConfig, tyro.conf.arg(name="")],
    host: str = "127.0.0.1",
    port: int = 8000,
    sessions: int = 64,
) -> None:
    """Serve a game to OpenEnv's clients.

    Args:
        game: The game and its settings.
        host: Address to listen on; 0.0.0.0 lets other machines in, and nothing asks them who they are.
        port: Port to listen on; 0 takes a free one and says which.
        sessions: Connections at a time.
    """
    app = create_game_app(game.name, sessions=sessions, **game.settings())
    uvicorn.run(app, host=host, port=port)


if __name__ == "__main__":
    try:
        tyro.cli(serve, prog="python -m actfocus.integrations.openenv")
    except ActfocusError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
