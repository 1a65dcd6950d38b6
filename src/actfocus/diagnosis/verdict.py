"""The verdict in words: it rests on one test, named beforehand, and claims what its interval allows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from actfocus.focus.bottleneck import RankCorrelation

TESTED_SIGNAL, TESTED_SCOPE = "energy", "action"
"""The one test; the other eleven correlations are shown to explore."""
FEWEST_GROUPS = 10
FEWEST_VARIED = 5
"""Groups whose variance is not the commonest one, at least: on fewer the whole rank order hangs."""


@dataclass(frozen=True)
class Verdict:
    """What was found, in one word and in sentences."""

    finding: str
    """`evidence`, `no evidence`, `evidence of the opposite`, or `too little data`."""
    text: str


def verdict(
    correlation: RankCorrelation, variances_N: Sequence[float], action_tokens: int, *, silent: int
) -> Verdict:
    """Say what the pre-declared test shows.

    Args:
        correlation: Between the groups' variance of the return and the mean energy of their action tokens.
        variances_N: Those variances.
        action_tokens: How many action tokens there are.
        silent: Groups whose returns do not vary at all, among all groups.
    """
    groups = correlation.groups
    if not action_tokens:
        return Verdict("too little data", "No evidence: there are no action tokens to judge by.")
    if groups < FEWEST_GROUPS:
        few = f"{groups} group{'s' if groups != 1 else ''} with action tokens"
        return Verdict(
            "too little data",
            f"No evidence either way: {few}, and at least {FEWEST_GROUPS} are needed.",
        )
    off = groups - max(Counter(variances_N).values())
    if off == 0:
        kind = (
            "no group with action tokens has returns that vary"
            if variances_N[0] == 0
            else "all groups' returns vary alike"
        )
        return Verdict(
            "too little data", f"No evidence of an action bottleneck: {kind}, so nothing can follow them."
        )
    if off < FEWEST_VARIED:
        return Verdict(
            "too little data",
            f"No evidence either way: the variance of the return is the same in all but {off} of {groups}"
            f" groups; at least {FEWEST_VARIED} that differ are needed.",
        )
    if not correlation.low <= correlation.high:  # NaN
        return Verdict(
            "too little data",
            "No evidence of an action bottleneck: the mean energy of actions is the same in all groups.",
        )
    return _judged(correlation, silent)


def _judged(correlation: RankCorrelation, silent: int) -> Verdict:
    figures = (
        f"ρ = {correlation.rho:+.2f}, 95 % interval {_bound(correlation.low)} to {_bound(correlation.high)},"
        f" {correlation.groups} groups with action tokens; of all groups {silent} without any variance"
    )
    if correlation.low > 0:
        return Verdict(
            "evidence",
            "Evidence that the energy of action tokens is higher where the return varies more, as an action"
            f" bottleneck would have it ({figures}). It is a correlation over start states: it does not show"
            " that actions cause the variance, nor that other tokens play no part.",
        )
    if correlation.high < 0:
        return Verdict(
            "evidence of the opposite",
            "No evidence of an action bottleneck, but of the opposite: the energy of action tokens is lower"
            f" where the return varies more ({figures}).",
        )
    return Verdict(
        "no evidence",
        "No evidence of an action bottleneck: the interval of the correlation between the variance of the"
        f" return and the energy of action tokens holds 0 ({figures}). That does not show that there is none:"
        f" the interval also holds every ρ up to {_bound(correlation.high)}.",
    )


def _bound(value: float) -> str:
    """Two digits, or as many as tell it from 0: on its sign the verdict rests."""
    return f"{value:+.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:+.1g}"
