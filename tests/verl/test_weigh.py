"""The advantages that verl is given, token by token. Needs no verl: its loss reads them in test_weighting."""

import math

import pytest
import torch

from actfocus.config import FocusConfig
from actfocus.integrations.verl.weighting import weigh

ROLES = torch.tensor([[3, 1, 1, 3, 2, 2, 3, 0, 0], [1, 2, 3, 0, 0, 1, 3, 2, 3], [3, 1, 2, 0, 0, 0, 0, 0, 0]])
ROLES = ROLES.to(torch.int8)
MINI_BATCHES = [[0, 2], [1]]


def test_every_token_has_its_advantage_times_its_weight() -> None:
    """A · w · N / Σw, with N and Σw of the mini-batch; 0 where nothing was sampled, whatever stands there."""
    focus = FocusConfig(alpha=0.2, beta=0.8, other_weight=0.3)
    draw = torch.Generator().manual_seed(0)
    advantages, signal = (torch.randn(ROLES.shape, generator=draw, dtype=torch.float64) for _ in range(2))
    advantages[ROLES == 0] = math.nan
    found = weigh(advantages, ROLES, signal, ROLES != 0, MINI_BATCHES, focus)
    of_actions = [float(signal[place]) for place in zip(*torch.where(ROLES == 2), strict=True)]
    mean = sum(of_actions) / len(of_actions)
    deviation = math.sqrt(sum((each - mean) ** 2 for each in of_actions) / len(of_actions) + 1e-6)

    def weight(role: int, value: float) -> float:
        action = 1 + 0.8 / (1 + math.exp(-(value - mean) / deviation))
        return {0: 0.0, 1: 0.2, 2: action, 3: 0.3}[role]

    for rows in MINI_BATCHES:
        weights = {(b, t): weight(int(ROLES[b, t]), float(signal[b, t])) for b in rows for t in range(9)}
        tokens = sum(weight > 0 for weight in weights.values())
        for (b, t), each in weights.items():
            expected = float(advantages[b, t]) * each * tokens / sum(weights.values()) if each else 0.0
            assert float(found.advantages_BR[b, t]) == pytest.approx(expected, rel=1e-6), (b, t)
    assert found.metrics["focus/action_share"] == pytest.approx(5 / 17)
    assert found.metrics["focus/reasoning_share"] == pytest.approx(5 / 17)


def test_an_update_without_weight_is_counted_and_moves_nothing() -> None:
    without = torch.where(ROLES == 2, 3, ROLES).to(torch.int8)
    without[1] = ROLES[1]
    found = weigh(torch.ones(3, 9), without, None, ROLES != 0, MINI_BATCHES, FocusConfig(alpha=0, beta=0))
    assert found.metrics["focus/weightless_updates"] == 1
    assert not found.advantages_BR[[0, 2]].any()
    assert found.advantages_BR[1].nonzero().flatten().tolist() == [1, 7]
