"""The mixin in a real Ray actor on a real queue, between real workers of verl's: PPO with its critic.

Promises: the returns that the critic learns are verl's own, to the bit; weights are ours to the bit; verl's
actor reports the loss of the method, and its critic a loss that our weights do not touch.
"""

from typing import Any

import pytest
import torch

from actfocus.focus import token_weights
from tests.verl import readings
from tests.verl.readings import all_roles, padded, rows_of


@pytest.fixture(scope="module")
def table(ppo: Any) -> dict[str, Any]:
    return ppo(readings.step)


def test_returns_are_verls_own(table: dict[str, Any]) -> None:
    for found, plain in zip(table["returns"], table["plain_returns"], strict=True):
        assert torch.equal(found, plain)
    for row in rows_of(table):  # GAE with γ = λ = 1: the return of every sampled token is R
        sampled = row["response_mask"].bool()
        expected = row["rm_scores"].sum().expand(int(sampled.sum()))
        assert torch.allclose(row["returns"][sampled], expected, atol=1e-5)
    assert padded(table["returns"]).abs().max() > 0.05
    assert not torch.equal(padded(table["advantages"]), padded(table["plain_advantages"]))


def test_weights_are_ours_to_the_bit(table: dict[str, Any]) -> None:
    nll = -padded(table["old_log_probs"])
    expected = token_weights(all_roles(table), nll, alpha=0.1, beta=0.5, other_weight=0.3)
    assert torch.equal(padded(table["focus_weights"]), expected)
    assert len(expected.unique()) > 4


def test_a_signal_of_the_policy_needs_no_reference(table: dict[str, Any]) -> None:
    assert "ref_log_prob" not in table and "focus_signal" not in table


def test_verls_actor_reports_the_loss_of_the_method(table: dict[str, Any], ppo: Any) -> None:
    reported, (loss,) = ppo(readings.update), readings.losses(table, [[0, 1, 2, 3]])
    assert reported["actor/pg_loss"] == pytest.approx(loss, abs=1e-5)
    assert abs(loss) > 1e-3 and reported["actor/grad_norm"] > 0


def test_verls_critic_learns_the_same_with_weights_as_without(ppo: Any) -> None:
    weighted, plain = ppo(readings.critic_losses)
    assert weighted["critic/vf_loss"] == plain["critic/vf_loss"] > 0
    assert weighted["critic/grad_norm"] == pytest.approx(plain["critic/grad_norm"], rel=1e-5)
