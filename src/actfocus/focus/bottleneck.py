"""The diagnosis: does the energy of action tokens, and of no others, follow what decides the return?

For each group of rollouts from one start state: the variance of the return against the mean energy of all
sampled, of the reasoning, and of the action tokens. Source: arXiv 2605.14558.

Legend: B trajectories, T tokens, N groups, R resamples, U distinct values.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8

from actfocus.focus.roles import Role

SCOPES: dict[str, tuple[Role, ...]] = {
    "all": (Role.REASONING, Role.ACTION, Role.OTHER),
    "reasoning": (Role.REASONING,),
    "action": (Role.ACTION,),
}

RESAMPLES = 5_000
"""Bootstrap resamples of the groups: the standard error they give is itself off by one per cent."""
SEED = 0
"""Seed of the resamples."""
_CELLS = 4_000_000
"""Resamples x groups that are ranked at once."""


@dataclass(frozen=True)
class Bottleneck:
    """Spearman's ρ and its two-sided p between group reward variance and mean energy, per scope.

    NaN where fewer than three groups have tokens in scope, or where either side is constant.
    """

    rho: dict[str, float]
    p: dict[str, float]
    groups: dict[str, int]
    """Groups that have tokens in scope."""
    action_share: float
    """Action tokens among the sampled tokens."""


@dataclass(frozen=True)
class GroupMeans:
    """One entry per group that has tokens in scope, in ascending order of the groups' numbers."""

    groups: tuple[int, ...]
    variances: tuple[float, ...]
    """Population variance of the group's returns."""
    means: tuple[float, ...]
    """Mean of the signal over the group's tokens in scope, pooled over its trajectories."""


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ with p and interval; NaN where there is nothing to correlate, see `rank_correlation`."""

    rho: float
    p: float
    """Two-sided, from Student's approximation."""
    low: float
    high: float
    groups: int
    resamples: int
    """Bootstrap resamples that the interval rests on: those in which neither side was constant."""


def bottleneck(
    energies_BT: Float[torch.Tensor, "B T"],
    roles_BT: Int8[torch.Tensor, "B T"],
    returns_B: Float[torch.Tensor, " B"],
    groups_B: Int[torch.Tensor, " B"],
) -> Bottleneck:
    """Correlate the variance of the return within a group with the mean energy of its tokens.

    Args:
        energies_BT: Energy of each token; read at sampled tokens alone.
        roles_BT: `Role` of each token.
        returns_B: Return of each trajectory.
        groups_B: Group of each trajectory, any integers.
    """
    rho, p, groups = {}, {}, {}
    for scope, table in group_means(energies_BT, roles_BT, returns_B, groups_B).items():
        groups[scope] = len(table.means)
        rho[scope], p[scope] = spearman(table.variances, table.means)
    return Bottleneck(rho, p, groups, action_share(roles_BT))


def action_share(roles_BT: Int8[torch.Tensor, "*B"]) -> float:
    """Action tokens among the sampled tokens; NaN where none was sampled."""
    sampled = int((roles_BT != Role.CONTEXT).sum())
    return int((roles_BT == Role.ACTION).sum()) / sampled if sampled else math.nan


def group_means(
    signal_BT: Float[torch.Tensor, "B T"],
    roles_BT: Int8[torch.Tensor, "B T"],
    returns_B: Float[torch.Tensor, " B"],
    groups_B: Int[torch.Tensor, " B"],
) -> dict[str, GroupMeans]:
    """Per scope: each group's variance of the return and its mean signal; arguments as `bottleneck`'s."""
    rows_of = [(int(group), groups_B == group) for group in groups_B.unique()]
    # Exact, because ranks are made of it: rounding would break ties by the order of the rows.
    variances = {group: statistics.pvariance(returns_B[rows].tolist()) for group, rows in rows_of}
    tables = {}
    for scope, roles in SCOPES.items():
        in_scope_BT = torch.isin(roles_BT, torch.tensor(roles, dtype=torch.int8, device=roles_BT.device))
        means = {}
        for group, rows in rows_of:
            signal_K = signal_BT[rows][in_scope_BT[rows]].double()
            if len(signal_K):
                means[group] = signal_K.mean().item()
        tables[scope] = GroupMeans(
            tuple(means), tuple(variances[group] for group in means), tuple(means.values())
        )
    return tables


def spearman(x_N: Sequence[float], y_N: Sequence[float]) -> tuple[float, float]:
    """Spearman's ρ and its two-sided p; equal values share the mean of their ranks.

    NaN with fewer than three pairs, a constant side, or a value that is not finite.
    """
    if not _can_be_ranked(x_N, y_N):
        return math.nan, math.nan
    # SciPy loads slowly, and training never comes here.
    from scipy.stats import spearmanr

    result = spearmanr(x_N, y_N)
    return float(result.statistic), float(result.pvalue)


def rank_correlation(
    x_N: Sequence[float], y_N: Sequence[float], *, resamples: int = RESAMPLES, seed: int = SEED
) -> RankCorrelation:
    """Spearman's ρ between two figures of N groups, with p and a bootstrap 95 % interval over the groups.

    The interval is tanh(z ± t · s) with z = atanh ρ, Student's t at N − 2 degrees of freedom, and s the
    standard deviation of atanh ρ over the resamples, but at least the sqrt((1 + ρ² / 2) / (N − 3)) of
    normal theory (Bonett and Wright 2000). Neither half suffices: with few distinct variances (most groups
    all failed) the plain percentile and BCa intervals of 16 groups held the true ρ in 74 and 79 % of
    trials, and normal theory alone in 88 % where one side's spread grows with the other. Together they held
    it in 95 to 99 % (docs/diagnose.md). A ρ of ±1 counts as half the smallest step below it,
    1 − 6 / (N³ − N). A resample in which one side is constant has no ρ and is left out.

    Args:
        x_N: One side, such as the variance of the return.
        y_N: The other, such as the mean energy.
        resamples: Draws of N groups with replacement, `torch.randint(N, (resamples, N))`.
        seed: Of the generator (on the CPU) that draws them.

    Returns:
        ρ and p as of `spearman`; low and high are NaN where ρ is, and with fewer than four groups.
    """
    count = len(x_N)
    rho, p = spearman(x_N, y_N)
    if math.isnan(rho) or count < 4:
        return RankCorrelation(rho, p, math.nan, math.nan, count, 0)
    from scipy.special import stdtrit

    generator = torch.Generator().manual_seed(seed)
    draws_RN = torch.randint(count, (resamples, count), generator=generator)
    rhos_R = resampled_spearman(x_N, y_N, draws_RN)
    rhos_R = rhos_R[rhos_R.isfinite()]
    if len(rhos_R) < 2:
        return RankCorrelation(rho, p, math.nan, math.nan, count, len(rhos_R))
    limit = 1 - 6 / (count**3 - count)
    spread = float(rhos_R.clamp(-limit, limit).atanh().std())
    error = max(spread, math.sqrt((1 + rho * rho / 2) / (count - 3)))
    z, half = math.atanh(max(-limit, min(limit, rho))), float(stdtrit(count - 2, 0.975)) * error
    low, high = min(rho, math.tanh(z - half)), max(rho, math.tanh(z + half))
    return RankCorrelation(rho, p, low, high, count, len(rhos_R))


def resampled_spearman(
    x_N: Sequence[float], y_N: Sequence[float], draws_RN: Int[torch.Tensor, "R N"]
) -> Float[torch.Tensor, " R"]:
    """Spearman's ρ of each resample, NaN where one side is constant; rows of `draws_RN` are indices of pairs.

    A resample is told by how often each pair occurs in it, so that nothing has to be sorted again.
    """
    x_U, x_of_N = torch.tensor(x_N, dtype=torch.float64).unique(return_inverse=True)
    y_U, y_of_N = torch.tensor(y_N, dtype=torch.float64).unique(return_inverse=True)
    parts = []
    for draws_rN in draws_RN.split(max(1, _CELLS // max(1, len(x_N)))):
        counts_rN = torch.zeros(draws_rN.shape, dtype=torch.float64)
        counts_rN.scatter_add_(1, draws_rN, torch.ones_like(counts_rN))
        x_rN = _centred_ranks(counts_rN, x_of_N, len(x_U))
        y_rN = _centred_ranks(counts_rN, y_of_N, len(y_U))
        squares_r = (counts_rN * x_rN**2).sum(1) * (counts_rN * y_rN**2).sum(1)
        # Ranks are halves of whole numbers: a constant side is exactly 0.
        parts.append((counts_rN * x_rN * y_rN).sum(1) / squares_r.sqrt())
    return torch.cat(parts).clamp(-1, 1)


def _centred_ranks(counts_RN: torch.Tensor, value_of_N: torch.Tensor, values: int) -> torch.Tensor:
    """The mean rank of each pair's value among its resample, less the mean of all ranks."""
    counts_RU = counts_RN.new_zeros(len(counts_RN), values).index_add_(1, value_of_N, counts_RN)
    ranks_RU = counts_RU.cumsum(1) - counts_RU / 2 + 0.5
    return ranks_RU[:, value_of_N] - (counts_RN.shape[1] + 1) / 2


def _can_be_ranked(x_N: Sequence[float], y_N: Sequence[float]) -> bool:
    finite = all(map(math.isfinite, [*x_N, *y_N]))
    return finite and len(x_N) > 2 and len(set(x_N)) > 1 and len(set(y_N)) > 1
