"""Scoring, promises:

1. Every figure stands at its own token, as if each row had been computed alone and without padding.
2. Passes that nothing needs do not run; those that run see every row once.
3. Ranks score shares that add up to the whole, also a rank that has no row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from actfocus.config import Config
from actfocus.distributed import Processes
from actfocus.focus import Role
from actfocus.models.chat import Chat
from actfocus.models.critic import Critic
from actfocus.models.language_model import LanguageModel
from actfocus.models.reference import Reference, make_reference
from actfocus.rollout.batch import Batch, collate
from actfocus.rollout.trajectory import Trajectory
from actfocus.training.scoring import Scorer, micro_batches
from tests.training.by_hand import Figures, perturb

MakeConfig = Callable[..., Config]
Model = tuple[LanguageModel, Chat]


@dataclass
class Spy:
    """Passes calls on and remembers which rows and how many chosen tokens they had."""

    score: Callable[..., Any]
    rows: list[list[int]] = field(default_factory=list)
    tokens: int = 0
    roles: set[int] = field(default_factory=set)

    def __call__(self, ids_BT: torch.Tensor, chosen_BT: torch.Tensor) -> Any:
        self.rows += [ids.tolist() for ids in ids_BT]
        self.tokens += int(chosen_BT.sum())
        return self.score(ids_BT, chosen_BT)

    token_scores = __call__


@dataclass
class Passes:
    policy: Spy
    reference: Spy | None
    critic: Spy | None


def score(
    config: Config,
    policy: LanguageModel,
    batch: Batch,
    processes: Processes,
    reference: Reference | None = None,
) -> Passes:
    """Score as `Run` does, with spies in between."""
    critic = Critic(policy) if config.algorithm.name == "ppo" else None
    if critic is not None:
        perturb(critic, 1)
    if reference is None and config.needs_reference:
        reference = make_reference(policy)
    spies = Passes(
        Spy(policy.token_scores),
        Spy(reference.token_scores) if reference else None,
        Spy(critic) if critic else None,
    )
    original, policy.token_scores = policy.token_scores, spies.policy  # type: ignore[method-assign]
    Scorer(config, processes, policy, spies.critic, spies.reference).score(batch)  # type: ignore[arg-type]
    policy.token_scores = original  # type: ignore[method-assign]
    return spies


def spread(batch: Batch, rows: list[torch.Tensor]) -> torch.Tensor:
    """Figures of the sampled tokens of each row, laid on [B, T]."""
    laid_BT = torch.zeros(batch.ids_BT.shape, dtype=torch.float64)
    laid_BT[batch.sampled_BT] = torch.cat(rows)
    return laid_BT


@pytest.mark.parametrize("micro_batch", [1, 3, 32])
def test_every_figure_stands_at_its_own_token(
    micro_batch: int,
    make_config: MakeConfig,
    loaded: Model,
    batch: Batch,
    processes: Processes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # the critic's head, in float64
    policy = loaded[0]
    policy.model.double()
    reference = make_reference(policy)
    frozen = Figures(policy, None, batch).detached()
    perturb(policy.model, 7)
    critic = Critic(policy).double()
    perturb(critic, 8)
    expected = Figures(policy, critic, batch).detached()
    algorithm = {"name": "ppo", "kl_coefficient": 0.1}
    config = make_config(algorithm=algorithm, optimizer={"micro_batch": micro_batch})
    Scorer(config, processes, policy, critic, reference).score(batch)
    found = {
        "old_logprobs": (batch.old_logprobs_BT, expected.logprobs),
        "values": (batch.values_BT, expected.values),
        "ref_logprobs": (batch.ref_logprobs_BT, frozen.logprobs),
        "signal": (batch.signal_BT, frozen.energies),
        "energy": (batch.energy_BT, frozen.energies),
        "entropy": (batch.entropy_BT, expected.entropies),
    }
    for name, (tensor_BT, rows) in found.items():
        right_BT = spread(batch, rows)
        assert tensor_BT is not None, name
        assert (tensor_BT - right_BT).abs().max() <= 1e-10, name
        assert (tensor_BT[~batch.sampled_BT] == 0).all(), name
        # One token further, and it would show at almost every token.
        assert ((tensor_BT - right_BT.roll(1, dims=1)).abs() > 1e-6)[
            batch.sampled_BT
        ].double().mean() > 0.9, name
        assert ((tensor_BT - right_BT.roll(1, dims=0)).abs() > 1e-6)[
            batch.sampled_BT
        ].double().mean() > 0.9, name


@pytest.mark.parametrize("signal", ["energy", "entropy", "nll", "shift"])
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_signals_are_what_they_are_defined_as(
    signal: str, kl: float, make_config: MakeConfig, loaded: Model, batch: Batch, processes: Processes
) -> None:
    policy = loaded[0]
    policy.model.double()
    reference = make_reference(policy)
    frozen = Figures(policy, None, batch).detached()
    perturb(policy.model, 7)
    now = Figures(policy, None, batch).detached()
    config = make_config(focus={"signal": signal}, algorithm={"kl_coefficient": kl})
    score(config, policy, batch, processes, reference)
    expected = {
        "energy": frozen.energies,
        "entropy": frozen.entropies,
        "nll": [-row for row in now.logprobs],
        "shift": [new - old for new, old in zip(now.logprobs, frozen.logprobs, strict=True)],
    }[signal]
    is_action_BT = batch.roles_BT == Role.ACTION
    assert batch.signal_BT is not None
    difference = (batch.signal_BT - spread(batch, expected))[is_action_BT]
    assert len(difference) > 8
    assert difference.abs().max() <= 1e-10
    assert expected[0].abs().max() > 1e-3


# (settings, whether the reference is needed)
NEEDS: list[tuple[dict[str, Any], bool]] = [
    ({"focus": {"alpha": 1.0, "beta": 0.0}}, False),
    ({"focus": {"signal": "nll"}}, False),
    ({}, True),
    ({"focus": {"signal": "entropy"}}, True),
    ({"focus": {"signal": "shift"}}, True),
    ({"algorithm": {"kl_coefficient": 0.1}}, True),
    ({"algorithm": {"kl_coefficient": 0.1}, "focus": {"beta": 0.0}}, True),
    ({"algorithm": {"kl_coefficient": 0.1}, "focus": {"signal": "nll"}}, True),
    ({"algorithm": {"name": "ppo"}}, True),
]


@pytest.mark.parametrize(("settings", "needed"), NEEDS)
def test_each_needed_pass_runs_once(
    settings: dict[str, Any],
    needed: bool,
    make_config: MakeConfig,
    loaded: Model,
    batch: Batch,
    processes: Processes,
) -> None:
    config = make_config(**settings)
    assert config.needs_reference == needed
    spies = score(config, loaded[0], batch, processes)
    sampled = int(batch.sampled_BT.sum())
    assert len(spies.policy.rows) == len(batch)
    assert spies.policy.tokens == sampled
    if spies.critic is not None:
        assert (len(spies.critic.rows), spies.critic.tokens) == (len(batch), sampled)
    assert (spies.reference is not None) == needed
    if spies.reference is not None:
        # KL, signal and metrics share the one pass: no row is seen twice.
        assert (len(spies.reference.rows), spies.reference.tokens) == (len(batch), sampled)
    # What the pass tells anyway is recorded, also where no weight and no loss needs it.
    assert (batch.ref_logprobs_BT is not None) == needed
    assert (batch.signal_BT is not None) == (needed or config.focus.beta > 0)
    assert (batch.energy_BT is not None) == needed


def test_nothing_that_was_scored_needs_a_gradient(
    make_config: MakeConfig, loaded: Model, batch: Batch, processes: Processes
) -> None:
    score(make_config(algorithm={"name": "ppo", "kl_coefficient": 0.1}), loaded[0], batch, processes)
    assert not any(t.requires_grad for t in vars(batch).values() if isinstance(t, torch.Tensor))


def test_a_batch_without_action_tokens_is_legal(
    make_config: MakeConfig, loaded: Model, batch: Batch, processes: Processes
) -> None:
    batch.roles_BT[batch.roles_BT == Role.ACTION] = int(Role.OTHER)
    score(make_config(), loaded[0], batch, processes)
    assert batch.signal_BT is not None
    assert (batch.signal_BT[batch.sampled_BT] != 0).all()
    assert (batch.signal_BT[~batch.sampled_BT] == 0).all()


def test_micro_batches_are_a_partition_of_alike_rows_longest_first(batch: Batch) -> None:
    parts = list(micro_batches(batch, [7, 1, 2, 3, 5], 2))
    assert sorted(row for part in parts for row in part) == [1, 2, 3, 5, 7]
    assert [len(part) for part in parts] == [2, 2, 1]
    lengths = [int(batch.lengths_B[row]) for part in parts for row in part]
    assert lengths == sorted(lengths, reverse=True)
    assert list(micro_batches(batch, [], 2)) == []


class OneOf(Processes):
    """One rank of several that are looked at one after the other."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def test_shares_of_the_ranks_add_up(
    make_config: MakeConfig, loaded: Model, demonstrated: list[Trajectory], processes: Processes
) -> None:
    config = make_config(algorithm={"name": "ppo", "kl_coefficient": 0.1})
    critic, reference = Critic(loaded[0]), make_reference(loaded[0])

    def scored(where: Processes) -> Batch:
        batch = collate(demonstrated[:3])
        Scorer(config, where, loaded[0], critic, reference).score(batch)
        return batch

    whole = scored(processes)
    parts = [scored(OneOf(rank, 5)) for rank in range(5)]  # two of them have no row
    for name in ("old_logprobs_BT", "values_BT", "ref_logprobs_BT", "signal_BT"):
        shares = [getattr(part, name) for part in parts]
        assert {share.shape for share in shares} == {getattr(whole, name).shape}
        torch.testing.assert_close(sum(shares), getattr(whole, name), rtol=1e-5, atol=1e-5)
