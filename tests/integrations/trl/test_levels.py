"""Levels for training and for evaluation: no level seed is in both, and each evaluates on the same ones."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actfocus.envs import EVALUATION_SEEDS
from actfocus.errors import ConfigError
from actfocus.integrations.trl import EnvironmentRollout, GameTools
from actfocus.rollout.seeds import evaluation_starts
from tests.integrations.trl.scripted import trainer


def of_rollout(seed: int, rows: int, **split: Any) -> list[int]:
    made = EnvironmentRollout("frozen-lake", context=420, response=60, seed=seed)
    prompts = made.dataset(rows, **split)["prompt"]
    return [int(re.fullmatch(r"frozen-lake level (\d+)", prompt)[1]) for prompt in prompts]  # type: ignore[index]


def of_tools(seed: int, rows: int, **split: Any) -> list[int]:
    return list(GameTools("frozen-lake", seed=seed).dataset(rows, **split)["level"])


@pytest.mark.parametrize("levels", [of_rollout, of_tools])
def test_no_level_seed_is_in_both(levels: Callable[..., list[int]]) -> None:
    for seed in (0, 1):
        training, evaluation = levels(seed, 500), levels(seed, 500, split="evaluation")
        assert len({*training, *evaluation}) == 1000
        assert training == levels(seed, 500, split="train")
        assert not any(level in EVALUATION_SEEDS for level in training)
        # Those of `actfocus eval`, whatever the seed of the training is.
        assert evaluation == [start.level_seed for start in evaluation_starts(500, 1)]
    with pytest.raises(ConfigError, match="'train' or 'evaluation', not 'eval'"):
        levels(0, 2, split="eval")
    for rows in (0, -5):
        for split in ("train", "evaluation"):
            with pytest.raises(ConfigError, match=f"at least one level, not {rows}"):
                levels(0, rows, split=split)


def test_an_evaluation_plays_them(tmp_path: Path) -> None:
    rollout = EnvironmentRollout("frozen-lake", context=420, response=60, turns=1)
    made = trainer(tmp_path, rollout_func=rollout, per_device_eval_batch_size=8)
    played = []
    name_starts = rollout._starts

    def watch(prompts: Any, trainer: Any) -> Any:
        starts = name_starts(prompts, trainer)
        played.extend(starts)
        return starts

    rollout._starts = watch  # type: ignore[method-assign]
    figures = made.evaluate(rollout.dataset(2, split="evaluation"))
    assert {start.level_seed for start in played} == {0, 1} and len(played) == 8
    assert "eval_rewards/episode_return/mean" in figures and "eval_focus/action_share" in figures
