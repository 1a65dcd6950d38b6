"""Demonstrations, promises: their roles are exact, reasoning fills most of a reply, the share of chance moves
is as set, their levels are not those of evaluation, and a model can learn from them.
"""

import errno
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from actfocus.config import EnvConfig, ModelConfig, WarmstartConfig
from actfocus.envs import EVALUATION_SEEDS, make_env, parse_reply
from actfocus.errors import NonFiniteError
from actfocus.focus import Role
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.models.loading import load
from actfocus.report.progress import SilentProgress
from actfocus.rollout.batch import Batch
from actfocus.rollout.seeds import Stream, derive_seed
from actfocus.rollout.trajectory import Trajectory
from actfocus.training.demonstrations import demonstration, demonstration_texts
from actfocus.training.warmstart import _update, imitate, warmstart
from tests.training.conftest import lessons


@pytest.fixture(params=["frozen-lake", "sokoban", "sudoku"])
def config(request: pytest.FixtureRequest) -> WarmstartConfig:
    return WarmstartConfig(env=EnvConfig(name=request.param))


def replies(record: Trajectory) -> list[tuple[list[int], list[int]]]:
    """Ids and roles of what was sampled, turn by turn."""
    found = []
    for turn in sorted(set(record.turns)):
        where = [
            t for t, (own, role) in enumerate(zip(record.turns, record.roles, strict=True))
            if own == turn and role != Role.CONTEXT
        ]  # fmt: skip
        found.append(([record.ids[t] for t in where], [record.roles[t] for t in where]))
    return found


def test_roles_are_exact(config: WarmstartConfig, loaded: tuple[LanguageModel, Chat]) -> None:
    chat = loaded[1]
    for episode in range(20):
        record, pairs = demonstration(config, chat, episode), demonstration_texts(config, episode)
        assert len(replies(record)) == len(pairs)
        for (ids, roles), (_, text) in zip(replies(record), pairs, strict=True):
            reply = parse_reply(text)
            assert reply.error is None
            assert chat.decode(ids)[0] == text
            for role, span in ((Role.ACTION, reply.action), (Role.REASONING, reply.reasoning)):
                assert span is not None
                written = chat.decode([i for i, r in zip(ids, roles, strict=True) if r == role])[0]
                assert written.strip() == text[slice(*span)].strip()
            assert roles[-1] == Role.OTHER  # the end of the turn
            tags = [i for i, r in zip(ids, roles, strict=True) if r == Role.OTHER]
            assert chat.decode(tags)[0] == "<think></think><answer></answer>"


def test_replies_are_what_the_game_was_answered(
    config: WarmstartConfig, loaded: tuple[LanguageModel, Chat]
) -> None:
    """The record reads, as text, like the conversation that the environment had."""
    chat = loaded[1]
    env = make_env(config.env.name)
    record, pairs = demonstration(config, chat, 3), demonstration_texts(config, 3)
    expected = chat.opening(env.system_prompt, pairs[0][0])
    for turn, (observation, text) in enumerate(pairs):
        if turn:
            expected += chat.next_turn(observation, reply_ended=True)
        expected += chat.encode_reply(text)
    assert record.ids == expected


def test_reasoning_fills_most_of_a_reply(config: WarmstartConfig, loaded: tuple[LanguageModel, Chat]) -> None:
    counts: Counter[int] = Counter()
    for episode in range(60):
        counts.update(demonstration(config, loaded[1], episode).roles)
    sampled = counts.total() - counts[Role.CONTEXT]
    assert counts[Role.REASONING] / sampled >= 0.85
    assert 0.01 < counts[Role.ACTION] / sampled < 0.16


def played(config: WarmstartConfig, episodes: int) -> tuple[float, float]:
    """Share of turns whose first action is the expert's, and share of the episodes that succeed."""
    expert, turns, successes = 0, 0, 0
    for episode in range(episodes):
        env = make_env(config.env.name, **config.env.settings())
        env.reset(seed=derive_seed(Stream.LEVEL, config.seed, episode))
        for _, text in demonstration_texts(config, episode):
            turns += 1
            actions = parse_reply(text).actions
            expert += list(actions) == env.expert_actions()[: len(actions)]
            env.step(text)
        successes += env.success
    return expert / turns, successes / episodes


def test_random_share_0_is_the_expert_alone(config: WarmstartConfig) -> None:
    expert, success = played(config.model_copy(update={"random_share": 0.0}), 30)
    assert expert == 1
    if config.env.name != "frozen-lake":  # there the expert may slip
        assert success >= 0.7  # or run out of turns


def test_random_share_is_a_share(config: WarmstartConfig) -> None:
    none, half, all_ = (
        played(config.model_copy(update={"random_share": share}), 60)[0] for share in (0.0, 0.5, 1.0)
    )
    # A random move is now and then the expert's.
    assert none == 1
    assert all_ < 0.6
    assert (1 + all_) / 2 == pytest.approx(half, abs=0.12)


def test_levels_are_not_those_of_evaluation(monkeypatch: pytest.MonkeyPatch, config: WarmstartConfig) -> None:
    from actfocus.training import demonstrations

    seeds = []
    env = make_env(config.env.name)
    original = type(env).reset

    def reset(self: object, *, seed: int, **options: object) -> object:
        seeds.append(seed)
        return original(self, seed=seed, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(env), "reset", reset)
    for episode in range(50):
        demonstrations.demonstration_texts(config, episode)
    assert len(set(seeds)) == 50
    assert not [seed for seed in seeds if seed in EVALUATION_SEEDS]


def test_plain_episodes_come_first_and_are_one_turn_in_one_wording(config: WarmstartConfig) -> None:
    config = config.model_copy(update={"plain_share": 0.5, "episodes": 40})
    turns = [len(demonstration_texts(config, episode)) for episode in range(40)]
    assert set(turns[:20]) == {1}
    assert max(turns[20:]) > 1
    first_words = []
    for episode in range(40):
        _, reply = demonstration_texts(config, episode)[0]
        reasoning = parse_reply(reply).reasoning
        assert reasoning is not None
        first_words.append(reply[slice(*reasoning)].split()[0])
    assert len(set(first_words[:20])) < len(set(first_words[20:]))


def test_demonstrations_are_fixed_by_seed_and_episode(config: WarmstartConfig) -> None:
    assert demonstration_texts(config, 4) == demonstration_texts(config, 4)
    assert demonstration_texts(config, 4) != demonstration_texts(config, 5)
    assert demonstration_texts(config, 4) != demonstration_texts(config.model_copy(update={"seed": 1}), 4)


def test_the_evaluation_at_the_end_can_be_smaller_or_left_out(model_folder: object, tmp_path: Path) -> None:
    def warm(states: int) -> dict[str, Any]:
        config = lessons(str(model_folder), episodes=8, evaluation_states=states)
        return warmstart(config, tmp_path / str(states), progress=SilentProgress())

    assert len(EVALUATION_SEEDS) == 1_000_000  # the limit of the setting
    none, some = warm(0), warm(2)
    assert none["success"] is None
    assert (tmp_path / "0" / "config.json").is_file()
    assert some["success"].items() >= {"step": 1, "episodes": 8}.items()
    assert some["loss"] == none["loss"] > 0


def test_a_model_that_reads_less_than_an_episode_may_have_is_evaluated_all_the_same(
    model_folder: Path, tmp_path: Path
) -> None:
    """A warm start has no setting of the context, so its evaluation takes what the model reads."""
    shutil.copytree(model_folder, tmp_path / "short")
    path = tmp_path / "short" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 700}))
    config = lessons(str(tmp_path / "short"), episodes=8, evaluation_states=2)
    assert warmstart(config, tmp_path / "warm", progress=SilentProgress())["success"]["episodes"] == 8


def test_a_full_disk_leaves_no_half_of_a_model(
    model_folder: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lessons(str(model_folder), episodes=8, evaluation_states=0)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"{warmstart.__module__}.wording_digest", full)
        with pytest.raises(OSError, match="No space left"):
            warmstart(config, tmp_path / "warm", progress=SilentProgress())
    assert not list(tmp_path.iterdir())
    warmstart(config, tmp_path / "warm", progress=SilentProgress())
    assert [path.name for path in tmp_path.iterdir()] == ["warm"]


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    model_folder: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last update no loss would tell it."""
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    config = lessons(str(model_folder), episodes=8, evaluation_states=0)
    with pytest.raises(NonFiniteError, match="gradient is not finite"):
        warmstart(config, tmp_path / "warm", progress=SilentProgress())
    assert not list(tmp_path.iterdir())


def test_a_few_updates_lower_the_loss(model_folder: object) -> None:
    """The tests' model knows the format; what it has not seen is longer reasoning."""
    policy, chat = load(ModelConfig(name=str(model_folder)))
    config = lessons(str(model_folder), remarks=4, episodes=64, lr=3e-3)
    losses = imitate(policy, chat, config, SilentProgress())
    assert len(losses) == 8
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])


@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_do_not_change_the_update(model_folder: object, size: int) -> None:
    def gradient(micro_batch: int) -> tuple[torch.Tensor, list[float]]:
        policy, chat = load(ModelConfig(name=str(model_folder)))
        config = lessons(
            str(model_folder), episodes=8, micro_batch=micro_batch, context_weight=0.3, action_weight=4.0
        )
        losses = imitate(policy, chat, config, SilentProgress())
        return torch.cat(
            [each.grad.flatten() for each in policy.parameters() if each.grad is not None]
        ), losses

    (whole, loss), (parts, same) = gradient(8), gradient(size)
    assert same == pytest.approx(loss, rel=1e-6)
    assert (parts - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize("context_weight", [0.0, 0.3])
@pytest.mark.parametrize("micro_batch", [5, 12])
def test_an_update_weighs_every_token_by_its_own_role(
    small: LanguageModel, small_episodes: Batch, context_weight: float, micro_batch: int
) -> None:
    """Loss and direction of the gradient are those of a sum by hand, and not those of wrong roles."""
    config = lessons(context_weight=context_weight, action_weight=4.0, micro_batch=micro_batch)
    parameters = small.parameters()

    def by_hand(roles: list[list[int]]) -> tuple[torch.Tensor, float]:
        weight_of = {Role.CONTEXT: context_weight, Role.REASONING: 1.0, Role.ACTION: 4.0, Role.OTHER: 1.0}
        total, said = torch.zeros((), dtype=torch.float64), []
        for ids, length, row in zip(
            small_episodes.ids_BT, small_episodes.lengths_B.tolist(), roles, strict=True
        ):
            logits = small.causal_lm(input_ids=ids[None, :length]).logits[0]
            for t in range(1, length):
                loss = logits[t - 1].logsumexp(-1) - logits[t - 1, ids[t]]
                total = total + weight_of[Role(row[t])] * loss
                if row[t] != Role.CONTEXT:
                    said.append(loss.item())
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(total, parameters)])
        return gradient / gradient.norm(), sum(said) / len(said)

    loss = _update(small, torch.optim.SGD(parameters, lr=0.0), small_episodes, config, parameters)
    found = torch.cat([part.grad.flatten() for part in parameters if part.grad is not None])
    found = found / found.norm()  # it is clipped
    roles = small_episodes.roles_BT.tolist()
    direction, said = by_hand(roles)
    assert loss == pytest.approx(said, rel=1e-12)
    assert (found - direction).norm() < 1e-7  # the weights are in single precision
    swapped = {Role.REASONING: Role.ACTION, Role.ACTION: Role.REASONING}
    for wrong in (
        [[0, *row[:-1]] for row in roles],
        [[*row[1:], 0] for row in roles],
        [[swapped.get(Role(role), role) for role in row] for row in roles],
    ):
        assert (found - by_hand(wrong)[0]).norm() > 1e-2
