"""bf16, TRL's default, and adapters with checkpointing where our sampler plays: as in float32 and plainly."""

import math
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from actfocus.focus import Role
from tests.integrations.trl.scripted import parameters, trainer
from tests.integrations.trl.test_rollout import made_with, make_rollout, rows, trained

LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])


def weights(made: Any) -> dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]]:
    """Roles and weights of each completion, by its ids."""
    found = {}
    for batch in made._buffered_inputs:
        keys = ("completion_ids", "completion_mask", "focus_roles", "focus_weights")
        for ids, mask, *rest in zip(*(batch[key] for key in keys), strict=True):
            count = int(mask.sum())
            found[tuple(ids[:count].tolist())] = tuple(row[:count] for row in rest)
    return found


def test_bf16_weighs_as_float32_does(tmp_path: Path) -> None:
    """Up to the rounding of the reference: 8 bits of a logit are 0.4 %, and energies are standardised."""
    found = []
    for bf16 in (False, True):
        made = trainer(tmp_path, bf16=bf16)
        before = parameters(made)
        made.train()
        assert math.isfinite(made.state.log_history[0]["loss"])
        assert any(not torch.equal(before[name], value) for name, value in parameters(made).items())
        found.append(weights(made))
    plain, rounded = found
    assert plain.keys() == rounded.keys()
    differences = []
    for ids, (roles, expected) in plain.items():
        assert torch.equal(roles, rounded[ids][0])
        is_action = roles == Role.ACTION
        assert torch.equal(rounded[ids][1][~is_action], expected[~is_action])
        differences += (rounded[ids][1] - expected)[is_action].abs().tolist()
    assert 0 < max(differences) < 0.02


def test_our_environments_with_bf16(tmp_path: Path) -> None:
    made = made_with(make_rollout(), tmp_path, bf16=True)
    before = parameters(made)
    made.train()
    logged = made.state.log_history[0]
    assert logged["focus/action_share"] > 0 and math.isfinite(logged["loss"])
    after = parameters(made)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_our_environments_with_adapters_and_checkpointing(tmp_path: Path) -> None:
    """Adapters that were never trained change nothing, so that the plain model plays the same episodes."""
    made, records = trained(make_rollout(), tmp_path, peft_config=LORA, activation_checkpointing=True)
    found = rows(made)
    for record in records:
        first = next(t for t, role in enumerate(record.roles) if role != Role.CONTEXT)
        assert found[tuple(record.ids[first:])] == record.roles[first:]
    trained_by_now = {name: value for name, value in parameters(made).items() if "lora_B" in name}
    assert trained_by_now and all(value.any() for value in trained_by_now.values())
