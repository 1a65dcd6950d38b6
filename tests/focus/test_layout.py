"""What `actfocus.focus` promises, whatever the layout of the batch (the other promises are in
`test_invariants.py`, with the same numbers):

2. How a batch is laid out never matters: cut into micro-batches (with the normaliser of the whole), padded
   more or on the other side, with observations put in or its rows in another order, it gives the same loss
   and gradient (1e-10).
3. Nor does how many processes share it (1e-10), even when one of them holds no action token.
"""

import os
import sys
from dataclasses import dataclass, fields, replace
from datetime import timedelta

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing

from tests import oracle
from tests.focus.test_against_oracle import CLIP, both_dtypes, tensor
from tests.modules import grpo_module, objective_module, ppo_module, signals_module, weights_module

CONTEXT, REASONING, ACTION, OTHER = range(4)
WIDTH, VOCABULARY = 5, 11


# A model of three matrices, small enough to see through, trained for one step ----------------------------


@dataclass
class Rows:
    """What one step trains on: trajectories, all [B, T] or [B, T, WIDTH]."""

    features_BTD: torch.Tensor
    targets_BT: torch.Tensor
    roles_BT: torch.Tensor
    rewards_BT: torch.Tensor

    @property
    def sampled_BT(self):
        return self.roles_BT != CONTEXT

    def each(self, change):
        return replace(self, **{f.name: change(getattr(self, f.name)) for f in fields(self)})

    def take(self, rows):
        return self.each(lambda tensor_BT: tensor_BT[list(rows)])


def random_rows(seed):
    """Rows of any kind of batch, the rewards NaN where the model did not write."""
    batch = oracle.random_batch(seed)
    rng = np.random.default_rng([17, seed])
    shape = batch.roles_BT.shape
    return Rows(
        tensor(rng.standard_normal((*shape, WIDTH))),
        tensor(rng.integers(0, VOCABULARY, size=shape)),
        tensor(batch.roles_BT),
        tensor(batch.rewards_BT),
    )


def model(rng):
    """Policy (before and after some update), frozen reference, critic (before and after)."""
    reference, old, old_critic = (
        tensor(rng.standard_normal(shape)) for shape in [(WIDTH, VOCABULARY)] * 2 + [(WIDTH,)]
    )
    policy = (old + 0.1 * tensor(rng.standard_normal(old.shape))).requires_grad_()
    critic = (old_critic + 0.1 * tensor(rng.standard_normal(WIDTH))).requires_grad_()
    return {"reference": reference, "old": old, "policy": policy, "critic": critic, "old_critic": old_critic}


def logprobs(rows, matrix):
    return (rows.features_BTD @ matrix).log_softmax(-1).gather(-1, rows.targets_BT[..., None])[..., 0]


def prepare(rows, model, all_reduce=None):
    """Everything that is fixed before the update: weights, advantages and the critic's targets."""
    energy_BT = signals_module.token_energy(rows.features_BTD @ model["reference"])
    weights_BT = weights_module.token_weights(
        rows.roles_BT, energy_BT, alpha=0.1, beta=0.5, all_reduce=all_reduce
    )
    values_BT = rows.features_BTD @ model["old_critic"]
    advantages_BT, returns_BT = ppo_module.gae(
        rows.rewards_BT, values_BT, rows.sampled_BT, gamma=0.99, lam=0.95
    )
    whitened_BT = ppo_module.whiten(advantages_BT, rows.sampled_BT, all_reduce=all_reduce)
    return weights_BT, whitened_BT, returns_BT


def loss_and_gradient(rows, model, prepared, weight_sum, token_count):
    """Policy and value loss of these rows and their gradient by policy and critic, as one vector."""
    weights_BT, advantages_BT, returns_BT = prepared
    policy_loss, _ = objective_module.policy_loss(
        logprobs(rows, model["policy"]),
        logprobs(rows, model["old"]),
        advantages_BT,
        weights_BT,
        **CLIP,
        normalizer=weight_sum,
    )
    value_loss = ppo_module.value_loss(
        rows.features_BTD @ model["critic"],
        rows.features_BTD @ model["old_critic"],
        returns_BT,
        rows.sampled_BT,
        clip=0.2,
        normalizer=token_count,
    )
    gradients = torch.autograd.grad(policy_loss + value_loss, [model["policy"], model["critic"]])
    return torch.cat([policy_loss.detach()[None], value_loss.detach()[None], *map(torch.flatten, gradients)])


def whole_step(rows, model):
    """Losses and gradient of all rows at once, the normalisers left to the functions."""
    return loss_and_gradient(rows, model, prepare(rows, model), None, None)


def assert_same(got, expected, tolerance=1e-10):
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def trainable_seeds(count):
    """Seeds of batches with something to train on, which is when the normalisers are not 0."""
    return [seed for seed in range(2 * count) if random_rows(seed).sampled_BT.any()][:count]


# 2 -------------------------------------------------------------------------------------------------------


def micro_batches(rng, count):
    """The rows 0 … count − 1, shuffled and cut into parts of at least one row."""
    order = rng.permutation(count)
    cuts = np.flatnonzero(rng.random(count - 1) < 0.5) + 1
    return [part.tolist() for part in np.split(order, cuts)]


def check_micro_batches(seed):
    rng = np.random.default_rng([19, seed])
    rows, parameters = random_rows(seed), model(rng)
    prepared = prepare(rows, parameters)
    weight_sum, token_count = prepared[0].sum(), rows.sampled_BT.sum()
    total = 0
    for part in micro_batches(rng, len(rows.roles_BT)):
        taken = tuple(tensor_BT[part] for tensor_BT in prepared)
        # Numbers and tensors are both at hand in a trainer.
        normalizers = (weight_sum, token_count) if seed % 2 else (float(weight_sum), float(token_count))
        total = total + loss_and_gradient(rows.take(part), parameters, taken, *normalizers)
    assert_same(total, whole_step(rows, parameters))


def test_micro_batches_do_not_matter():
    for seed in trainable_seeds(60):
        check_micro_batches(seed)


def with_context(rows, rng, places):
    """`rows` with tokens that were not sampled put in before each of `places` (equal places: several)."""

    def insert(tensor_BT):
        array_BT = tensor_BT.numpy()
        shape = (array_BT.shape[0], len(places), *array_BT.shape[2:])
        if array_BT.ndim == 3:
            filling_BT = 1e3 * rng.standard_normal(shape)  # a model's hidden states are finite anywhere
        else:
            filling_BT = np.zeros(shape) if array_BT.dtype.kind == "i" else np.full(shape, np.nan)
        return tensor(np.insert(array_BT, places, filling_BT.astype(array_BT.dtype), axis=1))

    return rows.each(insert)


def check_padding(seed):
    rng = np.random.default_rng([23, seed])
    rows, parameters = random_rows(seed), model(rng)
    expected = whole_step(rows, parameters)
    length = rows.roles_BT.shape[1]
    for places in [
        [length] * 7,
        [0] * 7,
        [0] * 3 + [length] * 5,
        sorted(rng.integers(0, length + 1, size=6).tolist()),
    ]:
        assert_same(whole_step(with_context(rows, rng, places), parameters), expected)


def test_padding_and_observations_do_not_matter():
    for seed in trainable_seeds(60):
        check_padding(seed)


def check_row_order(seed):
    rng = np.random.default_rng([29, seed])
    rows, parameters = random_rows(seed), model(rng)
    expected = whole_step(rows, parameters)
    for _ in range(3):
        assert_same(whole_step(rows.take(rng.permutation(len(rows.roles_BT))), parameters), expected)


def test_row_order_does_not_matter():
    for seed in trainable_seeds(60):
        check_row_order(seed)


@both_dtypes
def test_group_order_and_names_do_not_matter_to_grpo(dtype):
    rng = np.random.default_rng(31)
    for _ in range(30):
        groups_B = rng.integers(0, 5, size=17)
        returns_B = rng.standard_normal(17).astype(dtype)
        expected_B = grpo_module.grpo_advantages(tensor(returns_B), tensor(groups_B))
        order = rng.permutation(17)
        names = rng.permutation(1000)[:5]
        got_B = grpo_module.grpo_advantages(tensor(returns_B[order]), tensor(names[groups_B][order]))
        torch.testing.assert_close(got_B, expected_B[order.tolist()], rtol=1e-5, atol=1e-5)


# 3 -------------------------------------------------------------------------------------------------------

SHARED_SEEDS = [0, 1, 2, 3, 4, 5, 9, 12, 16]
"""Batches of every kind but all context (seed 3 has no action, seed 4 a single one)."""


def share_of(rank, rows, seed):
    """Rank 0 takes every other row, or all of those with action tokens, or everything but the last row."""
    count = len(rows.roles_BT)
    acting = (rows.roles_BT == ACTION).any(1).tolist()
    mine = [
        [row % 2 == 0 for row in range(count)],
        acting,
        [row < count - 1 for row in range(count)],
    ][seed % 3]
    return [row for row in range(count) if mine[row] == (rank == 0)]


def run_rank(rank, folder):
    """One of two processes: the steps of all shared batches, each with this rank's rows alone."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )

    def all_reduce(summand):
        assert summand.dtype == torch.float64
        summand = summand.clone()
        torch.distributed.all_reduce(summand)
        return summand

    for seed in SHARED_SEEDS:
        rows, parameters = random_rows(seed), model(np.random.default_rng(seed))
        rows = rows.take(share_of(rank, rows, seed))
        prepared = prepare(rows, parameters, all_reduce)
        weight_sum = all_reduce(prepared[0].sum())
        token_count = all_reduce(rows.sampled_BT.sum().double())
        mine = loss_and_gradient(rows, parameters, prepared, weight_sum, token_count)
        result = all_reduce(mine)
        if rank == 0:
            np.save(f"{folder}/{seed}.npy", result.numpy())
    torch.distributed.destroy_process_group()


def test_two_processes_train_like_one(tmp_path):
    torch.multiprocessing.spawn(run_rank, args=(str(tmp_path),), nprocs=2, join=True)
    uneven = 0
    for seed in SHARED_SEEDS:
        rows = random_rows(seed)
        acting = [bool((rows.take(share_of(rank, rows, seed)).roles_BT == ACTION).any()) for rank in (0, 1)]
        uneven += acting[0] != acting[1]
        expected = whole_step(rows, model(np.random.default_rng(seed)))
        assert_same(torch.from_numpy(np.load(tmp_path / f"{seed}.npy")), expected)
    assert uneven >= 2  # one rank without action tokens did occur
