"""Gradient share, promises:

1. Norms, shares and signal-to-noise ratios are those of explicit gradients, one token after the other, in
   float64; roles one token late, or turned round, would be noticed.
2. How many episodes go through the model at once, and in how many pieces their logits come, does not matter.
3. Only trained parameters count, only groups whose returns vary are used, and fewer than two give nothing.
"""

import math

import pytest
import torch

from actfocus.errors import NonFiniteError
from actfocus.focus import SAMPLED_ROLES, token_weights
from actfocus.report.progress import SilentProgress
from actfocus.training.gradients import GradientShare, gradient_share
from tests import oracle
from tests.small import small_batch

ALPHA, BETA = 0.1, 0.5


def weights_of(batch, roles_BT=None):
    generator = torch.Generator().manual_seed(11)
    signal_BT = torch.randn(batch.roles_BT.shape, generator=generator, dtype=torch.float64)
    roles_BT = batch.roles_BT if roles_BT is None else roles_BT
    return token_weights(roles_BT, signal_BT, alpha=ALPHA, beta=BETA, other_weight=0.3)


def grpo(batch):
    """The advantage of each trajectory, at each of its tokens."""
    advantages_B = torch.tensor(oracle.grpo_advantages(batch.returns_B.numpy(), batch.groups_B.numpy()))
    return advantages_B[:, None].expand(batch.roles_BT.shape)


def measured(model, batch, *, micro_batch=2, most_groups=None, weights_BT=None, advantages_BT=None):
    return gradient_share(
        model,
        batch,
        grpo(batch) if advantages_BT is None else advantages_BT,
        weights_of(batch) if weights_BT is None else weights_BT,
        micro_batch=micro_batch,
        progress=SilentProgress(),
        most_groups=most_groups,
    )


def token_gradients(model, ids):
    """For each token after the first, ∇ log π of it by all trained parameters, from a pass of its own."""
    found = [None]
    for t in range(1, len(ids)):
        logits_TV = model.causal_lm(input_ids=torch.tensor([ids[:t]])).logits[0]
        logprob = logits_TV[-1].log_softmax(-1)[ids[t]]
        parts = torch.autograd.grad(logprob, model.parameters(), allow_unused=True)
        zeros = [
            torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), parts, strict=True)
        ]
        found.append(torch.cat([part.flatten() for part in zeros]))
    return found


def explicit(model, batch, weights_BT, advantages_BT=None):
    """The docstring's figures, by plain sums over explicit gradients: {(when, role): figures}."""
    advantages_BT = grpo(batch) if advantages_BT is None else advantages_BT
    groups = [g for g in range(int(batch.groups_B.max()) + 1) if advantages_BT[batch.groups_B == g].any()]
    wanted = {**{name: {int(role)} for name, role in SAMPLED_ROLES.items()}, "all": {1, 2, 3}}
    size = sum(p.numel() for p in model.parameters())
    sums = {
        (w, r, g): torch.zeros(size).double() for w in ("before", "after") for r in wanted for g in groups
    }
    tokens, weight = dict.fromkeys(wanted, 0), {"before": 0.0, "after": 0.0}
    for b in range(len(batch)):
        group = int(batch.groups_B[b])
        if group not in groups:
            continue
        length = int(batch.lengths_B[b])
        gradients = token_gradients(model, batch.ids_BT[b, :length].tolist())
        for t in range(length):
            role = int(batch.roles_BT[b, t])
            if role == 0:
                continue
            for when, w in (("before", 1.0), ("after", float(weights_BT[b, t]))):
                weight[when] += w
                for name, inside in wanted.items():
                    if role in inside:
                        sums[when, name, group] += w * float(advantages_BT[b, t]) * gradients[t]
                        tokens[name] += when == "before"
    figures = {}
    for when in ("before", "after"):
        norms = {r: float(sum(sums[when, r, g] for g in groups).norm()) for r in wanted}
        for name in wanted:
            each = [sums[when, name, g] for g in groups]
            mean = sum(each) / len(groups)
            deviation = math.sqrt(sum(float((g - mean).norm()) ** 2 for g in each) / (len(groups) - 1))
            figures[when, name] = {
                "tokens": tokens[name],
                "total": norms[name] / weight[when],
                "per_token": norms[name] / tokens[name],
                "share": math.nan if name == "all" else norms[name] / sum(norms[r] for r in SAMPLED_ROLES),
                "deviation": deviation,
                "signal_to_noise": float(mean.norm()) / deviation,
            }
    return figures


def check(found: GradientShare | None, expected, tolerance=2e-7):
    """Advantages are float32 in the batch: that is the tolerance, far below any shift."""
    assert found is not None
    for (when, name), figures in expected.items():
        got = vars(getattr(found, when)[name])
        assert got == pytest.approx(figures, rel=tolerance, nan_ok=True), (when, name)


def double(batch):
    batch.returns_B = batch.returns_B.double()
    return batch


def test_agrees_with_explicit_gradients_of_single_tokens(small, small_episodes):
    batch = double(small_episodes)
    weights_BT = weights_of(batch)
    found = measured(small, batch)
    check(found, explicit(small, batch, weights_BT), 1e-9)
    assert (found.groups, found.episodes) == (3, 9)
    assert found.noise_floor == pytest.approx(1 / math.sqrt(3))


def test_each_token_has_the_advantage_of_its_own(small, small_episodes):
    """PPO's differ from token to token; what stands at the context's tokens is not read."""
    batch = double(small_episodes)
    generator = torch.Generator().manual_seed(5)
    advantages_BT = torch.randn(batch.roles_BT.shape, generator=generator, dtype=torch.float64)
    found = measured(small, batch, advantages_BT=advantages_BT)
    check(found, explicit(small, batch, weights_of(batch), advantages_BT), 1e-9)
    with pytest.raises(AssertionError):
        check(found, explicit(small, batch, weights_of(batch), advantages_BT.roll(1, 1)), 1e-3)


@pytest.mark.parametrize("mistake", ["late", "early", "inverted"])
def test_shifted_or_inverted_roles_would_be_noticed(small, small_episodes, mistake):
    batch = double(small_episodes)
    expected = explicit(small, batch, weights_of(batch))
    roles_BT = batch.roles_BT
    if mistake == "inverted":
        wrong_BT = torch.tensor([0, 2, 1, 3], dtype=torch.int8)[roles_BT.long()]
    else:
        wrong_BT = roles_BT.roll(1 if mistake == "late" else -1, 1)
        wrong_BT[:, 0] = 0
    batch.roles_BT = wrong_BT
    with pytest.raises(AssertionError):
        check(measured(small, batch), expected, 1e-3)


@pytest.mark.parametrize("micro_batch", [1, 3, 50])
def test_portions_do_not_matter(small, small_episodes, micro_batch, monkeypatch):
    batch = double(small_episodes)
    whole = measured(small, batch)
    # Less than the tokens of a row: each piece of logits is computed again in every backward pass.
    monkeypatch.setattr("actfocus.models.language_model.LOGIT_CHUNK", 2)
    found = measured(small, batch, micro_batch=micro_batch)
    for when in ("before", "after"):
        for role, figures in getattr(whole, when).items():
            assert vars(getattr(found, when)[role]) == pytest.approx(vars(figures), rel=1e-9, nan_ok=True)


def test_only_trained_parameters_count(small, small_episodes):
    batch = double(small_episodes)
    everything = measured(small, batch)
    for name, parameter in small.model.named_parameters():
        parameter.requires_grad_("attn" in name)
    found = measured(small, batch)
    check(found, explicit(small, batch, weights_of(batch)), 1e-9)
    assert found.before["all"].total < everything.before["all"].total


def test_equal_action_weights_need_no_pass_of_their_own(small, small_episodes):
    batch = double(small_episodes)
    weights_BT = token_weights(batch.roles_BT, alpha=0.2, beta=0.0).double()
    found = measured(small, batch, weights_BT=weights_BT)
    expected = explicit(small, batch, weights_BT)
    check(found, expected, 1e-7)
    for role in ("reasoning", "action"):
        ratio = found.after[role].signal_to_noise / found.before[role].signal_to_noise
        assert ratio == pytest.approx(1)


def test_uniform_weights_change_nothing(small, small_episodes):
    weights_BT = token_weights(small_episodes.roles_BT, alpha=1.0, beta=0.0)
    found = measured(small, small_episodes, weights_BT=weights_BT)
    for role, figures in found.before.items():
        assert vars(found.after[role]) == pytest.approx(vars(figures), nan_ok=True)


def test_the_first_groups_that_vary(small, small_episodes):
    found = measured(small, small_episodes, most_groups=2)
    rows = [b for b in range(len(small_episodes)) if small_episodes.groups_B[b] in (0, 2)]
    weights_BT = weights_of(small_episodes)[rows]
    part = small_episodes.rows(rows)
    alone = measured(small, part, weights_BT=weights_BT[:, : part.ids_BT.shape[1]])
    assert found == alone and found.groups == 2


def test_what_stands_at_context_is_not_read(small, small_episodes):
    advantages_BT = grpo(small_episodes).clone()
    advantages_BT[small_episodes.groups_B == 0] = 0  # a group that has nothing to say
    expected = measured(small, small_episodes, advantages_BT=advantages_BT)
    advantages_BT[~small_episodes.sampled_BT] = math.nan
    assert measured(small, small_episodes, advantages_BT=advantages_BT) == expected


def test_without_varying_groups_there_is_nothing_to_say(small):
    batch = small_batch(groups=2)
    assert measured(small, batch) is None
    assert measured(small, small_batch(groups=4), most_groups=1) is None


def test_a_broken_model_is_refused(small, small_episodes):
    with torch.no_grad():
        small.parameters()[0].fill_(math.inf)
    with pytest.raises(NonFiniteError, match="gradient"):
        measured(small, small_episodes)


def test_weights_that_differ_among_reasoning_tokens_are_refused(small, small_episodes):
    weights_BT = torch.rand(small_episodes.roles_BT.shape)
    with pytest.raises(ValueError, match="reasoning"):
        measured(small, small_episodes, weights_BT=weights_BT)


def test_shares_are_left_out_where_there_is_no_gradient_to_divide(small, small_episodes):
    """With α = 0 and no action all weights are 0: NaN is no figure for `metrics.jsonl`."""
    batch = double(small_episodes)
    shares = measured(small, batch).shares()
    assert shares["groups"] == 3
    for when in ("before", "after"):
        assert sum(shares[when].values()) == pytest.approx(1)
    nothing_BT = torch.zeros(batch.roles_BT.shape, dtype=torch.float64)
    assert measured(small, batch, weights_BT=nothing_BT).shares() is None
