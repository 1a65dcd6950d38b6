"""Sweeps over alpha or beta: arms of a comparison that differ in one of them and in nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SYMBOLS = {"alpha": "α", "beta": "β"}
FEWEST_VALUES = 3
"""Two arms that differ in one setting are a comparison, not a sweep."""


@dataclass(frozen=True)
class Sweep:
    """The arms of one sweep, in the order of their values."""

    key: str
    held: str
    """The other settings, for a legend."""
    arms: dict[float, str]


def find_sweeps(arms: Mapping[str, Any], key: str) -> list[Sweep]:
    """The sweeps over `key` (`alpha` or `beta`) among arms with their canonical `focus`.

    An arm with beta = 0 has no signal to speak of: it is part of a sweep over beta of any signal.
    """
    other = {"alpha": "beta", "beta": "alpha"}[key]
    focuses = {name: arm["focus"] for name, arm in arms.items()}
    signals = {focus["signal"] for focus in focuses.values() if focus["beta"] > 0} or {"energy"}
    found = []
    for signal in sorted(signals):
        members: dict[tuple[float, float | None], dict[float, str]] = {}
        for name, focus in focuses.items():
            if focus["beta"] == 0 or focus["signal"] == signal:
                weights = {focus["other_weight"]}
                if key == "alpha" and focus["other_weight"] is None:
                    weights.add(focus["alpha"])  # where alpha comes by the weight that is held, both are one
                for weight in weights:
                    members.setdefault((focus[other], weight), {})[focus[key]] = name
        for (value, weight), named in members.items():
            if len(named) >= FEWEST_VALUES:
                text = f"{SYMBOLS[other]} = {value:g}"
                text += f", {signal}" if len(signals) > 1 else ""
                text += f", other weight {weight:g}" if weight is not None else ""
                found.append(Sweep(key, text, dict(sorted(named.items()))))
    return found
