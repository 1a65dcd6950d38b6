"""Gradient share: how much of the policy gradient comes from which tokens, and how much of it is signal.

This tests the claim of the action bottleneck itself, not a correlate of it.

Legend: B trajectories, T tokens, N sampled tokens of a micro-batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from actfocus.errors import NonFiniteError
from actfocus.focus import SAMPLED_ROLES, Role
from actfocus.models.language_model import LanguageModel
from actfocus.report.progress import Progress
from actfocus.rollout.batch import Batch
from actfocus.training.scoring import micro_batches

_WEIGHTED_ACTION = "weighted action"

Gradient = list[torch.Tensor]
"""One tensor per trained parameter."""


@dataclass(frozen=True)
class RoleGradient:
    """The gradient of one role's tokens; see `gradient_share` for G, n, W."""

    tokens: int
    """Tokens of the role in the groups that were used."""
    total: float
    """‖Σ_g G_g‖ / W."""
    per_token: float
    """‖Σ_g G_g‖ / tokens; NaN without tokens."""
    share: float
    """`total` among the totals of reasoning, action and other (their norms: the parts are not orthogonal)."""
    deviation: float
    """s = sqrt(Σ_g ‖G_g − m‖² / (n − 1)), with m = Σ_g G_g / n."""
    signal_to_noise: float
    """‖m‖ / s; about 1 / √n (`GradientShare.noise_floor`) where there is nothing but noise."""


@dataclass(frozen=True)
class GradientShare:
    """Per role and for `all` of them, before and after weighting."""

    groups: int
    """n: groups that were used."""
    episodes: int
    noise_floor: float
    """1 / √n: the signal-to-noise ratio that groups of independent gradients with mean 0 have."""
    before: dict[str, RoleGradient]
    after: dict[str, RoleGradient]

    def shares(self) -> dict[str, Any] | None:
        """The share of each role; None where there is no gradient to divide, as where Σw = 0."""
        parts = {"before": self.before, "after": self.after}
        shares = {when: {name: part[name].share for name in SAMPLED_ROLES} for when, part in parts.items()}
        if not all(math.isfinite(share) for part in shares.values() for share in part.values()):
            return None
        return {"groups": self.groups, **shares}


Combination = dict[str, float]
"""A sum of kinds of gradient: its coefficients."""


@dataclass
class _Tally:
    """Over the groups: the sum of each kind of gradient, and of the squared norm of each combination."""

    combinations: dict[tuple[str, str], Combination]
    """By (`before` or `after`, role or `all`)."""
    sums: dict[str, Gradient] = field(default_factory=dict)
    squares: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, gradients: dict[str, Gradient]) -> None:
        """One group's gradients."""
        for key, combination in self.combinations.items():
            self.squares[key] = self.squares.get(key, 0.0) + squared_norm(gradients, combination)
        for name, gradient in gradients.items():
            if name not in self.sums:
                self.sums[name] = gradient
            else:
                for part, new in zip(self.sums[name], gradient, strict=True):
                    part += new


def gradient_share(
    policy: LanguageModel,
    batch: Batch,
    advantages_BT: Float[torch.Tensor, "B T"],
    weights_BT: Float[torch.Tensor, "B T"],
    *,
    micro_batch: int,
    most_groups: int | None = None,
    progress: Progress,
) -> GradientShare | None:
    """Norm and signal-to-noise ratio of the policy gradient, per role, before and after weighting.

    For group g and role r the gradient is G_g = Σ_t w_t A_t ∇ log π(y_t | c_t), over the tokens of role r in
    the group's trajectories, by the trained parameters alone (the ratio of the objective is 1), and w_t = 1
    before weighting. W is the sum of w_t over all sampled tokens of the groups used, so that Σ_g G_g / W is
    the role's part of the gradient that one optimiser step takes. Groups without any advantage (GRPO's, where
    returns do not vary) have gradient 0: they are left out.

    Only sums over groups are kept: nine times the trained parameters, however many groups there are.

    Args:
        policy: The model whose gradient it is.
        batch: What was written.
        advantages_BT: Advantage of each token; read at sampled tokens.
        weights_BT: Those of `focus.token_weights`: one for all reasoning tokens, one for all of neither span.
        micro_batch: Trajectories per forward pass.
        most_groups: Use the first so many groups with an advantage; all by default.
        progress: Hears of each group.

    Returns:
        The figures, or None with fewer than two groups that have an advantage.

    Raises:
        NonFiniteError: If a gradient is not finite.
        ValueError: If the weights differ among reasoning tokens, or among those of neither span.
    """
    advantages_BT = advantages_BT.masked_fill(~batch.sampled_BT, 0)
    used = [rows for rows in _rows_of_groups(batch) if advantages_BT[rows].any()][:most_groups]
    if len(used) < 2:
        return None
    factors = _factors(batch, weights_BT)
    weighted_BT = weights_BT if factors["action"] is None else None
    tally = _Tally(_combinations(factors))
    progress.begin("gradients", len(used))
    for rows in used:
        tally.add(_group_gradients(policy, batch, advantages_BT, weighted_BT, rows, micro_batch))
        if not all(map(math.isfinite, tally.squares.values())):
            raise NonFiniteError("the policy gradient is not finite: check the model's weights")
        progress.advance({"episodes": float(len(rows))})
    all_rows = [row for rows in used for row in rows]
    roles_BT = batch.roles_BT[all_rows]
    tokens = {name: int((roles_BT == role).sum()) for name, role in SAMPLED_ROLES.items()}
    tokens["all"] = sum(tokens.values())
    return GradientShare(
        groups=len(used),
        episodes=len(all_rows),
        noise_floor=1 / math.sqrt(len(used)),
        before=_figures(tally, "before", tokens, float(tokens["all"]), len(used)),
        after=_figures(tally, "after", tokens, float(weights_BT[all_rows].double().sum()), len(used)),
    )


def _rows_of_groups(batch: Batch) -> list[list[int]]:
    rows_of: dict[int, list[int]] = {}
    for row, group in enumerate(batch.groups_B.tolist()):
        rows_of.setdefault(group, []).append(row)
    return list(rows_of.values())


def squared_norm(gradients: dict[str, Gradient], combination: Combination) -> float:
    """‖Σ coefficient · gradient‖² over all parameters, in float64; one parameter is added up at a time."""
    factors = list(combination.values())
    squares = []
    for parts in zip(*(gradients[name] for name in combination), strict=True):
        total = parts[0].double() * factors[0]
        for part, factor in zip(parts[1:], factors[1:], strict=True):
            total.add_(part, alpha=factor)
        squares.append(float(total.square().sum()))
    return math.fsum(squares)


def _combinations(factors: dict[str, float | None]) -> dict[tuple[str, str], Combination]:
    before: dict[str, Combination] = {name: {name: 1.0} for name in SAMPLED_ROLES}
    after: dict[str, Combination] = {
        name: {_WEIGHTED_ACTION: 1.0} if factor is None else {name: factor}
        for name, factor in factors.items()
    }
    found = {}
    for when, each in (("before", before), ("after", after)):
        whole = {name: factor for combination in each.values() for name, factor in combination.items()}
        for role, combination in (each | {"all": whole}).items():
            found[when, role] = combination
    return found


def _factors(batch: Batch, weights_BT: torch.Tensor) -> dict[str, float | None]:
    """The weight that all tokens of a role share; None for actions whose weights differ."""
    factors: dict[str, float | None] = {}
    for name, role in SAMPLED_ROLES.items():
        weights_N = weights_BT[batch.roles_BT == role]
        if not len(weights_N):
            factors[name] = 1.0
            continue
        low, high = float(weights_N.min()), float(weights_N.max())
        if low != high and role != Role.ACTION:
            raise ValueError(f"the weights of {name} tokens differ: {low} to {high}")
        factors[name] = low if low == high else None
    return factors


def _group_gradients(
    policy: LanguageModel,
    batch: Batch,
    advantages_BT: torch.Tensor,
    weights_BT: torch.Tensor | None,
    rows: Sequence[int],
    micro_batch: int,
) -> dict[str, Gradient]:
    """The gradient of each role in one group, unweighted; and of its weighted actions, given weights."""
    parameters = policy.parameters()
    gradients: dict[str, Gradient] = {}
    for micro in micro_batches(batch, rows, micro_batch):
        part = batch.rows(micro)
        sampled_BT = part.sampled_BT
        if not sampled_BT.any():
            continue
        logprobs_N = policy.token_scores(part.ids_BT, sampled_BT).logprobs
        advantages_N = advantages_BT[micro, : sampled_BT.shape[1]][sampled_BT].to(logprobs_N.dtype)
        roles_N = part.roles_BT[sampled_BT]
        of_role = {name: advantages_N * (roles_N == role) for name, role in SAMPLED_ROLES.items()}
        if weights_BT is not None:
            weights_N = weights_BT[micro, : sampled_BT.shape[1]][sampled_BT].to(logprobs_N.dtype)
            of_role[_WEIGHTED_ACTION] = of_role["action"] * weights_N
        wanted = {name: coefficients for name, coefficients in of_role.items() if coefficients.any()}
        for place, (name, coefficients_N) in enumerate(wanted.items(), start=1):
            new = _gradient(logprobs_N, coefficients_N, parameters, keep=place < len(wanted))
            gradients[name] = _plus(gradients.get(name), new)
    names = [*SAMPLED_ROLES, _WEIGHTED_ACTION] if weights_BT is not None else [*SAMPLED_ROLES]
    for name in names:  # not one zero for all: sums are made in place
        gradients.setdefault(name, [torch.zeros_like(parameter) for parameter in parameters])
    return gradients


def _gradient(
    logprobs_N: torch.Tensor, coefficients_N: torch.Tensor, parameters: list[nn.Parameter], *, keep: bool
) -> Gradient:
    """∇ Σ coefficient · log π; a parameter that took no part has gradient 0."""
    found = torch.autograd.grad(logprobs_N, parameters, coefficients_N, retain_graph=keep, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _plus(before: Gradient | None, new: Gradient) -> Gradient:
    return new if before is None else [a.add_(b) for a, b in zip(before, new, strict=True)]


def _figures(
    tally: _Tally, when: str, tokens: dict[str, int], weight: float, groups: int
) -> dict[str, RoleGradient]:
    norms = {name: math.sqrt(squared_norm(tally.sums, tally.combinations[when, name])) for name in tokens}
    whole = math.fsum(norms[name] for name in SAMPLED_ROLES)
    figures = {}
    for name, norm in norms.items():
        # Σ ‖G − m‖² = Σ ‖G‖² − n ‖m‖²; rounding may leave it just below 0 where all groups are alike.
        squares = max(0.0, tally.squares[when, name] - norm * norm / groups)
        deviation = math.sqrt(squares / (groups - 1))
        figures[name] = RoleGradient(
            tokens=tokens[name],
            total=norm / weight if weight else math.nan,
            per_token=norm / tokens[name] if tokens[name] else math.nan,
            share=math.nan if name == "all" or not whole else norm / whole,
            deviation=deviation,
            signal_to_noise=norm / groups / deviation if deviation else math.nan,
        )
    return figures
