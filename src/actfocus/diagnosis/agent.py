"""Whom the diagnosis is about: a policy, the frozen reference beside it, and what the policy wrote."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from actfocus.config import FocusConfig
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.rollout.trajectory import Trajectory


@dataclass(frozen=True)
class Agent:
    """A policy and its reference."""

    policy: LanguageModel
    chat: Chat
    reference: LanguageModel | None = None
    """None: the policy is its own reference; if it is `trained` and has LoRA adapters, without them."""
    trained: bool = False
    """Whether the policy has moved from its reference."""

    @property
    def is_reference(self) -> bool:
        """Whether the policy is its own reference, so that the shift is 0 everywhere."""
        return self.reference is None and not self.trained

    @property
    def longest(self) -> int | None:
        """Tokens that both models read at most; None if neither says."""
        said = [model.longest for model in (self.policy, self.reference) if model is not None]
        return min((length for length in said if length is not None), default=None)

    @contextmanager
    def frozen(self) -> Iterator[LanguageModel]:
        """The reference, for the time of `with`."""
        if self.reference is not None:
            yield self.reference
        elif self.trained:
            with self.policy.without_adapters():
                yield self.policy
        else:
            yield self.policy


@dataclass
class Subject:
    """An agent with episodes of its own, and how its tokens would be weighed."""

    agent: Agent
    records: list[Trajectory]
    focus: FocusConfig
    about: dict[str, Any]
    """Where all this comes from, for the result."""
    recorded: bool = False
    """Whether the episodes carry the log-probabilities of the policy that sampled them."""
    notes: list[str] = field(default_factory=list)
    """What the reader of the figures has to know."""
