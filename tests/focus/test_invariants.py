"""What `actfocus.focus` promises, whatever the batch:

1. α = 1 and β = 0 is plain PPO or GRPO: loss and gradient are the same bits as those of the masked mean of
   the clipped surrogate, in float32 and float64.
2. How a batch is laid out never matters: cut into micro-batches (with the normaliser of the whole), padded
   more or on the other side, with observations put in or its rows in another order, it gives the same loss
   and gradient (1e-10).
3. Nor does how many processes share it (1e-10), even when one of them holds no action token.
4. A token that was not sampled weighs exactly 0 and gets a gradient of exactly 0, with NaN there too.
5. Weights carry no gradient.
6. `score_hidden` gives what the full logits give, gradient included, and never holds as many logits.
7. An action token weighs between 1 and 1 + β, more with a higher signal, and adding a constant to every
   energy changes no weight.
"""

import importlib
import os
import sys
from dataclasses import dataclass, fields, replace
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode

from tests import oracle
from tests.focus.test_against_oracle import CLIP, both_dtypes, oracle_weights, tensor

weights_module = importlib.import_module("actfocus.focus.weights")
signals_module = importlib.import_module("actfocus.focus.signals")
objective_module = importlib.import_module("actfocus.focus.objective")
ppo_module = importlib.import_module("actfocus.algorithms.ppo")
grpo_module = importlib.import_module("actfocus.algorithms.grpo")

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


# 1 -------------------------------------------------------------------------------------------------------


def plain_clipped_loss(logprobs_BT, old_logprobs_BT, advantages_BT, sampled_BT, *, clip_low, clip_high):
    """PPO as everybody writes it: the mean of the clipped surrogate over the sampled tokens."""
    mask_BT = sampled_BT.to(logprobs_BT.dtype)
    ratio_BT = torch.exp(logprobs_BT - old_logprobs_BT)
    clipped_BT = torch.clamp(ratio_BT, 1 - clip_low, 1 + clip_high)
    surrogate_BT = torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    return -(surrogate_BT * mask_BT).sum() / mask_BT.sum()


def check_uniform_is_plain(seed, dtype, algorithm):
    batch = oracle.random_batch(seed, dtype, junk=False)
    roles_BT, sampled_BT = tensor(batch.roles_BT), tensor(batch.sampled_BT)
    if not sampled_BT.any():
        return
    advantages_BT = tensor(batch.advantages_BT)
    if algorithm == "ppo":
        advantages_BT = ppo_module.whiten(advantages_BT, sampled_BT)
    else:
        returns_B = advantages_BT[:, 0]
        groups_B = torch.zeros(len(returns_B), dtype=torch.int64)
        advantages_B = grpo_module.grpo_advantages(returns_B, groups_B)
        advantages_BT = advantages_B[:, None].expand_as(advantages_BT).contiguous()
    found = []
    for name in ["plain", "uniform"]:
        logprobs_BT = tensor(batch.logprobs_BT, requires_grad=True)
        inputs = logprobs_BT, tensor(batch.old_logprobs_BT), advantages_BT
        if name == "plain":
            loss = plain_clipped_loss(*inputs, sampled_BT, **CLIP)
        else:
            weights_BT = weights_module.token_weights(roles_BT, tensor(batch.signal_BT), alpha=1.0, beta=0.0)
            assert torch.equal(weights_BT, sampled_BT.to(weights_BT.dtype))
            loss, _ = objective_module.policy_loss(*inputs, weights_BT, **CLIP)
        loss.backward()
        found.append((loss.detach(), logprobs_BT.grad))
    (plain_loss, plain_gradient_BT), (loss, gradient_BT) = found
    assert loss.dtype == plain_loss.dtype
    assert torch.equal(loss, plain_loss)
    assert torch.equal(gradient_BT, plain_gradient_BT)


@both_dtypes
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_uniform_weights_are_plain_ppo_and_grpo_bit_for_bit(algorithm, dtype):
    for seed in range(70):
        check_uniform_is_plain(seed, dtype, algorithm)


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


# 4 -------------------------------------------------------------------------------------------------------


def check_unsampled_tokens(seed, dtype=np.float64):
    """Loss and gradient with NaN and infinity at tokens of weight 0 are those with zeros there."""
    batch = oracle.random_batch(seed, dtype)
    unsampled_BT = ~tensor(batch.sampled_BT)
    weights_BT = weights_module.token_weights(
        tensor(batch.roles_BT), tensor(batch.signal_BT), alpha=batch.alpha, beta=batch.beta
    )
    assert (weights_BT[unsampled_BT] == 0).all()
    unused_BT = weights_BT == 0  # reasoning tokens too if α is 0
    losses = []
    for junk in [0.0, np.nan, np.inf, -np.inf]:
        inputs = [
            tensor(array_BT).masked_fill(unused_BT, junk)
            for array_BT in (batch.logprobs_BT, batch.old_logprobs_BT, batch.advantages_BT)
        ]
        inputs[0].requires_grad_()
        loss, _ = objective_module.policy_loss(*inputs, weights_BT, **CLIP)
        loss.backward()
        assert (inputs[0].grad[unused_BT] == 0).all()
        assert torch.isfinite(inputs[0].grad).all()
        losses.append((loss.detach(), inputs[0].grad))
    for loss, gradient_BT in losses:
        assert torch.isfinite(loss)
        assert torch.equal(loss, losses[0][0])
        assert torch.equal(gradient_BT, losses[0][1])


@both_dtypes
def test_tokens_that_were_not_sampled_are_never_trained(dtype):
    for seed in range(70):
        check_unsampled_tokens(seed, dtype)


@both_dtypes
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_the_critic_is_not_trained_on_them_either(junk, dtype):
    for seed in range(70):
        batch = oracle.random_batch(seed, dtype)
        unsampled_BT = ~tensor(batch.sampled_BT)
        values_BT, old_BT, returns_BT = (
            tensor(array_BT).masked_fill(unsampled_BT, junk)
            for array_BT in (batch.values_BT, batch.old_values_BT, batch.returns_BT)
        )
        values_BT.requires_grad_()
        loss = ppo_module.value_loss(values_BT, old_BT, returns_BT, ~unsampled_BT, clip=0.2)
        loss.backward()
        assert torch.isfinite(loss)
        assert (values_BT.grad[unsampled_BT] == 0).all()
        assert torch.isfinite(values_BT.grad).all()


# 5 -------------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_weights_carry_no_gradient(beta, dtype):
    for seed in range(14):
        batch = oracle.random_batch(seed, dtype)
        signal_BT = tensor(batch.signal_BT, requires_grad=True)
        weights_BT = weights_module.token_weights(
            tensor(batch.roles_BT), signal_BT * 1.0, alpha=0.1, beta=beta
        )
        assert not weights_BT.requires_grad
        assert weights_BT.grad_fn is None


# 6 -------------------------------------------------------------------------------------------------------


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation gives back."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, list | tuple) else [result]:
            if isinstance(part, torch.Tensor):
                self.size = max(self.size, part.numel())
        return result


@both_dtypes
@pytest.mark.parametrize("rows", [1, 7, 63, 64, 65])
def test_score_hidden_in_chunks_is_the_full_computation(rows, dtype):
    rng = np.random.default_rng(rows)
    width, vocabulary, chunk = 3, 500, 8
    hidden_ND = tensor(rng.standard_normal((rows, width)).astype(dtype))
    matrix_DV = tensor(rng.standard_normal((width, vocabulary)).astype(dtype))
    targets_N = tensor(rng.integers(0, vocabulary, size=rows))
    seen = []

    def head(hidden_CD):
        seen.append(len(hidden_CD))
        return hidden_CD @ matrix_DV

    with LargestTensor() as largest:
        got = signals_module.score_hidden(hidden_ND, head, targets_N, chunk=chunk)
    assert max(seen) <= chunk
    assert sum(seen) == rows
    assert largest.size <= chunk * vocabulary

    logits_NV = hidden_ND @ matrix_DV
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    for got_N, expected_N in [
        (got.logprobs, logits_NV.log_softmax(-1)[range(rows), targets_N]),
        (got.energy, -logits_NV.logsumexp(-1)),
        (got.entropy, torch.distributions.Categorical(logits=logits_NV).entropy()),
    ]:
        torch.testing.assert_close(got_N, expected_N, rtol=tolerance, atol=tolerance)


def test_the_gradient_of_score_hidden_needs_no_more_either():
    """Neither in a single tensor, forward or backward, nor in what is kept between the two."""
    rng = np.random.default_rng(0)
    rows, width, vocabulary, chunk = 61, 3, 500, 8
    matrix_DV = tensor(rng.standard_normal((width, vocabulary)), requires_grad=True)
    hidden_ND = tensor(rng.standard_normal((rows, width)), requires_grad=True)
    targets_N = tensor(rng.integers(0, vocabulary, size=rows))
    factors_N = tensor(rng.standard_normal(rows))

    full_N = (hidden_ND @ matrix_DV).log_softmax(-1)[range(rows), targets_N]
    expected = torch.autograd.grad(full_N @ factors_N, [hidden_ND, matrix_DV])

    kept = []

    def keep(saved):
        kept.append(saved.numel())
        return saved

    with LargestTensor() as largest:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            scores = signals_module.score_hidden(
                hidden_ND, lambda hidden_CD: hidden_CD @ matrix_DV, targets_N, chunk=chunk
            )
        kept_by_forward = sum(kept)
        got = torch.autograd.grad(scores.logprobs @ factors_N, [hidden_ND, matrix_DV])
    for got_gradient, expected_gradient in zip(got, expected, strict=True):
        torch.testing.assert_close(got_gradient, expected_gradient, rtol=1e-12, atol=1e-12)
    assert largest.size <= chunk * vocabulary
    assert kept_by_forward < rows * vocabulary


def test_nothing_to_score():
    matrix_DV = torch.ones(3, 7)
    got = signals_module.score_hidden(
        torch.zeros(0, 3), lambda hidden_CD: hidden_CD @ matrix_DV, torch.zeros(0, dtype=torch.int64), chunk=4
    )
    assert [part.shape for part in (got.logprobs, got.energy, got.entropy)] == [(0,)] * 3


# 7 -------------------------------------------------------------------------------------------------------


def action_weights(signal_N, beta, dtype=torch.float64):
    """The weights of a batch of action tokens alone."""
    signal_BT = torch.as_tensor(signal_N, dtype=dtype)[None]
    roles_BT = torch.full(signal_BT.shape, ACTION, dtype=torch.int8)
    return weights_module.token_weights(roles_BT, signal_BT, alpha=0.1, beta=beta)[0]


@both_dtypes
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
def test_action_weights_stay_in_range_and_follow_the_signal(beta, dtype):
    for seed in range(30):
        rng = np.random.default_rng([37, seed])
        scale = 10.0 ** rng.integers(-8, 5)
        signal_N = (scale * rng.standard_t(1.5, size=int(rng.integers(1, 80)))).astype(dtype)
        signal_N[rng.random(len(signal_N)) < 0.2] = signal_N[0]
        weights_N = action_weights(signal_N, beta, dtype=torch.from_numpy(signal_N).dtype).double().numpy()
        assert (weights_N >= 1).all()
        assert (weights_N <= 1 + beta).all()
        order = np.argsort(signal_N, kind="stable")
        steps = np.diff(weights_N[order])
        assert (steps >= 0).all()
        assert (steps[np.diff(signal_N[order]) == 0] == 0).all()


def test_a_higher_signal_weighs_more():
    weights_N = action_weights([-24.0, -20.0, -22.0, -22.5], beta=0.5)
    assert weights_N.argsort().tolist() == [0, 3, 2, 1]
    assert weights_N.unique().numel() == 4


def test_equal_signals_weigh_one_and_a_half_beta():
    for value in [-25.3, 0.0, 0.1, 1e4]:
        for size in [1, 2, 3, 7, 100]:
            expected = torch.full((size,), 1.25, dtype=torch.float64)
            torch.testing.assert_close(action_weights([value] * size, 0.5), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("constant", [1.0, -300.0, 65536.0, -(2.0**24)])
def test_a_constant_added_to_every_energy_changes_nothing(constant):
    """Energies on a grid of 2⁻²⁰, so that the sums themselves are exact."""
    for seed in range(20):
        rng = np.random.default_rng([41, seed])
        energy_N = np.round(rng.normal(-25, 2, size=int(rng.integers(1, 60))) * 2**20) / 2**20
        assert_same(action_weights(energy_N + constant, 0.5), action_weights(energy_N, 0.5))


def test_context_reasoning_and_other_weights_do_not_depend_on_the_signal():
    for seed in range(30):
        batch = oracle.random_batch(seed)
        got = weights_module.token_weights(
            tensor(batch.roles_BT), tensor(batch.signal_BT), alpha=0.25, beta=0.5, other_weight=0.75
        ).numpy()
        expected_BT = oracle_weights(batch, alpha=0.25, beta=0.0, other_weight=0.75)
        elsewhere_BT = batch.roles_BT != ACTION
        assert (got[elsewhere_BT] == expected_BT[elsewhere_BT]).all()
