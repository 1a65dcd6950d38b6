"""Our environments as `rollout_func`: whole episodes with a real end, and TRL trains on what was sampled."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from actfocus.envs import TextEnv, make_env
from actfocus.errors import ConfigError
from actfocus.focus import SAMPLED_ROLES, Role
from actfocus.integrations.trl import EnvironmentRollout, FocusConfig, episode_return
from actfocus.integrations.trl import trainer as trainer_module
from actfocus.integrations.trl.rollout import as_trl, play_with
from actfocus.models.language_model import LanguageModel
from actfocus.rollout.sampler import Limits, sample_episodes
from actfocus.rollout.trajectory import Trajectory
from tests.integrations.trl.scripted import MODEL, MUTATIONS, chat, trainer

LIMITS = Limits(context=420, response=60)


def two_turns() -> TextEnv:
    return make_env("frozen-lake", turns=2, success_rate=1.0)


def make_rollout(**settings: Any) -> EnvironmentRollout:
    given = {"context": LIMITS.context, "response": LIMITS.response, "turns": 2, "success_rate": 1.0}
    return EnvironmentRollout("frozen-lake", **{**given, **settings})


def made_with(rollout: EnvironmentRollout, out: Path, **settings: Any) -> Any:
    made = trainer(out, rollout_func=rollout, reward_funcs=episode_return, **settings)
    made.train_dataset = rollout.dataset(8)
    return made


def trained(rollout: EnvironmentRollout, out: Path, **settings: Any) -> tuple[Any, list[Trajectory]]:
    """A trainer after one step, and the episodes as our own sampler records them."""
    made = made_with(rollout, out, **settings)
    starts = []
    name_starts = rollout._starts

    def watch(prompts: Any, trainer: Any) -> Any:
        starts.extend(name_starts(prompts, trainer))
        return starts

    rollout._starts = watch  # type: ignore[method-assign]
    made.train()
    first = LanguageModel(AutoModelForCausalLM.from_pretrained(MODEL))
    return made, sample_episodes(first, chat(), two_turns, starts, limits=LIMITS)


def rows(made: Any) -> dict[tuple[int, ...], list[int]]:
    """Ids of each completion that TRL holds, with the roles that were found in it."""
    found = {}
    for batch in made._buffered_inputs:
        for ids, mask, roles in zip(
            batch["completion_ids"], batch["completion_mask"], batch["focus_roles"], strict=True
        ):
            count = int(mask.sum())
            found[tuple(ids[:count].tolist())] = roles[:count].tolist()
    return found


def test_trl_trains_on_the_tokens_and_roles_that_our_sampler_recorded(tmp_path: Path) -> None:
    made, records = trained(make_rollout(), tmp_path)
    found = rows(made)
    turns = set()
    for record in records:
        first = next(t for t, role in enumerate(record.roles) if role != Role.CONTEXT)
        assert found[tuple(record.ids[first:])] == record.roles[first:]
        turns.add(len(record.rewards))
        assert record.ended in ("terminated", "truncated")
    assert 2 in turns and len(records) == 8
    logged = made.state.log_history[0]
    counts = Counter(role for record in records for role in record.roles)
    tokens = sum(counts[role] for role in SAMPLED_ROLES.values())
    assert counts[Role.ACTION] != counts[Role.REASONING] != counts[Role.OTHER]
    assert logged["focus/action_share"] == pytest.approx(counts[Role.ACTION] / tokens)
    assert logged["focus/reasoning_share"] == pytest.approx(counts[Role.REASONING] / tokens)
    assert 1 < logged["focus/action_weight"] < 1.5
    weight = 0.1 * (tokens - counts[Role.ACTION]) + logged["focus/action_weight"] * counts[Role.ACTION]
    assert logged["focus/weight_per_token"] == pytest.approx(weight / tokens, rel=1e-5)
    rewards = logged["rewards/episode_return/mean"]
    assert rewards == pytest.approx(sum(record.total_return for record in records) / 8, abs=1e-6)
    # The members of a group share the level and not the luck.
    assert len({record.start.level_seed for record in records}) == 2
    assert len({record.start.sampling_seed for record in records}) == 8


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_wrong_roles_would_show(mutation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = MUTATIONS[mutation](trainer_module.completion_roles)
    monkeypatch.setattr(trainer_module, "completion_roles", wrong)
    made, records = trained(make_rollout(), tmp_path, focus=FocusConfig(beta=0))
    found = rows(made)
    wrongly = [
        found[tuple(record.ids[first:])] != record.roles[first:]
        for record in records
        for first in [next(t for t, role in enumerate(record.roles) if role != Role.CONTEXT)]
    ]
    assert sum(wrongly) > 4  # a malformed reply has one role alone


def test_generation_of_the_trainer_plays_the_same_way(tmp_path: Path) -> None:
    """The loop that vLLM takes, on TRL's own generation: greedy, it writes what our sampler writes."""
    rollout = make_rollout()
    made = made_with(rollout, tmp_path, max_completion_length=LIMITS.response)
    made.generation_config.do_sample = False
    made.generation_config.temperature = made.generation_config.top_k = made.generation_config.top_p = None
    starts = rollout._starts([row["prompt"] for row in rollout.dataset(4)], made)
    found = play_with(made, chat(), two_turns, starts, LIMITS)
    expected = sample_episodes(
        LanguageModel(made.model), chat(), two_turns, starts, limits=LIMITS, temperature=0
    )
    for one, other in zip(found, expected, strict=True):
        assert (one.ids, one.roles, one.rewards, one.ended) == (
            other.ids,
            other.roles,
            other.rewards,
            other.ended,
        )
    assert as_trl(found, with_logprobs=False)["logprobs"] is None
    assert all(math.isnan(value) for record in found for value in sampled(record, record.logprobs))
    assert as_trl(expected, with_logprobs=True)["logprobs"] is not None
    # Continuous batching knows none: TRL must not take NaN for what was sampled with.
    expected[-1].logprobs[-1] = math.nan
    assert as_trl(expected, with_logprobs=True)["logprobs"] is None


def sampled(record: Trajectory, figures: list[float]) -> list[float]:
    """The figures of the tokens that the model sampled."""
    return [figure for figure, role in zip(figures, record.roles, strict=True) if role != Role.CONTEXT]


def test_log_probabilities_of_the_trainers_generation_stay_on_their_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM gives some; here every sampled token of every episode has one of its own."""
    rollout = make_rollout()
    made = made_with(rollout, tmp_path, max_completion_length=LIMITS.response)
    generate, said = made._generate_single_turn, []

    def with_logprobs(contexts: Any, *rest: Any) -> Any:
        replies, _ = generate(contexts, *rest)
        logprobs = [
            [-1.0 - 100 * len(said) - row - place / 1000 for place in range(len(reply))]
            for row, reply in enumerate(replies)
        ]
        said.append(([list(context) for context in contexts], replies, logprobs))
        return replies, logprobs

    monkeypatch.setattr(made, "_generate_single_turn", with_logprobs)
    starts = rollout._starts([row["prompt"] for row in rollout.dataset(6)], made)
    found = play_with(made, chat(), two_turns, starts, LIMITS)
    for contexts, replies, logprobs in said:
        for context, reply, values in zip(contexts, replies, logprobs, strict=True):
            end = len(context) + len(reply)
            (record,) = [record for record in found if record.ids[:end] == [*context, *reply]]
            assert record.logprobs[len(context) : end] == values
    for record in found:
        known = [value != 0 for value in record.logprobs]
        assert known == [role != Role.CONTEXT for role in record.roles]
        first = known.index(True)
        assert as_trl([record], with_logprobs=True)["logprobs"] == [record.logprobs[first:]]
    assert len({len(contexts) for contexts, *_ in said}) > 1, "no episode ended before the others"


def test_log_probabilities_are_given_where_they_are_those_of_the_sampler(tmp_path: Path) -> None:
    rollout = make_rollout(turns=1)
    made = made_with(rollout, tmp_path, temperature=1.0)
    output = rollout([row["prompt"] for row in rollout.dataset(2)], made)
    for prompt, ids, logprobs, mask in zip(
        output["prompt_ids"], output["completion_ids"], output["logprobs"], output["env_mask"], strict=True
    ):
        whole = torch.tensor([prompt + ids])
        expected = made.model(input_ids=whole).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = expected.gather(-1, torch.tensor(ids)[:, None])[:, 0]
        assert all(mask) and logprobs == pytest.approx(expected.tolist(), abs=1e-3)
    made.temperature = 0.7
    assert rollout([rollout.dataset(1)[0]["prompt"]], made)["logprobs"] is None


def test_a_level_that_comes_again_is_played_with_other_luck(tmp_path: Path) -> None:
    rollout = make_rollout()
    made = made_with(rollout, tmp_path)
    prompts = [row["prompt"] for row in rollout.dataset(2)]
    one, two = rollout._starts(prompts, made), rollout._starts(prompts, made)
    assert [start.level_seed for start in one] == [start.level_seed for start in two]
    assert not {start.sampling_seed for start in one} & {start.sampling_seed for start in two}


def test_what_cannot_be_played_is_refused(tmp_path: Path) -> None:
    rollout = make_rollout()
    made = made_with(rollout, tmp_path)
    prompts = [row["prompt"] for row in rollout.dataset(2)]
    with pytest.raises(ConfigError, match="names no level"):
        rollout(["Go."], made)
    with pytest.raises(ConfigError, match="a context of 20 leaves no room"):
        make_rollout(context=20)(prompts, made)
    with pytest.raises(ConfigError, match=r"cannot be made with turns = 0"):
        make_rollout(turns=0)
    made.top_k = 5
    with pytest.raises(ConfigError, match="leave top_k at its default"):
        rollout(prompts, made)
