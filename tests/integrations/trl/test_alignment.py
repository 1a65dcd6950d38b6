"""Roles stay with their tokens through TRL's shuffling, splitting, padding and truncation.

Promises: every row of every micro-batch carries the roles its tokens were written with; padding, observations
and completions that do not count are CONTEXT. The same comparison fails when roles are late by one token or
inverted.
"""

from pathlib import Path

import pytest
import torch

from actfocus.integrations.trl import trainer as trainer_module
from tests.integrations.trl.scripted import ACTION, CONTEXT, MUTATIONS, OTHER, REASONING, line, trainer


def collected(tmp_path: Path, **settings):
    """The micro-batches of two generations, as TRL holds them."""
    made = trainer(tmp_path, steps_per_generation=4, max_steps=4, **settings)
    kept = []
    generate = made._generate_and_score_completions

    def watch(inputs):
        kept.append(made._buffered_inputs)
        return generate(inputs)

    made._generate_and_score_completions = watch
    made.train()
    return [batch for buffer in [*kept[1:], made._buffered_inputs] for batch in buffer]


def check(batches, *, counts=lambda ids: True):
    """Compare with what was written; a row is known by its ids."""
    written = {}
    for number in range(32):
        each = line(number)
        written.setdefault(tuple(each.ids), each.roles)
    seen = 0
    for batch in batches:
        for ids, roles, mask in zip(
            batch["completion_ids"], batch["focus_roles"], batch["completion_mask"], strict=True
        ):
            row = next(key for key in written if list(key) == ids[: len(key)].tolist() and fits(key, ids))
            expected = written[row] if counts(row) else [CONTEXT] * len(row)
            expected = expected + [CONTEXT] * (len(ids) - len(row))
            assert roles.tolist() == expected
            assert mask.sum() in (0, len(row))
            seen += 1
    assert seen == 32


def fits(key, ids):
    return bool((ids[len(key) :] == 0).all())  # <|pad|>


def test_rows_carry_the_roles_they_were_written_with(tmp_path: Path) -> None:
    batches = collected(tmp_path)
    assert len(batches) == 8
    check(batches)
    roles = torch.cat([batch["focus_roles"].flatten() for batch in batches])
    assert {int(role) for role in roles.unique()} == {CONTEXT, REASONING, ACTION, OTHER}
    orders = [tuple(tuple(row) for row in batch["completion_ids"].tolist()) for batch in batches]
    assert len(set(orders)) > 1


def test_completions_that_do_not_count_have_no_roles(tmp_path: Path) -> None:
    end = line(0).ids[-1]
    batches = collected(tmp_path, mask_truncated_completions=True, pad_to_multiple_of=16)
    check(batches, counts=lambda ids: ids[-1] == end)
    assert any(not mask.any() for batch in batches for mask in batch["completion_mask"])


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_sees_wrong_roles(
    mutation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = MUTATIONS[mutation](trainer_module.completion_roles)
    monkeypatch.setattr(trainer_module, "completion_roles", wrong)
    batches = collected(tmp_path, focus=trainer_module.FocusConfig(beta=0))
    with pytest.raises(AssertionError):
        check(batches)


def test_weights_stay_with_their_roles(tmp_path: Path) -> None:
    """The advantages that reach the loss are A · w, with one A per row and one scale per update."""
    batches = collected(tmp_path, focus=trainer_module.FocusConfig(alpha=0.25, beta=0, other_weight=0.5))
    table = torch.tensor([0.0, 0.25, 1.0, 0.5])
    for batch in batches:
        weights = table[batch["focus_roles"].long()]
        assert torch.equal(batch["focus_weights"], weights)
        ratio = batch["advantages"] / weights.where(weights > 0, torch.nan)
        spread = ratio.nan_to_num(-1e9).amax(1) - ratio.nan_to_num(1e9).amin(1)
        assert spread.abs().max() < 1e-6
