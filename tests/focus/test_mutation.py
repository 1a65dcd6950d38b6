"""Would the tests notice? Each mutation breaks one function on purpose; the check named with it must fail.

An off-by-one between a token and what was computed for it is the likeliest mistake in this kind of code, and
training goes on happily with it. Every check also runs unbroken and must pass then.
"""

import pytest
import torch

from tests.algorithms import test_against_oracle as algorithms
from tests.focus import test_against_oracle as against_oracle
from tests.focus import test_bottleneck as diagnosis
from tests.focus import test_layout as layout
from tests.focus import test_roles as transcripts
from tests.modules import (
    bottleneck_module,
    grpo_module,
    objective_module,
    ppo_module,
    roles_module,
    signals_module,
    weights_module,
)

CONTEXT, REASONING, ACTION, OTHER = range(4)


# Checks: a function of the tests above, over enough batches ----------------------------------------------


def over(check, seeds, *args):
    """Run `check` on each seed."""

    def run():
        for seed in seeds:
            check(seed, *args)

    return run


CHECKS = {
    "roles": over(transcripts.check_roles, [1000], 60),
    "weights": over(against_oracle.check_weights, range(14)),
    "energy": over(against_oracle.check_energy, range(10)),
    "entropy": over(against_oracle.check_entropy, range(10)),
    "score_hidden": over(against_oracle.check_score_hidden, range(10)),
    "policy_loss": over(against_oracle.check_policy_loss, range(14)),
    "gae": over(algorithms.check_gae, range(14)),
    "whiten": over(algorithms.check_whiten, range(14)),
    "value_loss": over(algorithms.check_value_loss, range(14)),
    "grpo": over(algorithms.check_grpo, range(10)),
    "bottleneck": lambda: diagnosis.check_bottleneck(diagnosis.noise(0)),
    "micro_batches": over(layout.check_micro_batches, layout.trainable_seeds(14)),
    "padding": over(layout.check_padding, layout.trainable_seeds(14)),
    "row_order": over(layout.check_row_order, layout.trainable_seeds(14)),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_implementation_passes(name):
    CHECKS[name]()


# Mutations: (name, module, function, check that must fail, mutant made from the real function) -----------


def late(tensor):
    """Everything one place to the right, along the tokens."""
    return torch.roll(tensor, 1, -1)


def early(tensor):
    """Everything one place to the left."""
    return torch.roll(tensor, -1, -1)


def finite(tensor):
    """Without NaN and infinity, so that a mutant is caught by its numbers, not by a refusal of the input."""
    return torch.nan_to_num(tensor, nan=-20.0, posinf=-20.0, neginf=-20.0)


def swap(first, second):
    """A change of roles that exchanges two of them."""
    return lambda roles: torch.where(roles == first, second, torch.where(roles == second, first, roles)).to(
        roles.dtype
    )


def result(change):
    """A mutant whose result is changed."""
    return lambda real: lambda *args, **settings: change(real(*args, **settings))


def argument(place, change):
    """A mutant that sees a changed argument."""

    def mutate(real):
        return lambda *args, **settings: real(
            *args[:place], change(args[place]), *args[place + 1 :], **settings
        )

    return mutate


def setting(change):
    """A mutant that sees changed keyword arguments."""
    return lambda real: lambda *args, **settings: real(*args, **change(settings))


def weights_of(change_roles, change_signal=None):
    """`token_weights` of changed roles or a changed signal (None: as it is)."""

    def as_it_is(tensor_BT):
        return tensor_BT

    def mutate(real):
        return lambda roles_BT, signal_BT, **settings: real(
            (change_roles or as_it_is)(roles_BT), (change_signal or as_it_is)(finite(signal_BT)), **settings
        )

    return mutate


def statistics_per_row(real):
    """`token_weights` whose mean and deviation are those of a row, as of a micro-batch of one."""
    return lambda roles_BT, signal_BT, **settings: torch.cat(
        [real(roles_BT[[b]], signal_BT[[b]], **settings) for b in range(len(roles_BT))]
    )


def count_normalizer(real):
    """`policy_loss` divided by the number of tokens that weigh anything, not by the sum of the weights."""

    def mutant(logprobs_BT, old_BT, advantages_BT, weights_BT, *, normalizer=None, **settings):
        normalizer = float((weights_BT != 0).sum().clamp(min=1)) if normalizer is None else normalizer
        return real(logprobs_BT, old_BT, advantages_BT, weights_BT, normalizer=normalizer, **settings)

    return mutant


def gae_over_all_tokens(real):
    """`gae` that takes observation tokens for actions of the policy."""

    def mutant(rewards_BT, values_BT, sampled_BT, **settings):
        rewards_BT = torch.where(sampled_BT, rewards_BT, 0.0)
        values_BT = torch.where(sampled_BT, values_BT, 0.5)
        found = real(rewards_BT, values_BT, torch.ones_like(sampled_BT), **settings)
        return tuple(torch.where(sampled_BT, tensor_BT, 0.0) for tensor_BT in found)

    return mutant


def swapped_clip(settings):
    return settings | {"clip_low": settings["clip_high"], "clip_high": settings["clip_low"]}


def without_normalizer(settings):
    return settings | {"normalizer": None}


ROLES = roles_module, "token_roles", "roles"
WEIGHTS = weights_module, "token_weights", "weights"
ENERGY = signals_module, "token_energy", "energy"
SCORE = signals_module, "score_hidden", "score_hidden"
LOSS = objective_module, "policy_loss", "policy_loss"
GAE = ppo_module, "gae", "gae"
WHITEN = ppo_module, "whiten", "whiten"
VALUE = ppo_module, "value_loss", "value_loss"
GRPO = grpo_module, "grpo_advantages", "grpo"
BOTTLENECK = bottleneck_module, "bottleneck", "bottleneck"

MUTATIONS = {
    "roles one token late": (*ROLES, result(late)),
    "roles one token early": (*ROLES, result(early)),
    "roles of action and reasoning swapped": (*ROLES, result(swap(REASONING, ACTION))),
    "roles with sampled inverted": (*ROLES, argument(3, lambda sampled: [not s for s in sampled])),
    "roles with sampled one token late": (*ROLES, argument(3, lambda sampled: sampled[-1:] + sampled[:-1])),
    "spans one character late": (*ROLES, argument(2, lambda spans: [(s + 1, e + 1, r) for s, e, r in spans])),
    "spans one character longer": (*ROLES, argument(2, lambda spans: [(s, e + 1, r) for s, e, r in spans])),
    "weights of roles one token late": (*WEIGHTS, weights_of(late)),
    "weights of roles one token early": (*WEIGHTS, weights_of(early)),
    "weights of the signal one token late": (*WEIGHTS, weights_of(None, late)),
    "weights of the signal one token early": (*WEIGHTS, weights_of(None, early)),
    "weights of the signal with its sign turned": (*WEIGHTS, weights_of(None, torch.neg)),
    "weights of action and reasoning swapped": (*WEIGHTS, weights_of(swap(REASONING, ACTION))),
    "weights with sampled inverted": (*WEIGHTS, weights_of(swap(CONTEXT, OTHER))),
    "weights one token late": (*WEIGHTS, result(late)),
    "weights one token early": (*WEIGHTS, result(early)),
    "weights with the statistics of a row": (*WEIGHTS, statistics_per_row),
    "energy with its sign turned": (*ENERGY, result(torch.neg)),
    "energy one token late": (*ENERGY, result(late)),
    "energy one token early": (*ENERGY, result(early)),
    "targets one late": (*SCORE, argument(2, late)),
    "targets one early": (*SCORE, argument(2, early)),
    "logits one late": (*SCORE, argument(0, lambda hidden_ND: torch.roll(hidden_ND, 1, 0))),
    "logits one early": (*SCORE, argument(0, lambda hidden_ND: torch.roll(hidden_ND, -1, 0))),
    "log-probabilities one token late": (*LOSS, argument(0, late)),
    "log-probabilities one token early": (*LOSS, argument(0, early)),
    "old log-probabilities one token late": (*LOSS, argument(1, late)),
    "old log-probabilities one token early": (*LOSS, argument(1, early)),
    "advantages one token late": (*LOSS, argument(2, late)),
    "advantages one token early": (*LOSS, argument(2, early)),
    "loss weights one token late": (*LOSS, argument(3, late)),
    "loss weights one token early": (*LOSS, argument(3, early)),
    "clip bounds swapped": (*LOSS, setting(swapped_clip)),
    "loss divided by a count": (*LOSS, count_normalizer),
    "loss divided by the micro-batch's own sum": (
        objective_module, "policy_loss", "micro_batches", setting(without_normalizer),
    ),
    "value loss divided by the micro-batch's own count": (
        ppo_module, "value_loss", "micro_batches", setting(without_normalizer),
    ),
    "advantages over observation tokens": (*GAE, gae_over_all_tokens),
    "advantages that depend on observations": (ppo_module, "gae", "padding", gae_over_all_tokens),
    "gae with sampled one token late": (*GAE, argument(2, late)),
    "gae with sampled inverted": (*GAE, argument(2, torch.logical_not)),
    "gae with γ and λ exchanged": (*GAE, setting(lambda s: {"gamma": s["lam"], "lam": s["gamma"]})),
    "whitening with sampled inverted": (*WHITEN, argument(1, torch.logical_not)),
    "whitening with sampled one token early": (*WHITEN, argument(1, early)),
    "value loss of returns one token late": (*VALUE, argument(2, late)),
    "value loss with sampled inverted": (*VALUE, argument(3, torch.logical_not)),
    "groups one row late": (*GRPO, argument(1, late)),
    "groups by place, not by name": (
        grpo_module, "grpo_advantages", "grpo", argument(1, lambda groups_B: groups_B.sort().values),
    ),
    "diagnosis of energies one token late": (*BOTTLENECK, argument(0, lambda e_BT: late(finite(e_BT)))),
    "diagnosis of action and reasoning swapped": (*BOTTLENECK, argument(1, swap(REASONING, ACTION))),
    "diagnosis with returns one row late": (*BOTTLENECK, argument(2, late)),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught(name, monkeypatch):
    module, function, check, mutate = MUTATIONS[name]
    monkeypatch.setattr(module, function, mutate(getattr(module, function)))
    with pytest.raises(AssertionError):
        CHECKS[check]()
