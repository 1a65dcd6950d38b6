"""Our environments as agent loops: the records they hand to verl are those of the episodes that were played.

The server samples from `tiny`; in the first tests it stands behind verl's load balancer, client and worker,
and its rows come off the queue. The environment is then played again with the replies that were sampled.
"""

import asyncio
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.experimental.agent_loop.agent_loop import DictConfigWrap

from actfocus.envs import EVALUATION_SEEDS, make_env
from actfocus.errors import ConfigError
from actfocus.integrations.verl.dataset import rows
from actfocus.integrations.verl.loop import LOOPS
from actfocus.integrations.verl.spans import KEY
from actfocus.models.registry import tiny_path
from actfocus.rollout.seeds import Stream, derive_seed
from tests.verl import readings
from tests.verl.config import composed
from tests.verl.tiny_rollout import Server


@pytest.fixture(scope="module")
def played(grpo: Any) -> list[dict[str, Any]]:
    return [row for row in readings.rows_of(grpo(readings.step)) if not readings.is_padding(row)]


def test_an_episode_can_be_played_again(played: list[dict[str, Any]]) -> None:
    """The same replies in the same level with the same luck: the same observations and the same return."""
    for row in played:
        level, member = row["extra_info"]["level"], row["session_id"]
        env = make_env("frozen-lake")
        chance = derive_seed(Stream.CHANCE, level, member, row["global_steps"])
        observation, _ = env.reset(seed=level, options={"chance_seed": chance})
        assert observation in readings.tokenizer().decode(row["prompts"])
        total, spans = 0.0, readings.replies(row)
        for turn, (start, end) in enumerate(spans):
            text = readings.tokenizer().decode(row["responses"][start:end], skip_special_tokens=True)
            observation, reward, terminated, truncated, _ = env.step(text)
            total += reward
            if turn + 1 < len(spans):
                assert observation in readings.tokenizer().decode(row["responses"][end : spans[turn + 1][0]])
                assert not terminated and not truncated
        assert row["rm_scores"].sum().item() == pytest.approx(total, abs=1e-6)


def test_the_last_token_was_sampled(played: list[dict[str, Any]]) -> None:
    """verl puts the reward there, and its GAE drops it where the token is masked."""
    for row in played:
        assert row["response_mask"][-1] == 1
        assert len(row["responses"]) <= 240
        assert not row["rm_scores"][:-1].any()


def test_a_group_shares_its_level_and_not_its_luck(played: list[dict[str, Any]]) -> None:
    levels: dict[str, set[int]] = {}
    for row in played:
        levels.setdefault(row["keys"].rsplit("_", 2)[0], set()).add(row["extra_info"]["level"])
    assert len(levels) == 4 and all(len(each) == 1 for each in levels.values())
    assert len({row["session_id"] for row in played}) == 4


def test_logprobs_are_those_of_the_server(played: list[dict[str, Any]]) -> None:
    """Those that verl's actor computes of the same tokens, at the same weights."""
    for row in played:
        sampled = row["response_mask"].bool()
        assert (row["rollout_log_probs"] - row["old_log_probs"])[sampled].abs().max() < 1e-3


def model_of(env: str) -> str:
    """The `tiny` that speaks the wording of the game."""
    return str(tiny_path(env))


GAMES = ["frozen-lake", "sokoban", "sudoku", "webshop"]


class Direct:
    """The server's own `generate`, as verl's client offers it."""

    def __init__(self, env: str) -> None:
        self.server = Server(model_of(env), seed=1)

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any:
        return self.server.generate(prompt_ids, sampling_params, request_id)


SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": False}


def loop(env: str, *, prompt: int = 4000, response: int = 500, **settings: Any) -> Any:
    """The loop as verl's worker makes it."""
    (entry,) = [each for each in OmegaConf.load(LOOPS) if each.name == env]
    config = composed(f"data.max_prompt_length={prompt}", f"data.max_response_length={response}")

    async def make() -> Any:
        return instantiate(
            OmegaConf.merge(entry, settings),
            trainer_config=DictConfigWrap(config),
            server_manager=Direct(env),
            tokenizer=AutoTokenizer.from_pretrained(model_of(env)),
            processor=None,
            hf_model_type=None,
            dataset_cls=None,
            data_config=DictConfigWrap(config.data),
            tools=DictConfigWrap(None),
        )

    return make


def run(made: Any, row: dict[str, Any], **kwargs: Any) -> tuple[Any, list[dict[str, Any]]]:
    async def play() -> tuple[Any, list[dict[str, Any]]]:
        game = await made()
        output = await game.run(dict(SAMPLING), **row, **kwargs)
        return output, game.server_manager.server.calls

    return asyncio.run(play())


@pytest.mark.parametrize("env", GAMES)
def test_each_environment(env: str) -> None:
    output, calls = run(loop(env, reply=120), rows(env, "train", 1)[0], session_id=1, global_steps=3)
    assert len(output.response_ids) == len(output.response_mask) <= 500
    assert output.response_mask[-1] == 1 and output.response_logprobs is None
    assert output.extra_fields[KEY].keys() == {"reasoning", "action"}
    assert 0 <= output.extra_fields["reward_extra_info"]["success"] <= 1
    whole = output.prompt_ids + output.response_ids
    assert output.num_turns == 2 * len(calls) > 0
    assert len({call["request"] for call in calls}) == 1
    for call in calls:
        assert call["prompt"] == whole[: len(call["prompt"])]
        assert call["max_tokens"] <= 120
        assert len(call["prompt"]) + call["max_tokens"] <= len(output.prompt_ids) + 500


@pytest.mark.parametrize("env", GAMES)
def test_action_spans_are_what_stands_between_the_tags(env: str) -> None:
    """Each span of an action, decoded, is the text of one <answer>…</answer>; none is left out."""
    output, _ = run(loop(env, response=900), rows(env, "train", 1)[0], session_id=0, global_steps=1)
    tokenizer, ids = AutoTokenizer.from_pretrained(model_of(env)), output.response_ids
    found = {
        name: [tokenizer.decode(ids[start:end]) for start, end in spans]
        for name, spans in output.extra_fields[KEY].items()
    }
    written = [
        readings.well_formed(tokenizer.decode(ids[start:end], skip_special_tokens=True))
        for start, end in readings.replies({"response_mask": torch.tensor(output.response_mask)})
    ]
    assert found["action"] == [reply.group(2) for reply in written if reply]
    assert found["reasoning"] == [reply.group(1) for reply in written if reply]
    assert found["action"] and all(text.strip() for text in found["action"])


def test_an_evaluation_is_the_same_at_every_step() -> None:
    """Its luck does not depend on the step; that of training does."""

    def replies(row: dict[str, Any], member: int, step: int) -> list[int]:
        made = loop("frozen-lake", reply=60, settings={"success_rate": 0.4})
        return run(made, row, session_id=member, global_steps=step)[0].response_ids

    results = {}
    for split in ("train", "test"):
        row = rows("frozen-lake", split, 1)[0]
        results[split] = [[replies(row, member, step) for member in range(4)] for step in (1, 2)]
    assert results["test"][0] == results["test"][1]
    assert results["train"][0] != results["train"][1]


def test_levels_of_training_and_evaluation_differ() -> None:
    train, test = rows("sokoban", "train", 50), rows("sokoban", "test", 50)
    assert all(row["extra_info"]["level"] not in EVALUATION_SEEDS for row in train)
    assert [row["extra_info"]["level"] for row in test] == list(range(50))
    assert len({row["extra_info"]["level"] for row in train}) == 50
    assert rows("sokoban", "train", 3, seed=1) != rows("sokoban", "train", 3)
    assert {row["agent_name"] for row in train} == {"sokoban"}
    assert all(np.iinfo(np.int64).max >= row["extra_info"]["level"] for row in train)


def test_mistakes_are_said() -> None:
    row = rows("frozen-lake", "train", 1)[0]
    with pytest.raises(
        ConfigError, match=r"first prompt has \d+ tokens, more than data.max_prompt_length = 20"
    ):
        run(loop("frozen-lake", prompt=20), row)
    with pytest.raises(ConfigError, match="names no level"):
        run(loop("frozen-lake"), {**row, "extra_info": {"index": 0}})
    with pytest.raises(Exception, match="success_rate"):
        run(loop("frozen-lake", settings={"success_rate": 2}), row)
