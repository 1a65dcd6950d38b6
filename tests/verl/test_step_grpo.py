"""The mixin in a real Ray actor on a real queue, between real workers of verl's: GRPO on two ranks.

Promises: weights are ours to the bit, from roles that the test finds in the text by itself; the energies
that the reference worker returns are those of the model; verl's actor reports the loss of the method, over
two ranks and two shuffled mini-batches; rows that verl pads with count for nothing; a row without spans is a
clear error. The comparison fails where roles are late by one token or inverted.
"""

from typing import Any

import pytest
import ray
import torch

from actfocus.errors import ConfigError
from actfocus.focus import token_weights
from tests.verl import readings
from tests.verl.readings import ACTION, CONTEXT, OTHER, REASONING, all_roles, is_padding, padded, rows_of

UPDATES = readings.mini_batches(16, 2, 8, shuffle=True)


@pytest.fixture(scope="module")
def table(grpo: Any) -> dict[str, Any]:
    return grpo(readings.step)


def our_weights(table: dict[str, Any], **settings: Any) -> torch.Tensor:
    """From the signal in the queue: its place is that of the logits, one before the token."""
    signal = padded([row["focus_signal"][len(row["prompts"]) - 1 : -1] for row in rows_of(table)])
    return token_weights(all_roles(table), signal, **{"alpha": 0.1, "beta": 0.5, **settings})


def compare_with_ours(table: dict[str, Any], **settings: Any) -> None:
    assert torch.equal(padded(table["focus_weights"]), our_weights(table, **settings))


def test_the_batch_is_worth_testing(table: dict[str, Any]) -> None:
    roles = all_roles(table)
    assert {int(role) for role in roles.unique()} == {CONTEXT, REASONING, ACTION, OTHER}
    assert sum(is_padding(row) for row in rows_of(table)) == 1
    assert padded(table["plain_advantages"]).abs().max() > 0.1
    assert any(len(readings.replies(row)) > 1 for row in rows_of(table))


def test_weights_are_ours_to_the_bit(table: dict[str, Any]) -> None:
    compare_with_ours(table)
    assert len(padded(table["focus_weights"]).unique()) > 4


@pytest.mark.parametrize("wrong", ["shifted", "inverted"])
def test_the_comparison_sees_wrong_roles(wrong: str, grpo: Any) -> None:
    right = grpo(readings.with_wrong_roles, "right")
    compare_with_ours(right, beta=0.0)
    with pytest.raises(AssertionError):
        compare_with_ours(grpo(readings.with_wrong_roles, wrong), beta=0.0)


def test_energies_are_those_of_the_reference(table: dict[str, Any]) -> None:
    seen = 0
    for row in rows_of(table):
        ids = torch.cat([row["prompts"], row["responses"]])
        is_action = torch.zeros(len(ids), dtype=torch.bool)
        if not is_padding(row):
            is_action[len(row["prompts"]) :] = readings.expected_roles(row) == ACTION
        with torch.no_grad():
            energy = -readings.model()(ids[None]).logits[0].logsumexp(-1)
        found, places = row["focus_signal"], is_action.nonzero()[:, 0] - 1
        assert torch.allclose(found[places], energy[places], atol=1e-3)
        assert int(found.isfinite().sum()) == len(places)
        seen += len(places)
    assert seen > 8


def test_advantages_are_weighted_and_divided_by_the_mean_weight(table: dict[str, Any]) -> None:
    weights, plain, counted = (
        our_weights(table),
        padded(table["plain_advantages"]),
        padded(table["loss_mask"]),
    )
    expected = torch.zeros_like(plain)
    for rows in UPDATES:
        expected[rows] = plain[rows] * weights[rows] * (counted[rows].sum() / weights[rows].sum())
    assert torch.allclose(padded(table["advantages"]), expected, atol=1e-6)


def test_verls_actor_reports_the_loss_of_the_method(table: dict[str, Any], grpo: Any) -> None:
    reported, losses = grpo(readings.update), readings.losses(table, UPDATES)
    assert len(losses) == 2 and abs(losses[0] - losses[1]) > 1e-4
    assert reported["actor/pg_loss"] == pytest.approx(sum(losses) / 2, abs=1e-5)
    assert reported["actor/grad_norm"] > 0


def test_metrics(table: dict[str, Any]) -> None:
    roles, weights, metrics = all_roles(table), our_weights(table), table["metrics"]
    sampled = (roles != CONTEXT).sum()
    assert metrics["focus/action_share"] == pytest.approx(((roles == ACTION).sum() / sampled).item())
    assert metrics["focus/reasoning_share"] == pytest.approx(((roles == REASONING).sum() / sampled).item())
    assert metrics["focus/weight_per_token"] == pytest.approx((weights.sum() / sampled).item())
    assert metrics["focus/weightless_updates"] == 0


@pytest.mark.parametrize("how", ["empty", "absent"])
def test_missing_spans_are_a_clear_error(how: str, grpo: Any) -> None:
    with pytest.raises(ray.exceptions.RayTaskError) as raised:
        grpo(readings.without_spans, how)
    assert isinstance(raised.value.cause, ConfigError)
    assert "carries no spans" in str(raised.value.cause)
    assert "default_agent_loop" in str(raised.value.cause)


@pytest.mark.parametrize("name", ["shift", "nll"])
def test_signals_of_the_log_probabilities(name: str, grpo: Any) -> None:
    table = grpo(readings.with_signal, name)
    old, ref = padded(table["old_log_probs"]), padded(table["ref_log_prob"])
    signal = old - ref if name == "shift" else -old
    expected = token_weights(all_roles(table), signal, alpha=0.1, beta=0.5)
    assert torch.equal(padded(table["focus_weights"]), expected)


def test_entropies_are_those_of_the_reference(grpo: Any) -> None:
    table, seen = grpo(readings.with_signal, "entropy"), 0
    compare_with_ours(table)
    for row in rows_of(table):
        ids = torch.cat([row["prompts"], row["responses"]])
        with torch.no_grad():
            p = readings.model()(ids[None]).logits[0].softmax(-1)
        entropy, places = -(p * p.log()).sum(-1), row["focus_signal"].isfinite()
        assert torch.allclose(row["focus_signal"][places], entropy[places], atol=1e-3)
        seen += int(places.sum())
    assert seen > 8


def test_uniform_weights_change_no_bit(grpo: Any) -> None:
    table = grpo(readings.uniform)
    for found, plain in zip(table["advantages"], table["plain_advantages"], strict=True):
        assert torch.equal(found, plain)


def test_without_any_weight_no_update_is_made(grpo: Any) -> None:
    metrics = grpo(readings.weightless)
    assert metrics["focus/weightless_updates"] == 2
    assert not any(name.startswith("actor/") for name in metrics)


def test_a_step_without_any_action_is_said_once(grpo: Any) -> None:
    (said,) = grpo(readings.without_actions, 0.1, 0.5)
    assert "step 1 has no action token" in said and "'Your own data' in docs/verl.md" in said
    assert not grpo(readings.without_actions, 1.0, 0.0)  # plain GRPO is what was asked for
