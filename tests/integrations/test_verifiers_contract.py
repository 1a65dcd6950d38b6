"""The seams of verifiers that we stand on; where one has moved, the message names the range."""

import inspect
from importlib.metadata import version
from typing import Any

import pytest

pytest.importorskip("verifiers", reason="needs verifiers: pip install 'actfocus[verifiers]'")

import verifiers.v1 as vf
from verifiers.v1.dialects.chat import message_to_wire

from actfocus.config import EnvConfig
from actfocus.integrations.verifiers import (
    GameEnv,
    GameEnvConfig,
    GameHarness,
    GameTask,
    GameTaskset,
    GameTasksetConfig,
)
from actfocus.integrations.verifiers.version import SUPPORTED

MESSAGE = (
    f"a seam of verifiers has moved: actfocus.integrations.verifiers supports verifiers{SUPPORTED}, and"
    f" verifiers {version('verifiers')} is installed. Install a supported one, or adapt the integration"
    " and its range in version.py. The seam: "
)

TASKSET_ID = "actfocus-games"


def hold(condition: Any, seam: str) -> None:
    assert condition, MESSAGE + seam


SIGNATURES = {
    vf.Env.run: ["self", "task", "agents"],
    vf.Taskset.load: ["self"],
    vf.Harness.launch: [
        "self", "ctx", "trace", "runtime", "endpoint", "secret", "mcp_urls", "data",
    ],
    vf.Harness.resolve_prompt: ["self", "task"],
    vf.Agent.interaction: ["self", "task", "runtime", "tools", "on_trace"],
    vf.Interaction.turn: ["self", "message"],
    vf.reward: ["func", "weight", "priority"],
    vf.metric: ["func", "priority"],
}  # fmt: skip


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_names_and_order_of_arguments(function: Any) -> None:
    found = list(inspect.signature(function).parameters)
    hold(found == SIGNATURES[function], f"{function.__qualname__}{tuple(found)}")


def test_fields_that_we_read_or_fill() -> None:
    for kind, fields in {
        vf.TaskData: {"idx", "name", "prompt", "system_prompt"},
        vf.TasksetConfig: {"id", "task", "system_prompt"},
        vf.SingleAgentEnvConfig: {"agent", "taskset", "id"},
        vf.AgentConfig: {"harness", "runtime", "max_turns"},
        vf.AssistantMessage: {"content", "reasoning_content"},
        vf.Trace: {"info", "rewards", "metrics"},
    }.items():
        missing = fields - set(kind.model_fields)
        hold(not missing, f"{kind.__name__} has no {missing}")
    segment = set(vf.Segment.__dataclass_fields__)
    hold(segment >= {"messages", "terminated"}, f"Segment has the fields {segment}")
    result = list(vf.ProgramResult.__dataclass_fields__)
    hold(result == ["exit_code", "stdout", "stderr"], f"ProgramResult has the fields {result}")
    for flag in ("APPENDS_SYSTEM_PROMPT", "SUPPORTS_RESUME", "EXECUTES_CODE", "NEEDS_CONTAINER"):
        hold(hasattr(vf.Harness, flag), f"Harness.{flag} is gone")


def test_verifiers_finds_our_classes_by_the_id() -> None:
    hold(vf.taskset_config_type(TASKSET_ID) is GameTasksetConfig, "taskset_config_type")
    hold(vf.task_type(TASKSET_ID) is GameTask, "task_type")
    hold(vf.environment_class(TASKSET_ID) is GameEnv, "environment_class")
    hold(vf.env_config_type(TASKSET_ID) is GameEnvConfig, "env_config_type")
    hold(vf.default_harness_id(TASKSET_ID) == TASKSET_ID, "the harness beside a taskset is not its default")
    taskset = vf.load_taskset(GameTasksetConfig(id=TASKSET_ID, game=EnvConfig(name="sudoku")))
    hold(isinstance(taskset, GameTaskset), "load_taskset")


def test_the_seat_needs_no_sandbox_and_no_tools() -> None:
    config = vf.resolve_env_config({"taskset": {"id": TASKSET_ID}})
    runtime = config.agent.runtime
    hold(isinstance(runtime, vf.SubprocessConfig), f"the seat's runtime is {runtime}")
    (harness,) = vf.load_environment(config)._harnesses.values()
    hold(isinstance(harness, GameHarness), f"the seat's harness is {harness}")


def test_messages_on_the_wire() -> None:
    """What the player sends back of an earlier turn."""
    reply = message_to_wire(vf.AssistantMessage(content="x", reasoning_content="y"))
    expected = {"role": "assistant", "content": "x", "reasoning_content": "y"}
    hold(reply == expected, f"message_to_wire gives {reply}")


def test_a_reward_of_weight_zero_is_recorded_and_does_not_count() -> None:
    hold(GameTask.success._vf_weight == 0, "the weight that vf.reward leaves on a method")
    hold(GameTask.episode_return._vf_weight == 1, "vf.reward's default weight")
