"""GAE, whitening, value loss and group advantages against `tests/oracle.py`, in float64 and float32."""

import numpy as np
import pytest
import torch

from actfocus.config import AlgorithmConfig
from actfocus.rollout.batch import Batch
from tests import oracle
from tests.focus.test_against_oracle import SEEDS, TOLERANCE, assert_close, both_dtypes, tensor
from tests.modules import grpo_module, ppo_module


def check_gae(seed, dtype=np.float64):
    batch = oracle.random_batch(seed, dtype)
    inputs = batch.rewards_BT, batch.values_BT, batch.sampled_BT
    for gamma, lam in [(1.0, 1.0), (0.99, 0.95), (0.5, 0.0), (0.9, 1.0)]:
        got = ppo_module.gae(*map(tensor, inputs), gamma=gamma, lam=lam)
        expected = oracle.gae(*inputs, gamma=gamma, lam=lam)
        for got_BT, expected_BT in zip(got, expected, strict=True):
            assert_close(got_BT, expected_BT, TOLERANCE[dtype])
            assert (got_BT[~tensor(batch.sampled_BT)] == 0).all()


@both_dtypes
@pytest.mark.parametrize("seed", SEEDS)
def test_gae(seed, dtype):
    check_gae(seed, dtype)


def test_gae_of_a_reward_at_the_end_is_the_return_less_the_value():
    """With γ = λ = 1 every sampled token sees the same return R, whatever lies between."""
    sampled_BT = torch.tensor([[False, True, True, False, False, True, True, False]])
    values_BT = torch.arange(8, dtype=torch.float64)[None]
    rewards_BT = torch.tensor([[0, 0, 0, 0, 0, 0, 5.0, 0]], dtype=torch.float64)
    advantages_BT, returns_BT = ppo_module.gae(rewards_BT, values_BT, sampled_BT, gamma=1.0, lam=1.0)
    assert returns_BT.tolist() == [[0, 5, 5, 0, 0, 5, 5, 0]]
    assert advantages_BT.tolist() == [[0, 4, 3, 0, 0, 0, -1, 0]]


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_ppo_asks_for_the_sampled_tokens_with_its_own_gamma_and_lambda(seed, whiten):
    given = oracle.random_batch(seed)
    unused = torch.zeros(0)
    batch = Batch(
        ids_BT=unused,
        roles_BT=tensor(given.roles_BT),
        sampler_logprobs_BT=unused,
        rewards_BT=tensor(given.rewards_BT),
        returns_B=unused,
        groups_B=unused,
        lengths_B=unused,
        values_BT=tensor(given.values_BT),
    )
    config = AlgorithmConfig(name="ppo", gamma=0.9, lam=0.7, whiten=whiten)
    got_BT = ppo_module.Ppo(config).advantages(batch)
    expected_BT, targets_BT = oracle.gae(
        given.rewards_BT, given.values_BT, given.sampled_BT, gamma=0.9, lam=0.7
    )
    assert_close(batch.value_targets_BT, targets_BT, 1e-12)
    if whiten:
        expected_BT = oracle.whiten(expected_BT, given.sampled_BT)
    assert_close(got_BT, expected_BT, 1e-10)


def check_whiten(seed, dtype=np.float64):
    batch = oracle.random_batch(seed, dtype)
    got = ppo_module.whiten(tensor(batch.advantages_BT), tensor(batch.sampled_BT))
    assert_close(got, oracle.whiten(batch.advantages_BT, batch.sampled_BT), TOLERANCE[dtype])


@both_dtypes
@pytest.mark.parametrize("seed", SEEDS)
def test_whiten(seed, dtype):
    check_whiten(seed, dtype)


def check_value_loss(seed, dtype=np.float64):
    batch = oracle.random_batch(seed, dtype)
    inputs = batch.values_BT, batch.old_values_BT, batch.returns_BT, batch.sampled_BT
    for changes in [{"clip": 0.2}, {"clip": 0.01}, {"clip": 0.2, "normalizer": 37.5}]:
        values_BT = tensor(batch.values_BT, requires_grad=True)
        loss = ppo_module.value_loss(values_BT, *map(tensor, inputs[1:]), **changes)
        (gradient_BT,) = torch.autograd.grad(loss, values_BT)
        expected = oracle.value_loss(*inputs, **changes)
        assert_close(loss, expected[0], TOLERANCE[dtype])
        if dtype == np.float64:
            assert_close(gradient_BT, expected[1], TOLERANCE[dtype])
        assert (gradient_BT[~tensor(batch.sampled_BT)] == 0).all()


@both_dtypes
@pytest.mark.parametrize("seed", SEEDS)
def test_value_loss(seed, dtype):
    check_value_loss(seed, dtype)


def random_groups(seed, dtype):
    """Returns of groups of unequal size in mixed order, as sparse as those of a game."""
    rng = np.random.default_rng([13, seed])
    groups_B = rng.permutation(np.repeat(rng.permutation(40)[:6], rng.integers(1, 9, size=6)))
    returns_B = rng.choice([0.0, 1.0, -0.1, 0.9], size=len(groups_B)) + rng.choice([0.0, 1.0]) * rng.random(
        len(groups_B)
    )
    return returns_B.astype(dtype), groups_B


def check_grpo(seed, dtype=np.float64):
    returns_B, groups_B = random_groups(seed, dtype)
    got = grpo_module.grpo_advantages(tensor(returns_B), tensor(groups_B))
    assert_close(got, oracle.grpo_advantages(returns_B, groups_B), TOLERANCE[dtype])


@both_dtypes
@pytest.mark.parametrize("seed", SEEDS)
def test_grpo_advantages(seed, dtype):
    check_grpo(seed, dtype)


@both_dtypes
@pytest.mark.parametrize("value", [0.1, -0.3, 1.1, 9.9])
def test_a_group_of_equal_returns_learns_nothing(value, dtype):
    """The mean of equal numbers may miss them by a rounding error, which must not be blown up by 1 / ε."""
    for size in range(1, 20):
        returns_B = torch.from_numpy(np.full(size, value, dtype=dtype))
        got = grpo_module.grpo_advantages(returns_B, torch.zeros(size, dtype=torch.int64))
        assert_close(got, np.zeros(size), 1e-8)
