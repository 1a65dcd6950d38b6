"""FrozenLake, Sokoban, Sudoku and WebShop as text games on the Gymnasium API."""

import importlib
import os
import sys
from typing import Any

import gymnasium

from actfocus.config import EnvConfig, known_env
from actfocus.envs.own_game import guarded
from actfocus.envs.protocol import EVALUATION_SEEDS, Reply, TextEnv, parse_reply
from actfocus.errors import ConfigError

ENVIRONMENTS = {
    "frozen-lake": "actfocus/FrozenLake-v0",
    "sokoban": "actfocus/Sokoban-v0",
    "sudoku": "actfocus/Sudoku-v0",
    "webshop": "actfocus/WebShop-v0",
}
"""Name on the command line → Gymnasium id."""

_ENTRY_POINTS = {
    "frozen-lake": "actfocus.envs.frozen_lake:FrozenLake",
    "sokoban": "actfocus.envs.sokoban:Sokoban",
    "sudoku": "actfocus.envs.sudoku:Sudoku",
    "webshop": "actfocus.envs.webshop:WebShop",
}


def register_environments() -> None:
    """Make `gymnasium.make("actfocus/…-v0")` work; the games themselves load when first made.

    Gymnasium's wrappers for order and time stay off: `TextEnv` has budgets and an order check of its own.
    """
    for name, env_id in ENVIRONMENTS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=_ENTRY_POINTS[name], order_enforce=False)


def make_env(name: str, **settings: Any) -> TextEnv:
    """The environment `name` (as on the command line) with the given settings.

    Raises:
        ConfigError: If there is no such environment, a class of the user's own cannot be found or is no
            `TextEnv`, or the settings do not suit it.
    """
    try:
        known_env(name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    own = _own_class(name) if ":" in name else None
    # A game of the user's own may fail in any way; ours refuse settings in these two.
    refusals = (TypeError, ValueError) if own is None else (Exception,)
    try:
        if own is not None:
            return own(**settings)
        register_environments()
        env = gymnasium.make(ENVIRONMENTS[name], disable_env_checker=True, **settings).unwrapped
    except refusals as error:
        given = ", ".join(f"{key} = {value}" for key, value in settings.items())
        raise ConfigError(f"{name} cannot be made with {given or 'its defaults'}: {error}") from error
    assert isinstance(env, TextEnv)
    return env


def configured_env(config: EnvConfig) -> TextEnv:
    """The environment of a run's configuration; raises as `make_env` does."""
    return make_env(config.name, **config.settings())


def _own_class(name: str) -> type[TextEnv]:
    module, _, attribute = name.partition(":")
    # The console script, unlike `python -m`, does not look in the working directory.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's own may fail in any way
        raise ConfigError(f"cannot find the game {name}: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, TextEnv)):
        raise ConfigError(f"{name} is no subclass of actfocus.envs.TextEnv")
    # What our own games raise is a bug of ours: it keeps its traceback.
    return found if found.__module__.startswith("actfocus.") else guarded(found, name)  # type: ignore[arg-type]


__all__ = [
    "ENVIRONMENTS",
    "EVALUATION_SEEDS",
    "Reply",
    "TextEnv",
    "configured_env",
    "make_env",
    "parse_reply",
    "register_environments",
]
