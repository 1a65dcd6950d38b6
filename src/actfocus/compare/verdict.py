"""What a difference allows to be said, in words that cannot claim more than its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

from actfocus.compare.statistics import FEWEST


def verdict(difference: Mapping[str, Any], pairs: Sequence[int]) -> dict[str, Any]:
    """`claim` (higher, lower, none, unknown), `low` and `high`, and `text`.

    The interval reaches from the lowest to the highest bound of the bootstrap's and of Student's: the
    bootstrap of three seeds covers 74 % instead of 95 %, Student's assumes a normal distribution, and a
    claim has to stand in both.
    """
    bootstrap, student = difference["bootstrap"], difference["student"]
    if min(pairs, default=0) == 0:
        return unknown("no two runs of equal seed to compare")
    if min(pairs) < FEWEST:
        return unknown(f"{counted(pairs)} of equal seed; an interval needs {FEWEST}")
    if bootstrap["low"] is None or student["low"] is None:
        return unknown("all pairs differ by the same amount, so their spread is unknown")
    low, high = min(bootstrap["low"], student["low"]), max(bootstrap["high"], student["high"])
    shown = f"interval {points(low)} to {points(high)} points, {counted(pairs)}"
    if low > 0:
        claim, text = "higher", f"higher by {points(student['value']).lstrip('+')} points: {shown}"
    elif high < 0:
        claim, text = "lower", f"lower by {points(student['value']).lstrip('−')} points: {shown}"
    else:
        claim, text = "none", f"no difference shown: {shown}"
    return {"claim": claim, "low": low, "high": high, "text": text}


def unknown(reason: str) -> dict[str, Any]:
    """That nothing may be said, and why."""
    return {"claim": "unknown", "low": None, "high": None, "text": f"no verdict: {reason}"}


def counted(pairs: Sequence[int]) -> str:
    """`5 pairs`, or `5 + 5 + 4 pairs` of several strata."""
    return f"{' + '.join(map(str, pairs))} {'pair' if list(pairs) == [1] else 'pairs'}"


def points(share: float) -> str:
    """A difference of shares as signed points, with as many decimals as it takes to tell it from zero."""
    for decimals in (1, 2, 3):
        text = f"{100 * share:+.{decimals}f}"
        if float(text) != 0:
            return text.replace("-", "−")
    return "0.0"
