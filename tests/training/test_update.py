"""Updates, promises:

1. Loss and gradients are those of the method, computed by hand from full logits, for both algorithms.
2. How a mini-batch is split into micro-batches changes neither, to 1e-10.
3. KL and entropy weigh 1 on every sampled token; only the surrogate is weighted.
4. Σw = 0 skips the update and is counted; nothing moves.
5. Anything not finite stops before a parameter or Adam's state moves.
"""

import math
from collections.abc import Callable

import pytest
import torch

from actfocus.config import Config
from actfocus.distributed import Processes
from actfocus.errors import NonFiniteError
from actfocus.focus import Role
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.rollout.batch import Batch
from actfocus.training.update import Updater, learning_rate_factor
from tests.training.by_hand import Figures, Roles, Scene, gradients_of, loss_of, ratios, set_scene
from tests.training.conftest import double

MakeConfig = Callable[..., Config]
MakeScene = Callable[..., Scene]

STILL = {"lr": 1e-300, "max_grad_norm": 1e9, "mini_batch": 32, "micro_batch": 32}
"""Nothing moves and nothing is clipped, so that the gradient can be read off after the update."""

GRPO = {"name": "grpo", "kl_coefficient": 0.3, "kl_estimator": "k3", "entropy_bonus": 0.05}
PPO = {
    "name": "ppo", "kl_coefficient": 0.2, "kl_estimator": "k1", "entropy_bonus": 0.05,
    "critic_lr": 1e-300, "value_clip": 0.05,
}  # fmt: skip


@pytest.fixture
def make_scene(
    make_config: MakeConfig,
    loaded: tuple[LanguageModel, Chat],
    processes: Processes,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> MakeScene:
    # The critic's head computes in float32 on purpose; here it shall keep its float64.
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)

    def make(algorithm: dict[str, object], **optimizer: object) -> Scene:
        focus = {"alpha": 0.1, "beta": 0.5}
        config = make_config(algorithm=algorithm, focus=focus, optimizer={**STILL, **optimizer})
        return set_scene(config, loaded, processes, double(batch))

    return make


def shifted(roles: Roles) -> Roles:
    return [[*row[1:], row[0]] for row in roles]


def inverted(roles: Roles) -> Roles:
    swap = {Role.REASONING: Role.ACTION, Role.ACTION: Role.REASONING, Role.OTHER: Role.OTHER}
    return [[int(swap[Role(role)]) for role in row] for row in roles]


@pytest.mark.parametrize("algorithm", [GRPO, PPO], ids=["grpo", "ppo"])
def test_loss_and_gradients_are_those_by_hand(algorithm: dict[str, object], make_scene: MakeScene) -> None:
    scene = make_scene(algorithm)
    metrics = scene.updater.update(scene.batch, step=1)
    everyone = list(range(len(scene.batch)))
    terms = loss_of(scene, everyone, scene.roles())
    compared = ["policy_loss", "entropy", "kl_loss"] + (["value_loss"] if scene.critic else [])
    for name in compared:
        assert metrics[name] == pytest.approx(terms[name].item(), abs=1e-11), name
    assert 0 < metrics["clip_fraction"] < 1  # the scene is not a trivial one
    assert {Role.CONTEXT, Role.REASONING, Role.ACTION, Role.OTHER} == set(
        scene.batch.roles_BT.unique().tolist()
    )
    expected = gradients_of(scene, terms["total"])
    assert (scene.gradients() - expected).abs().max() <= 1e-10
    assert expected.abs().max() > 1e-2
    # A wrong role anywhere would show.
    for wrong in (shifted, inverted):
        other = gradients_of(scene, loss_of(scene, everyone, wrong(scene.roles()))["total"])
        assert (scene.gradients() - other).abs().max() > 1e-3, wrong.__name__


@pytest.mark.parametrize("algorithm", [GRPO, PPO], ids=["grpo", "ppo"])
def test_ratios_and_clip_fractions_are_those_of_each_role(
    algorithm: dict[str, object], make_scene: MakeScene
) -> None:
    scene = make_scene(algorithm, micro_batch=3)
    metrics = scene.updater.update(scene.batch, step=1)

    def differs(roles: Roles) -> bool:
        found = ratios(scene, roles).items()
        expected = {f"{name}{suffix}": figure for suffix, row in found for name, figure in row.items()}
        return {name: metrics[name] for name in expected} != pytest.approx(expected, abs=1e-9)

    assert not differs(scene.roles())
    assert differs(shifted(scene.roles())) and differs(inverted(scene.roles()))
    # As recorded, token by token.
    now = Figures(scene.policy, scene.critic, scene.batch).detached()
    expected_N = (torch.cat(now.logprobs) - torch.cat(scene.old.logprobs)).exp()
    assert scene.batch.ratio_BT is not None
    assert (scene.batch.ratio_BT[scene.batch.sampled_BT] - expected_N).abs().max() <= 1e-9
    assert (scene.batch.ratio_BT[~scene.batch.sampled_BT] == 0).all()


def test_a_role_without_weight_is_in_no_metric_but_is_recorded(make_scene: MakeScene) -> None:
    scene = make_scene(GRPO)
    assert scene.batch.weights_BT is not None
    is_reasoning_BT = scene.batch.roles_BT == Role.REASONING
    scene.batch.weights_BT[is_reasoning_BT] = 0
    metrics = scene.updater.update(scene.batch, step=1)
    assert "ratio_action" in metrics and "ratio_reasoning" not in metrics
    assert scene.batch.ratio_BT is not None
    assert (scene.batch.ratio_BT[is_reasoning_BT] != 1).double().mean() > 0.9


def test_a_skipped_update_leaves_the_ratio_at_one(make_scene: MakeScene) -> None:
    scene = make_scene(GRPO)
    assert scene.batch.weights_BT is not None
    scene.batch.weights_BT[:] = 0
    scene.updater.update(scene.batch, step=1)
    assert scene.batch.ratio_BT is not None
    assert (scene.batch.ratio_BT == scene.batch.sampled_BT).all()


@pytest.mark.parametrize("algorithm", [GRPO, PPO], ids=["grpo", "ppo"])
def test_the_normaliser_is_that_of_the_mini_batch(
    algorithm: dict[str, object], make_scene: MakeScene
) -> None:
    scene = make_scene(algorithm, mini_batch=3, micro_batch=2)
    scene.updater.update(scene.batch, step=1)
    last = list(scene.updater._mini_batches(len(scene.batch), step=1))[-1]
    assert len(last) == 2
    expected = gradients_of(scene, loss_of(scene, last, scene.roles())["total"])
    assert (scene.gradients() - expected).abs().max() <= 1e-10


@pytest.mark.parametrize("algorithm", [GRPO, PPO], ids=["grpo", "ppo"])
def test_micro_batches_change_nothing(algorithm: dict[str, object], make_scene: MakeScene) -> None:
    scene = make_scene(algorithm)
    found = {}
    for size in (32, 3, 1):
        optimizer = scene.config.optimizer.model_copy(update={"micro_batch": size})
        scene.updater._config = scene.config.model_copy(update={"optimizer": optimizer})
        metrics = scene.updater.update(scene.batch, step=1)
        found[size] = scene.gradients().clone(), metrics
    for size in (3, 1):
        assert (found[size][0] - found[32][0]).abs().max() <= 1e-10
        assert found[size][1] == pytest.approx(found[32][1], abs=1e-10)


def test_kl_and_entropy_weigh_one_whatever_the_role(make_scene: MakeScene) -> None:
    scene = make_scene(GRPO)
    before = scene.updater.update(scene.batch, step=1)
    assert scene.batch.weights_BT is not None
    scene.batch.weights_BT *= torch.rand(scene.batch.weights_BT.shape, dtype=torch.float64)
    after = scene.updater.update(scene.batch, step=1)
    assert (before["entropy"], before["kl_loss"]) == (after["entropy"], after["kl_loss"])
    assert before["policy_loss"] != after["policy_loss"]


# Order and number of updates. --------------------------------------------------------------------------


@pytest.fixture
def make_updater(
    make_config: MakeConfig, loaded: tuple[LanguageModel, Chat], processes: Processes
) -> Callable[..., Updater]:
    from actfocus.algorithms import ALGORITHMS

    def make(config: Config | None = None, **optimizer: object) -> Updater:
        config = config or make_config(optimizer=optimizer)
        return Updater(config, processes, ALGORITHMS["grpo"](config.algorithm), loaded[0], None)

    return make


def test_every_epoch_visits_every_row_once_in_its_own_order(make_updater: Callable[..., Updater]) -> None:
    updater = make_updater(mini_batch=3, epochs=3)
    batches = list(updater._mini_batches(8, step=4))
    assert [len(rows) for rows in batches] == [3, 3, 2] * 3
    epochs = [batches[i : i + 3] for i in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(row for rows in epoch for row in rows) == list(range(8))
        assert all(rows == sorted(rows) for rows in epoch)
    assert epochs[0] != epochs[1] != epochs[2]
    assert batches == list(updater._mini_batches(8, step=4))
    assert batches != list(updater._mini_batches(8, step=5))


def scored(batch: Batch, policy: LanguageModel) -> Batch:
    """Figures that are good enough to be updated on."""
    with torch.no_grad():
        logprobs_N = policy.token_scores(batch.ids_BT, batch.sampled_BT).logprobs
    batch.old_logprobs_BT = torch.zeros_like(batch.sampler_logprobs_BT)
    batch.old_logprobs_BT[batch.sampled_BT] = logprobs_N
    batch.advantages_BT = (batch.returns_B[:, None] - batch.returns_B.mean()) * batch.sampled_BT
    batch.weights_BT = batch.sampled_BT.float()
    return batch


def test_updates_are_counted(
    make_updater: Callable[..., Updater], loaded: tuple[LanguageModel, Chat], batch: Batch
) -> None:
    metrics = make_updater(mini_batch=3, epochs=2).update(scored(batch, loaded[0]), step=1)
    assert (metrics["updates"], metrics["skipped_updates"]) == (6, 0)
    assert all(math.isfinite(figure) for figure in metrics.values())


def snapshot(updater: Updater, policy: LanguageModel) -> list[torch.Tensor]:
    state = [t for each in updater.optimizer.state.values() for t in each.values()]
    return [tensor.detach().clone() for tensor in [*policy.parameters(), *state]]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_without_weight_the_update_is_skipped_and_counted(
    make_updater: Callable[..., Updater], loaded: tuple[LanguageModel, Chat], batch: Batch
) -> None:
    policy, updater = loaded[0], make_updater(mini_batch=8)
    scored(batch, policy).weights_BT = torch.zeros_like(batch.sampler_logprobs_BT)
    before = snapshot(updater, policy)
    metrics = updater.update(batch, step=1)
    assert (metrics["updates"], metrics["skipped_updates"]) == (0, 1)
    assert same(before, snapshot(updater, policy))
    assert all(math.isfinite(figure) for figure in metrics.values())


def test_only_the_mini_batch_without_weight_is_skipped(
    make_updater: Callable[..., Updater], loaded: tuple[LanguageModel, Chat], batch: Batch
) -> None:
    policy, updater = loaded[0], make_updater(mini_batch=4)
    first = next(updater._mini_batches(8, step=1))
    scored(batch, policy)
    assert batch.weights_BT is not None
    batch.weights_BT[first] = 0
    before = snapshot(updater, policy)
    metrics = updater.update(batch, step=1)
    assert (metrics["updates"], metrics["skipped_updates"]) == (1, 1)
    assert not same(before, snapshot(updater, policy)[: len(before)])


def test_gradients_are_clipped_to_the_norm(make_scene: MakeScene) -> None:
    scene, norm = make_scene(PPO), 1e-3
    loose = scene.updater.update(scene.batch, step=1)
    optimizer = scene.config.optimizer.model_copy(update={"max_grad_norm": norm})
    scene.updater._config = scene.config.model_copy(update={"optimizer": optimizer})
    tight = scene.updater.update(scene.batch, step=1)
    assert scene.critic is not None
    for parameters in (scene.policy.parameters(), scene.critic.trained_parameters()):
        clipped = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        assert float(clipped) == pytest.approx(norm, rel=1e-4)
    # What is reported is the norm before clipping.
    assert tight["grad_norm"] == pytest.approx(loose["grad_norm"], rel=1e-9)
    assert tight["critic_grad_norm"] == pytest.approx(loose["critic_grad_norm"], rel=1e-9)


# Learning rate. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1, 1, 1]),
        ("constant", 2, [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("linear", 0, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("linear", 2, [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4]),
        ("cosine", 2, [1 / 3, 2 / 3, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("linear", 9, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    ],
)
def test_schedules(schedule: str, warmup: int, expected: list[float], make_config: MakeConfig) -> None:
    config = make_config(steps=6, optimizer={"schedule": schedule, "warmup_steps": warmup})
    assert [learning_rate_factor(config, step) for step in range(1, 7)] == pytest.approx(expected)


def test_both_networks_follow_the_schedule(make_scene: MakeScene) -> None:
    scene = make_scene({**PPO, "critic_lr": 4e-300}, schedule="linear")
    metrics = scene.updater.update(scene.batch, step=2)  # the second of three
    assert metrics["lr"] == pytest.approx(2e-300 / 3)
    assert [group["lr"] for group in scene.updater.optimizer.param_groups] == pytest.approx(
        [2e-300 / 3, 8e-300 / 3]
    )


# What is not finite. -----------------------------------------------------------------------------------

SPOILED = ["advantages_BT", "weights_BT", "ref_logprobs_BT", "value_targets_BT", "gradient"]


# An infinite old log-probability does not come so far: the loop refuses it.
@pytest.mark.parametrize(
    ("what", "value"),
    [("old_logprobs_BT", math.nan), *((what, value) for what in SPOILED for value in (math.nan, math.inf))],
)
def test_not_finite_stops_before_anything_moves(what: str, value: float, make_scene: MakeScene) -> None:
    scene = make_scene(PPO, lr=1e-2, mini_batch=8)
    scene.updater.update(scene.batch, step=1)  # so that Adam has a state
    if what == "gradient":
        scene.policy.parameters()[3].register_hook(lambda gradient: gradient * value)
    else:
        tensor = getattr(scene.batch, what)
        row, token = scene.batch.sampled_BT.nonzero()[7].tolist()
        tensor[row, token] = value
    before = [*snapshot(scene.updater, scene.policy), *(p.detach().clone() for p in scene.parameters)]
    with pytest.raises(NonFiniteError, match="not finite"):
        scene.updater.update(scene.batch, step=2)
    after = [*snapshot(scene.updater, scene.policy), *(p.detach().clone() for p in scene.parameters)]
    assert same(before, after)
