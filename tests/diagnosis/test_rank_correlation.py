"""Rank correlation over groups, promises:

1. ρ, p and interval are those of a plain implementation: explicit ranks, explicit resamples, to 1e-9.
2. Ties share their mean rank; a constant side, too few groups and figures that are not finite give NaN.
3. The interval holds ρ, lies in [-1, 1], depends on the seed alone, and on no monotone change of either side.
"""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from actfocus.focus.bottleneck import RESAMPLES, SEED, rank_correlation, resampled_spearman, spearman
from tests import oracle
from tests.modules import bottleneck_module

NAN = math.nan


def pairs(seed, count, levels=None):
    rng = np.random.default_rng([53, seed])
    x = rng.standard_normal(count)
    y = 0.5 * x + rng.standard_normal(count)
    if levels:
        x = rng.integers(0, levels, count) / levels
    return x.tolist(), y.tolist()


def plain_interval(x, y, resamples, seed):
    """The docstring's interval, one resample after the other."""
    count = len(x)
    draws = torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed)).tolist()
    limit = 1 - 6 / (count**3 - count)

    def fisher(rho):
        return math.atanh(min(limit, max(-limit, rho)))

    rhos = [oracle.spearman([x[i] for i in draw], [y[i] for i in draw]) for draw in draws]
    values = [fisher(rho) for rho in rhos if not math.isnan(rho)]
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    rho = oracle.spearman(x, y)
    error = max(spread, math.sqrt((1 + rho**2 / 2) / (count - 3)))
    half = scipy.stats.t.ppf(0.975, count - 2) * error
    return min(rho, math.tanh(fisher(rho) - half)), max(rho, math.tanh(fisher(rho) + half)), len(values)


@pytest.mark.parametrize("count", [4, 5, 12, 40])
@pytest.mark.parametrize("levels", [None, 2, 5])
def test_agrees_with_a_plain_implementation(count, levels):
    for seed in range(4):
        x, y = pairs(seed, count, levels)
        if len(set(x)) == 1:
            continue
        found = rank_correlation(x, y, resamples=200, seed=seed)
        expected = scipy.stats.spearmanr(x, y)
        assert found.rho == pytest.approx(oracle.spearman(x, y), abs=1e-9)
        assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
        low, high, used = plain_interval(x, y, 200, seed)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
        assert (found.groups, found.resamples) == (count, used)
        assert -1 <= found.low <= found.rho <= found.high <= 1


def test_resamples_agree_one_by_one():
    x, y = pairs(3, 9, levels=3)
    draws = torch.randint(9, (50, 9), generator=torch.Generator().manual_seed(1))
    found = resampled_spearman(x, y, draws).tolist()
    for rho, draw in zip(found, draws.tolist(), strict=True):
        expected = oracle.spearman([x[i] for i in draw], [y[i] for i in draw])
        assert rho == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_many_groups_are_ranked_in_portions(monkeypatch):
    x, y = pairs(5, 30)
    whole = rank_correlation(x, y)
    monkeypatch.setattr(bottleneck_module, "_CELLS", 100)
    assert rank_correlation(x, y) == whole
    assert whole.resamples == RESAMPLES


def test_the_seed_decides():
    x, y = pairs(7, 20)
    assert rank_correlation(x, y) == rank_correlation(x, y, seed=SEED)
    assert rank_correlation(x, y).low != rank_correlation(x, y, seed=SEED + 1).low


def test_only_ranks_matter():
    x, y = pairs(8, 25)
    moved = rank_correlation([math.exp(v) for v in x], [v**3 for v in y])
    assert moved == rank_correlation(x, y)
    turned = rank_correlation([-v for v in x], y)
    found = rank_correlation(x, y)
    assert (turned.rho, turned.low, turned.high) == pytest.approx((-found.rho, -found.high, -found.low))


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1, 2], [1, 2]), ([1.0] * 9, list(range(9))), ([0, 1, 2, NAN], [0, 1, 2, 3])],
)
def test_nothing_to_correlate(x, y):
    x, y = [float(v) for v in x], [float(v) for v in y]
    found = rank_correlation(x, y)
    assert all(math.isnan(v) for v in (found.rho, found.p, found.low, found.high))
    assert math.isnan(spearman(x, y)[0])
    assert (found.groups, found.resamples) == (len(x), 0)


def test_three_groups_have_no_interval():
    found = rank_correlation([1.0, 2.0, 3.0], [2.0, 1.0, 3.0])
    assert found.rho == pytest.approx(0.5) and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_still_has_an_interval(sign):
    """Every resample has ρ = ±1, so the bootstrap alone would claim certainty."""
    found = rank_correlation([float(v) for v in range(12)], [float(sign * v) for v in range(12)])
    bounds = sorted([abs(found.low), abs(found.high)])
    assert abs(found.rho) == pytest.approx(1)
    assert bounds[1] == pytest.approx(1) and 0.8 < bounds[0] < 0.99
