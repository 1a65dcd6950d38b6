"""What `actfocus.focus` promises, whatever the batch (2 and 3, on its layout, are in `test_layout.py`):

1. α = 1 and β = 0 is plain PPO or GRPO: loss and gradient are the same bits as those of the masked mean of
   the clipped surrogate, in float32 and float64.
4. A token that was not sampled weighs exactly 0 and gets a gradient of exactly 0, with NaN there too.
5. Weights carry no gradient.
6. `score_hidden` gives what the full logits give, gradient included, and never holds as many logits.
7. An action token weighs between 1 and 1 + β, more with a higher signal, and adding a constant to every
   energy changes no weight.
"""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests import oracle
from tests.focus.test_against_oracle import CLIP, both_dtypes, oracle_weights, tensor
from tests.focus.test_layout import assert_same
from tests.modules import grpo_module, objective_module, ppo_module, signals_module, weights_module

CONTEXT, REASONING, ACTION, OTHER = range(4)


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
