"""The implementation against `tests/oracle.py` on random ragged batches, in float64 and float32.

The batches have rows without action tokens, rows and batches of context alone, one action token, α of 0 and
1, β of 0, and NaN or infinity at every token that nothing may look at. The functions `check_*` look the
implementation up in its module when they run, so that `test_mutation.py` can put a broken one in its place.
"""

import math

import numpy as np
import pytest
import torch

from tests import oracle
from tests.modules import objective_module, signals_module, weights_module

SEEDS = range(140)
"""A multiple of the number of kinds of batch; enough for each kind to meet each α and β."""

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
CLIP = {"clip_low": 0.2, "clip_high": 0.28}

both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


def tensor(array, *, requires_grad=False):
    """A tensor with its own memory."""
    return torch.from_numpy(np.array(array)).requires_grad_(requires_grad)


def assert_close(got, expected, tolerance):
    """Within `tolerance`, absolutely and of the size of the expected number; NaN nowhere."""
    got = got.detach().double().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=False)


def implementation_weights(batch, **changes):
    """The batch's weights as the implementation has them."""
    settings = {"alpha": batch.alpha, "beta": batch.beta, "other_weight": batch.other_weight} | changes
    return weights_module.token_weights(tensor(batch.roles_BT), tensor(batch.signal_BT), **settings)


def oracle_weights(batch, **changes):
    settings = {"alpha": batch.alpha, "beta": batch.beta, "other_weight": batch.other_weight} | changes
    return oracle.weights(batch.roles_BT, batch.signal_BT, **settings)


# Weights -------------------------------------------------------------------------------------------------


def check_weights(seed, dtype=np.float64):
    batch = oracle.random_batch(seed, dtype)
    assert_close(implementation_weights(batch), oracle_weights(batch), TOLERANCE[dtype])
    for changes in [
        {"alpha": 1.0, "beta": 0.0, "other_weight": None},
        {"alpha": 0.0, "beta": 0.5, "other_weight": None},
        {"alpha": 0.1, "beta": 0.5, "other_weight": None, "eps": 0.25},
        {"alpha": 0.1, "beta": 2.0, "other_weight": 1.0},
    ]:
        got, expected = implementation_weights(batch, **changes), oracle_weights(batch, **changes)
        assert_close(got, expected, TOLERANCE[dtype])


@both_dtypes
@pytest.mark.parametrize("seed", SEEDS)
def test_weights(seed, dtype):
    check_weights(seed, dtype)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_beta_no_signal_is_needed(seed):
    batch = oracle.random_batch(seed)
    got = weights_module.token_weights(
        tensor(batch.roles_BT), None, alpha=batch.alpha, beta=0.0, other_weight=batch.other_weight
    )
    assert_close(got, oracle_weights(batch, beta=0.0), 1e-7)  # α may have become a float32


def test_a_batch_without_action_tokens_needs_no_signal():
    roles_BT = torch.tensor([[0, 1, 3], [0, 0, 0]], dtype=torch.int8)
    got = weights_module.token_weights(roles_BT, None, alpha=0.25, beta=0.5)
    assert got.tolist() == [[0.0, 0.25, 0.25], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_signal_that_is_not_finite_at_an_action_token_is_refused(bad):
    roles_BT = torch.tensor([[0, 1, 2, 2]], dtype=torch.int8)
    with pytest.raises(ValueError):
        weights_module.token_weights(roles_BT, torch.tensor([[0.0, 0.0, 1.0, bad]]), alpha=0.1, beta=0.5)


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": -0.01, "beta": 0.5},
        {"alpha": 1.01, "beta": 0.5},
        {"alpha": math.nan, "beta": 0.5},
        {"alpha": 0.1, "beta": -0.5},
        {"alpha": 0.1, "beta": math.nan},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    roles_BT = torch.tensor([[0, 1, 2]], dtype=torch.int8)
    with pytest.raises(ValueError):
        weights_module.token_weights(roles_BT, torch.zeros(1, 3), **settings)


def test_action_tokens_without_a_signal_are_refused():
    with pytest.raises(ValueError):
        weights_module.token_weights(torch.tensor([[0, 2]], dtype=torch.int8), None, alpha=0.1, beta=0.5)


# Signals -------------------------------------------------------------------------------------------------


def random_logits(seed, dtype):
    """Logits of several sizes; some rows lie far from 0, where exp without care would overflow."""
    rng = np.random.default_rng([7, seed])
    rows, length, vocabulary = int(rng.integers(1, 4)), int(rng.integers(1, 7)), int(rng.integers(1, 60))
    scale = rng.choice([0.0, 1.0, 10.0], size=(rows, length, 1))
    centre = rng.choice([0.0, 30.0, -30.0, 800.0, -800.0], size=(rows, length, 1))
    return (centre + scale * rng.standard_normal((rows, length, vocabulary))).astype(dtype)


def check_energy(seed, dtype=np.float64):
    logits_BTV = random_logits(seed, dtype)
    got = signals_module.token_energy(tensor(logits_BTV))
    assert_close(got, oracle.energy(logits_BTV), TOLERANCE[dtype])


def check_entropy(seed, dtype=np.float64):
    logits_BTV = random_logits(seed, dtype)
    # Float32 cannot know log p better than the logits: near ±800 they are 6e-5 apart.
    tolerance = TOLERANCE[dtype] * max(1.0, float(np.abs(logits_BTV).max()))
    assert_close(signals_module.token_entropy(tensor(logits_BTV)), oracle.entropy(logits_BTV), tolerance)


@both_dtypes
@pytest.mark.parametrize("seed", range(60))
def test_energy(seed, dtype):
    check_energy(seed, dtype)


@both_dtypes
@pytest.mark.parametrize("seed", range(60))
def test_entropy(seed, dtype):
    check_entropy(seed, dtype)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_signals_of_half_precision_logits_are_computed_in_float32(low):
    logits_BTV = (10 * torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0))).to(low)
    exact_BTV = logits_BTV.double().numpy()
    for got, expected in [
        (signals_module.token_energy(logits_BTV), oracle.energy(exact_BTV)),
        (signals_module.token_entropy(logits_BTV), oracle.entropy(exact_BTV)),
    ]:
        assert got.dtype in (torch.float32, torch.float64)
        assert_close(got, expected, 1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_nll_and_shift(seed):
    batch = oracle.random_batch(seed, junk=False)
    old_BT, ref_BT = batch.old_logprobs_BT, batch.ref_logprobs_BT
    assert_close(signals_module.token_nll(tensor(old_BT)), -old_BT, 0.0)
    assert_close(signals_module.token_shift(tensor(old_BT), tensor(ref_BT)), old_BT - ref_BT, 0.0)


def test_a_signal_by_its_name():
    old_N = torch.tensor([-1.0, -2.0])
    reference = signals_module.TokenScores(torch.tensor([-1.5, -0.5]), torch.tensor([3.0, 4.0]), old_N.exp())
    expected = {
        "energy": reference.energy,
        "entropy": reference.entropy,
        "nll": torch.tensor([1.0, 2.0]),
        "shift": torch.tensor([0.5, -1.5]),
    }
    for name, signal_N in expected.items():
        assert torch.equal(signals_module.token_signal(name, old_N, reference), signal_N), name
    assert torch.equal(signals_module.token_signal("nll", old_N, None), expected["nll"])
    for name, given in [("nll", (None, reference)), ("shift", (old_N, None)), ("energy", (old_N, None))]:
        with pytest.raises(ValueError, match=f"the signal {name} needs a pass that was not made"):
            signals_module.token_signal(name, *given)


def random_head(seed, dtype):
    """Hidden states, a linear head and targets: row i of the logits predicts target i."""
    rng = np.random.default_rng([11, seed])
    rows, width, vocabulary = int(rng.integers(1, 40)), int(rng.integers(1, 9)), int(rng.integers(2, 50))
    hidden_ND = rng.standard_normal((rows, width)).astype(dtype)
    matrix_DV = (2 * rng.standard_normal((width, vocabulary))).astype(dtype)
    return hidden_ND, matrix_DV, rng.integers(0, vocabulary, size=rows)


def check_score_hidden(seed, dtype=np.float64):
    hidden_ND, matrix_DV, targets_N = random_head(seed, dtype)
    matrix = tensor(matrix_DV)
    logits_NV = hidden_ND.astype(np.float64) @ matrix_DV.astype(np.float64)
    expected = [
        oracle.log_probability(row_V, target) for row_V, target in zip(logits_NV, targets_N, strict=True)
    ]
    for chunk in [1, 3, len(targets_N), len(targets_N) + 5]:
        got = signals_module.score_hidden(
            tensor(hidden_ND), lambda rows: rows @ matrix, tensor(targets_N), chunk=chunk
        )
        assert_close(got.logprobs, np.array(expected), TOLERANCE[dtype])
        assert_close(got.energy, oracle.energy(logits_NV[None])[0], TOLERANCE[dtype])
        assert_close(got.entropy, oracle.entropy(logits_NV[None])[0], TOLERANCE[dtype])


@both_dtypes
@pytest.mark.parametrize("seed", range(30))
def test_score_hidden(seed, dtype):
    check_score_hidden(seed, dtype)


# Objective -----------------------------------------------------------------------------------------------


def run_policy_loss(batch, weights_BT, **changes):
    """The implementation's loss and its gradient by the log-probabilities."""
    logprobs_BT = tensor(batch.logprobs_BT, requires_grad=True)
    loss, _ = objective_module.policy_loss(
        logprobs_BT,
        tensor(batch.old_logprobs_BT),
        tensor(batch.advantages_BT),
        tensor(weights_BT),
        **(CLIP | changes),
    )
    (gradient_BT,) = torch.autograd.grad(loss, logprobs_BT)
    return loss.detach(), gradient_BT


def check_policy_loss(seed, dtype=np.float64):
    batch = oracle.random_batch(seed, dtype)
    weights_BT = oracle_weights(batch).astype(dtype)
    for changes in [{}, {"clip_low": 0.05, "clip_high": 0.5}, {"normalizer": 37.5}]:
        loss, gradient_BT = run_policy_loss(batch, weights_BT, **changes)
        expected = oracle.policy_loss(
            batch.logprobs_BT, batch.old_logprobs_BT, batch.advantages_BT, weights_BT, **(CLIP | changes)
        )
        assert_close(loss, expected[0], TOLERANCE[dtype])
        if dtype == np.float64:
            # The analytic gradient jumps at the clip, which float32 may put on the other side.
            assert_close(gradient_BT, expected[1], TOLERANCE[dtype])
        assert (gradient_BT[torch.from_numpy(weights_BT == 0)] == 0).all()


@both_dtypes
@pytest.mark.parametrize("seed", SEEDS)
def test_policy_loss_and_gradient(seed, dtype):
    check_policy_loss(seed, dtype)


@pytest.mark.parametrize("seed", range(14))
def test_policy_gradient_is_the_slope_of_the_oracles_loss(seed):
    batch = oracle.random_batch(seed)
    weights_BT = oracle_weights(batch)
    _, gradient_BT = run_policy_loss(batch, weights_BT)
    step = 1e-6
    rng = np.random.default_rng(seed)
    places = np.argwhere(weights_BT != 0)
    for b, t in rng.permutation(places)[:12]:
        ratio = math.exp(batch.logprobs_BT[b, t] - batch.old_logprobs_BT[b, t])
        if min(abs(ratio - 0.8), abs(ratio - 1.28)) < 1e-5:
            continue  # no slope at the kink
        losses = []
        for sign in (1, -1):
            moved_BT = batch.logprobs_BT.copy()
            moved_BT[b, t] += sign * step
            losses.append(
                oracle.policy_loss(moved_BT, batch.old_logprobs_BT, batch.advantages_BT, weights_BT, **CLIP)[
                    0
                ]
            )
        slope = (losses[0] - losses[1]) / (2 * step)
        assert abs(float(gradient_BT[b, t]) - slope) < 1e-8


def test_the_clip_range_is_not_symmetric():
    """By hand: A = 1 is capped at 1.28, A = −1 at 0.8, and the other side of each is not clipped."""
    ratios = [1.5, 0.5, 1.5, 0.5]
    advantages_BT = torch.tensor([[1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    logprobs_BT = torch.tensor([ratios], dtype=torch.float64).log().requires_grad_()
    weights_BT = torch.tensor([[1.0, 2.0, 1.0, 1.0]], dtype=torch.float64)
    loss, _ = objective_module.policy_loss(
        logprobs_BT, torch.zeros(1, 4, dtype=torch.float64), advantages_BT, weights_BT, **CLIP
    )
    loss.backward()
    assert_close(loss, -(1.28 + 2 * 0.5 - 1.5 - 0.8) / 5, 1e-15)
    assert_close(logprobs_BT.grad, np.array([[0.0, -2 * 0.5 / 5, 1.5 / 5, 0.0]]), 1e-15)


@both_dtypes
def test_weights_that_sum_to_zero_give_no_loss_and_no_gradient(dtype):
    for seed in range(7):
        batch = oracle.random_batch(seed, dtype)
        loss, gradient_BT = run_policy_loss(batch, np.zeros_like(batch.signal_BT))
        assert loss == 0
        assert (gradient_BT == 0).all()


@both_dtypes
@pytest.mark.parametrize("kind", ["k1", "k3"])
@pytest.mark.parametrize("seed", range(14))
def test_kl_penalty(seed, kind, dtype):
    batch = oracle.random_batch(seed, dtype, junk=False)
    got = objective_module.kl_penalty(tensor(batch.logprobs_BT), tensor(batch.ref_logprobs_BT), kind)
    expected = oracle.kl_penalty(batch.logprobs_BT, batch.ref_logprobs_BT, kind)
    assert_close(got, expected, TOLERANCE[dtype])
