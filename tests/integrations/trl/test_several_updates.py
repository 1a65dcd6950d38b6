"""Several updates on one generation: each has the Σw of its own tokens, TRL's mean token number beside it.

By hand, for `dapo`: with n tokens in update u, N in the whole generation of k updates, and ratios of 1, the
loss of the update is −Σ A · w / w̄ / (N / k), where w̄ = Σw / n over the tokens of u.
"""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from actfocus.integrations.trl import FocusConfig
from tests.integrations.trl.scripted import (
    ACTION,
    CONTEXT,
    GROUP,
    OTHER,
    REASONING,
    Recorder,
    line,
    losses_of,
    trainer,
)

WEIGHTS = {CONTEXT: 0.0, REASONING: 0.1, ACTION: 1.0, OTHER: 0.3}
UPDATES = 2


def advantage(number: int) -> float:
    first = number - number % GROUP
    totals = [line(other).total for other in range(first, first + GROUP)]
    return (line(number).total - mean(totals)) / (stdev(totals) + 1e-4)


def numbers(batch: dict[str, Any]) -> list[int]:
    """Which lines the rows of a micro-batch are."""
    known = {(*line(number).prompt, -1, *line(number).ids): number for number in range(16)}
    found = []
    for prompt, real, ids, mask in zip(
        *(batch[key] for key in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")),
        strict=True,
    ):
        found.append(known[*prompt[real.bool()].tolist(), -1, *ids[mask.bool()].tolist()])
    return found


def test_each_update_has_the_weight_of_its_own_tokens(tmp_path: Path) -> None:
    made = trainer(
        tmp_path,
        focus=FocusConfig(alpha=0.1, beta=0, other_weight=0.3),
        steps_per_generation=4,
        max_steps=UPDATES,
        learning_rate=0.0,  # so that the ratios of the second update are 1 too
    )
    kept = Recorder(made)
    losses = losses_of(made)
    made.train()
    of_updates = [
        [n for batch in kept.batches[0][first : first + 2] for n in numbers(batch)] for first in (0, 2)
    ]
    assert sorted(of_updates[0] + of_updates[1]) == list(range(16))
    everything = sum(role != CONTEXT for n in range(16) for role in line(n).roles)
    scales = []
    for update, rows in enumerate(of_updates):
        weights = {n: [WEIGHTS[role] for role in line(n).roles] for n in rows}
        tokens = sum(role != CONTEXT for n in rows for role in line(n).roles)
        weight = sum(map(sum, weights.values()))
        terms = sum(advantage(n) * sum(weights[n]) for n in rows)
        expected = -terms / (weight / tokens) / (everything / UPDATES)
        assert sum(losses[2 * update : 2 * update + 2]) == pytest.approx(expected, abs=1e-5)
        assert abs(expected) > 1e-3
        scales.append(weight / tokens)
    assert abs(scales[0] - scales[1]) > 1e-3  # one w̄ for both would show
