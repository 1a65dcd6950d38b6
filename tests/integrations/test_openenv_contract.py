"""The seams of OpenEnv that we stand on; where one has moved, the message names the range."""

import inspect
from importlib.metadata import version
from typing import Any

import pytest

pytest.importorskip("openenv", reason="needs openenv: pip install 'actfocus[openenv]'")

from openenv.core import EnvClient
from openenv.core.client_types import StepResult
from openenv.core.env_server import Action, Environment, HTTPEnvServer, Observation, State, create_app
from openenv.core.env_server.serialization import serialize_observation

from actfocus.integrations.openenv import SUPPORTED, GameEnvironment, GameObservation

MESSAGE = (
    f"a seam of OpenEnv has moved: actfocus.integrations.openenv supports openenv{SUPPORTED}, and openenv"
    f" {version('openenv')} is installed. Install a supported one, or adapt the module and its range: "
)


def hold(condition: Any, seam: str) -> None:
    assert condition, MESSAGE + seam


SIGNATURES = {
    Environment.reset: ["self", "seed", "episode_id", "kwargs"],
    Environment.step: ["self", "action", "timeout_s", "kwargs"],
    EnvClient._step_payload: ["self", "action"],
    EnvClient._parse_result: ["self", "payload"],
    EnvClient._parse_state: ["self", "payload"],
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_names_and_order_of_arguments(function: Any) -> None:
    found = list(inspect.signature(function).parameters)
    hold(found == SIGNATURES[function], f"{function.__qualname__}{tuple(found)}")


def test_the_methods_that_are_ours_to_supply() -> None:
    hold(Environment.__abstractmethods__ == {"reset", "step", "state"}, "Environment's abstract methods")
    wanted = {"_step_payload", "_parse_result", "_parse_state"}
    hold(EnvClient.__abstractmethods__ == wanted, "EnvClient's abstract methods")


def test_arguments_of_the_application() -> None:
    found = list(inspect.signature(create_app).parameters)
    first = ["env", "action_cls", "observation_cls", "env_name", "max_concurrent_envs"]
    hold(found[:5] == first, f"create_app begins with {found[:5]}")
    hold("state_cls" in found, "create_app takes no state_cls")


def test_fields_of_the_base_classes() -> None:
    for kind, fields in {
        Action: {"metadata"},
        Observation: {"done", "reward", "metadata"},
        State: {"episode_id", "step_count"},
    }.items():
        hold(set(kind.model_fields) == fields, f"{kind.__name__} has the fields {set(kind.model_fields)}")
    found = list(StepResult.__dataclass_fields__)
    hold(found[:3] == ["observation", "reward", "done"], f"StepResult has the fields {found}")


def test_reward_and_end_stand_beside_the_observation() -> None:
    wire = serialize_observation(GameObservation(text="x", reward=0.5, done=True))
    hold((wire["reward"], wire["done"]) == (0.5, True), f"serialize_observation gives {wire}")
    hold("reward" not in wire["observation"], "reward stands in the observation too")


def test_the_server_reads_our_flags() -> None:
    """OpenEnv looks both up by name: renamed, they would be ignored without a word."""
    hold(GameEnvironment.SUPPORTS_CONCURRENT_SESSIONS is True, "our flag")
    for flag in ("SUPPORTS_CONCURRENT_SESSIONS", "REQUIRES_SINGLE_THREAD_EXECUTOR"):
        hold(getattr(Environment, flag, None) is False, f"Environment.{flag} is gone or no longer False")
        hold(flag in inspect.getsource(HTTPEnvServer), f"HTTPEnvServer does not look at {flag}")
