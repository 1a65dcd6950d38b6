"""The diagnosis: does the energy of action tokens, and of no others, follow what decides the return?

For each group of rollouts from one start state: the variance of the return against the mean energy of all
sampled, of the reasoning, and of the action tokens. Source: arXiv 2605.14558.

Legend: B trajectories, T tokens.
"""

import statistics
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8

from actfocus.focus.roles import Role

SCOPES: dict[str, tuple[Role, ...]] = {
    "all": (Role.REASONING, Role.ACTION, Role.OTHER),
    "reasoning": (Role.REASONING,),
    "action": (Role.ACTION,),
}


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
    # SciPy loads slowly, and training never comes here.
    from scipy.stats import spearmanr

    rho, p, groups = {}, {}, {}
    for scope, roles in SCOPES.items():
        in_scope_BT = torch.isin(roles_BT, torch.tensor(roles, dtype=torch.int8, device=roles_BT.device))
        variances, means = [], []
        for group in groups_B.unique():
            rows = groups_B == group
            energies_N = energies_BT[rows][in_scope_BT[rows]].double()
            if len(energies_N):
                # Exact, because ranks are made of it: rounding would break ties by the order of the rows.
                variances.append(statistics.pvariance(returns_B[rows].tolist()))
                means.append(energies_N.mean().item())
        groups[scope] = len(means)
        rho[scope] = p[scope] = float("nan")
        if len(means) > 2 and len(set(variances)) > 1 and len(set(means)) > 1:
            result = spearmanr(variances, means)
            rho[scope], p[scope] = float(result.statistic), float(result.pvalue)
    sampled = int((roles_BT != Role.CONTEXT).sum())
    actions = int((roles_BT == Role.ACTION).sum())
    return Bottleneck(rho, p, groups, actions / sampled if sampled else float("nan"))
