"""What a run would need: sane, and its parts add up."""

from collections.abc import Callable

import pytest

from actfocus.config import Config
from actfocus.models.loading import load
from actfocus.training.plan import plan

MakeConfig = Callable[..., Config]


def test_a_plan_is_sane(make_config: MakeConfig) -> None:
    config = make_config(algorithm={"name": "ppo"})
    found = plan(config)
    assert found["episodes_per_step"] == 8
    assert found["updates_per_step"] == 2
    assert found["evaluation_episodes"] == 6
    assert found["tokens_per_step_at_most"] == 8 * 520
    parameters = sum(p.numel() for p in load(config.model)[0].parameters())
    assert found["parameters"] == parameters
    assert found["memory_bytes"] > 2 * 4 * 4 * parameters  # two networks, gradients and Adam's averages
    wider = make_config(algorithm={"name": "ppo"}, rollout={"context": 5200})
    assert plan(wider)["memory_bytes"] > found["memory_bytes"]


@pytest.mark.parametrize("context", [520, 5200])
@pytest.mark.parametrize("micro_batch", [1, 8])
def test_the_memory_of_a_plan_adds_up(make_config: MakeConfig, context: int, micro_batch: int) -> None:
    """A reader who adds the printed parts gets the printed total, whichever of the two takes more."""
    settings = {"rollout": {"context": context}, "optimizer": {"micro_batch": micro_batch}}
    found = plan(make_config(**settings))
    assert sum(found["memory_parts"].values()) == found["memory_bytes"]
    sampling, update = (sum(found[f"memory_while_{what}"].values()) for what in ("sampling", "updating"))
    assert found["memory_parts"]["larger_of_sampling_and_updating"] == max(sampling, update)


def test_measuring_gradients_takes_memory_that_can_be_saved(make_config: MakeConfig) -> None:
    found, without = plan(make_config()), plan(make_config(gradients_every=0))
    parts = [each["memory_while_updating"]["gradients_per_role"] for each in (found, without)]
    assert parts == [9 * 4 * found["trained_parameters"], 0]
