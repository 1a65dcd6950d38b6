"""The record of one episode, token by token."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from actfocus.focus.roles import Role


class Start(NamedTuple):
    """Where a trajectory starts, and every seed it needs: nothing else decides how it runs."""

    group: int
    """Trajectories of one group share the level."""
    member: int
    level_seed: int
    chance_seed: int
    """Seed of the environment's chance (slips)."""
    sampling_seed: int
    """Seed of the uniform numbers that tokens are drawn with."""


@dataclass
class Trajectory:
    """One episode: the lists hold one entry per token, `rewards` and `problems` one per turn."""

    start: Start
    ids: list[int] = field(default_factory=list)
    roles: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """The sampler's log-probability of each sampled token at temperature 1; 0 for context."""
    turns: list[int] = field(default_factory=list)
    """The turn, from 0, that each token belongs to."""
    rewards: list[float] = field(default_factory=list)
    problems: list[str | None] = field(default_factory=list)
    """What was wrong with the reply of each turn."""
    success: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    """What the game reports at its end beside success, such as a score."""
    ended: str = ""
    """`terminated`, `truncated` (budget) or `context` (no room for another reply)."""

    @property
    def total_return(self) -> float:
        """R: the sum of all rewards and penalties."""
        return float(sum(self.rewards))  # a float also where there was no turn

    @property
    def sampled(self) -> int:
        """Tokens that the model sampled."""
        return sum(role != Role.CONTEXT for role in self.roles)

    def add_context(self, ids: list[int], turn: int) -> None:
        """Append tokens that the model did not sample."""
        self._extend(ids, [Role.CONTEXT] * len(ids), [0.0] * len(ids), turn)

    def add_reply(self, ids: list[int], roles: list[int], logprobs: list[float], turn: int) -> None:
        """Append the tokens of one sampled reply."""
        self._extend(ids, roles, logprobs, turn)

    def _extend(self, ids: list[int], roles: list[int], logprobs: list[float], turn: int) -> None:
        if not len(ids) == len(roles) == len(logprobs):
            raise ValueError("one role and one log-probability per token")
        self.ids += ids
        self.roles += roles
        self.logprobs += logprobs
        self.turns += [turn] * len(ids)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON; `Trajectory.from_json` reads it back."""
        return asdict(self) | {"start": self.start._asdict()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Trajectory":
        """Inverse of `to_json`; other keys are ignored."""
        names = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        return cls(**(names | {"start": Start(**record["start"])}))


def mean_figures(records: Sequence[Trajectory]) -> dict[str, float]:
    """The mean of each of the game's own figures over some episodes."""
    names = sorted({name for record in records for name in record.figures})
    return {name: math.fsum(r.figures.get(name, 0.0) for r in records) / len(records) for name in names}
