"""The diagnosis: a relation that was planted is found, in the scope where it was planted and in no other."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import torch

from tests import oracle
from tests.modules import bottleneck_module

# The function and its module share a name.

CONTEXT, REASONING, ACTION, OTHER = range(4)
SCOPES = ["all", "reasoning", "action"]


def planted(seed, groups=24, size=6, relation="up"):
    """Groups whose action energy follows the variance of the returns, all other energy being noise."""
    rng = np.random.default_rng([43, seed])
    length = 20
    groups_B = rng.permutation(np.repeat(rng.permutation(500)[:groups], size))
    spread = dict(zip(np.unique(groups_B).tolist(), rng.permutation(groups) / groups, strict=True))
    returns_B = np.array([spread[g] for g in groups_B.tolist()]) * rng.standard_normal(len(groups_B))
    variances = {g: np.var(returns_B[groups_B == g]) for g in spread}
    roles_BT = rng.choice([CONTEXT, REASONING, OTHER], p=[0.3, 0.6, 0.1], size=(len(groups_B), length))
    for b in range(len(groups_B)):
        roles_BT[b, rng.integers(0, length, size=int(rng.integers(1, 4)))] = ACTION
    energies_BT = rng.normal(-25, 3, size=roles_BT.shape)
    sign = {"up": 1, "down": -1}[relation]
    for b, g in enumerate(groups_B.tolist()):
        # Equal on every action token of the group, so that the order of the means is that of the variances.
        energies_BT[b][roles_BT[b] == ACTION] = -25 + sign * 2 * variances[g]
    energies_BT[roles_BT == CONTEXT] = np.nan
    return energies_BT, roles_BT.astype(np.int8), returns_B, groups_B


def noise(seed):
    """Groups of unequal size without any planted relation; returns 0 and 1, so with many ties."""
    rng = np.random.default_rng([47, seed])
    groups_B = rng.permutation(np.repeat(np.arange(15) * 3 - 5, rng.integers(1, 7, size=15)))
    shape = (len(groups_B), 12)
    roles_BT = rng.choice([CONTEXT, REASONING, ACTION, OTHER], size=shape).astype(np.int8)
    roles_BT[:, 0] = ACTION
    roles_BT[:, 1] = REASONING
    energies_BT = rng.normal(-25, 3, size=shape)
    energies_BT[roles_BT == CONTEXT] = np.inf
    return energies_BT, roles_BT, rng.integers(0, 2, size=len(groups_B)).astype(float), groups_B


def diagnose(case):
    return bottleneck_module.bottleneck(*map(torch.from_numpy, case))


def expected_of(case, scope):
    """Spearman's ρ and p of scipy on a table made by hand; groups without tokens in scope are left out."""
    lines = [line for line in oracle.group_table(*case) if line[scope] is not None]
    variances, means = [line["variance"] for line in lines], [line[scope] for line in lines]
    result = scipy.stats.spearmanr(variances, means)
    assert math.isclose(result.statistic, oracle.spearman(variances, means), abs_tol=1e-12)
    return result


def check_bottleneck(case):
    found = diagnose(case)
    assert set(found.rho) == set(found.p) == set(SCOPES)
    for scope in SCOPES:
        expected = expected_of(case, scope)
        assert math.isclose(found.rho[scope], expected.statistic, rel_tol=1e-9, abs_tol=1e-9)
        assert math.isclose(found.p[scope], expected.pvalue, rel_tol=1e-6, abs_tol=1e-12)
    roles_BT = case[1]
    assert found.action_share == (roles_BT == ACTION).sum() / (roles_BT != CONTEXT).sum()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("relation", ["up", "down"])
def test_a_planted_relation_is_found(seed, relation):
    case = planted(seed, relation=relation)
    check_bottleneck(case)
    found = diagnose(case)
    assert found.rho["action"] == pytest.approx(1.0 if relation == "up" else -1.0)
    assert found.p["action"] < 1e-6
    assert abs(found.rho["reasoning"]) < 0.75


@pytest.mark.parametrize("seed", range(20))
def test_unrelated_numbers_and_ties(seed):
    check_bottleneck(noise(seed))


def test_tokens_are_pooled_over_the_group():
    """A group's mean energy is the mean of its tokens, not of its trajectories' means.

    By hand: pooled means 1, 2, 3 (means of means: 1, 5, 3) against variances 0.25, 1, 4: ρ = 1 (else 0.5).
    """
    energies_BT = np.array(
        [[1.0, 1, 1, 1], [1, 1, 1, 1], [10, 0, 0, 0], [0, 0, 0, 0], [3, 3, 3, 3], [3, 3, 3, 3]]
    )
    roles_BT = np.full((6, 4), ACTION, dtype=np.int8)
    roles_BT[2, 1:] = CONTEXT
    groups_B = np.array([0, 0, 1, 1, 2, 2])
    returns_B = np.array([0.0, 1, 0, 2, 0, 4])
    assert diagnose((energies_BT, roles_BT, returns_B, groups_B)).rho["action"] == pytest.approx(1.0)


def test_groups_without_variance_count_as_such():
    """Variance 0 is a variance: such groups stay in, tied for the lowest rank."""
    energies_BT = np.array([[1.0], [1], [2], [2], [3], [3], [4], [4]])
    roles_BT = np.full((8, 1), ACTION, dtype=np.int8)
    returns_B = np.array([1.0, 1, 0, 0, 0, 1, 0, 2])
    groups_B = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    found = diagnose((energies_BT, roles_BT, returns_B, groups_B))
    expected = scipy.stats.spearmanr([0, 0, 0.25, 1], [1, 2, 3, 4])
    assert found.rho["action"] == pytest.approx(expected.statistic)
    assert found.p["action"] == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("constant", ["returns", "energies"])
def test_constant_input_has_no_correlation(constant):
    """NaN, quietly: with nothing varying there is no rank correlation to speak of."""
    energies_BT, roles_BT, returns_B, groups_B = noise(0)
    if constant == "returns":
        returns_B = np.full_like(returns_B, 0.1)
    else:
        energies_BT = np.where(roles_BT == CONTEXT, np.nan, -25.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagnose((energies_BT, roles_BT, returns_B, groups_B))
    for scope in SCOPES:
        assert math.isnan(found.rho[scope])
        assert math.isnan(found.p[scope])


def test_groups_without_tokens_in_scope_are_left_out_of_it():
    energies_BT, roles_BT, returns_B, groups_B = noise(3)
    roles_BT[np.isin(groups_B, np.unique(groups_B)[:4]) & True] = REASONING
    energies_BT[~np.isfinite(energies_BT)] = -25.0
    check_bottleneck((energies_BT, roles_BT, returns_B, groups_B))


def test_no_action_tokens_at_all():
    energies_BT, roles_BT, returns_B, groups_B = noise(1)
    roles_BT[roles_BT == ACTION] = REASONING
    found = diagnose((energies_BT, roles_BT, returns_B, groups_B))
    assert found.action_share == 0
    assert math.isnan(found.rho["action"])
    assert math.isnan(found.p["action"])
    assert found.rho["reasoning"] == pytest.approx(
        expected_of((energies_BT, roles_BT, returns_B, groups_B), "reasoning").statistic
    )


def test_action_share_counts_sampled_tokens_only():
    roles_BT = np.array([[0, 0, 1, 2, 3], [0, 1, 1, 1, 1], [0, 0, 0, 0, 2]], dtype=np.int8)
    found = diagnose((np.zeros((3, 5)), roles_BT, np.array([0.0, 1, 2]), np.array([0, 1, 2])))
    assert found.action_share == 2 / 8
