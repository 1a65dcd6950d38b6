"""Drawing one token, promises: the softmax's frequencies; never a token of probability 0; log-probabilities
at temperature 1 whatever the temperature."""

import numpy as np
import pytest
import torch
from scipy import stats

from actfocus.errors import NonFiniteError
from actfocus.rollout.sampler import draw_tokens

INF = float("inf")
JUST_BELOW_ONE = float(np.nextafter(1.0, 0.0))
"""The largest number that a generator in [0, 1) gives; as a float32 it is 1."""


def uniforms(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_those_of_the_softmax(temperature):
    logits = 1.5 * torch.randn(40, generator=torch.Generator().manual_seed(0))
    n = 40_000
    uniform = torch.from_numpy(np.random.default_rng(0).random(n))
    tokens, logprobs = draw_tokens(logits.expand(n, -1), uniform, temperature)
    expected = (logits.double() / temperature).softmax(-1).numpy() * n
    counts = np.bincount(tokens.numpy(), minlength=40)
    common = expected > 5
    seen = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    keep = wanted > 0
    assert stats.chisquare(seen[keep], wanted[keep]).pvalue > 1e-3
    # One token off, and the same test fails.
    assert (
        stats.chisquare(np.roll(seen[:-1], 1), wanted[:-1] * seen[:-1].sum() / wanted[:-1].sum()).pvalue
        < 1e-9
    )
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[tokens])


def test_the_inverse_of_the_cumulative_distribution():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(7, -1)
    tokens, _ = draw_tokens(logits, uniforms(0, 0.1999, 0.2001, 0.6999, 0.7001, 0.9999, JUST_BELOW_ONE), 1.0)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("uniform", [0.0, 1e-300, 0.5, 1 - 1e-9, JUST_BELOW_ONE])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_tokens_of_probability_zero_are_never_drawn(uniform, temperature):
    for possible in ([5], [3, 4], [0], [11], [0, 11], [2, 7, 9]):
        logits = torch.full((1, 12), -INF)
        logits[0, possible] = torch.randn(len(possible), generator=torch.Generator().manual_seed(1))
        tokens, logprobs = draw_tokens(logits, uniforms(uniform), temperature)
        assert tokens.item() in possible
        assert logprobs.isfinite().all()
        # Neither those whose probability is 0 only in float32.
        tokens, logprobs = draw_tokens(logits.clamp(min=-1000), uniforms(uniform), temperature)
        assert tokens.item() in possible and logprobs.item() > -50


def test_a_large_vocabulary_is_drawn_from_exactly():
    """Rounding in the sum over 150,000 probabilities moves no border, and leaves no gap before 1."""
    logits = torch.randn(150_000, generator=torch.Generator().manual_seed(2))
    logits[-1000:] = -INF
    cumulative = logits.double().softmax(-1).cumsum(-1)
    wanted = torch.arange(1000, 149_000, 2000)
    for uniform, expected in [
        (cumulative[wanted] - 3e-8, wanted),
        (cumulative[wanted] + 3e-8, wanted + 1),
        (uniforms(0.0, JUST_BELOW_ONE), torch.tensor([0, 148_999])),
    ]:
        tokens, logprobs = draw_tokens(logits.expand(len(uniform), -1), uniform, 1.0)
        assert torch.equal(tokens, expected) and logprobs.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_temperature_zero_is_the_likeliest(dtype):
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -INF, 1.0]], dtype=dtype)
    tokens, logprobs = draw_tokens(logits, uniforms(0.99, 0.99), 0)
    assert tokens.tolist() == [1, 0]
    torch.testing.assert_close(logprobs, logits.float().log_softmax(-1)[[0, 1], [1, 0]])


@pytest.mark.parametrize("row", [[1.0, float("nan")], [INF, 0.0], [-INF, -INF], [INF, INF]])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_distribution_that_is_not_finite_raises(row, temperature):
    logits = torch.tensor([[0.0, 1.0], row])
    with pytest.raises(NonFiniteError):
        draw_tokens(logits, uniforms(0.5, 0.5), temperature)
