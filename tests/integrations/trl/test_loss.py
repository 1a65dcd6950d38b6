"""TRL's loss with our weights is our loss: losses agree to 1e-6, gradients to 1e-5 of their norm.

Ours is made from the lines as they were written, all at once, never shuffled or split: `grpo_advantages`,
`token_weights`, `policy_loss`, `kl_penalty`. TRL's goes through its own shuffling, splitting, padding and
accumulation. With roles that are late by one token, or inverted, they do not agree.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from actfocus.algorithms.grpo import grpo_advantages
from actfocus.focus import kl_penalty, policy_loss, token_weights
from actfocus.integrations.trl import FocusConfig
from actfocus.integrations.trl import trainer as trainer_module
from tests.integrations.trl.scripted import (
    ACTION,
    CONTEXT,
    GROUP,
    MODEL,
    MUTATIONS,
    OTHER,
    REASONING,
    Recorder,
    line,
    losses_of,
    trainer,
)

FOCUS = FocusConfig(alpha=0.1, beta=0.5, other_weight=0.3)
CLIP = {"clip_low": 0.2, "clip_high": 0.28}


class OwnLoss:
    """Our GRPO on the lines, without TRL."""

    def __init__(self, numbers: range, focus: FocusConfig) -> None:
        lines = [line(number) for number in numbers]
        # The prompts end in one column as TRL's do: rotary embeddings round by absolute position, in float32.
        gaps = [max(len(each.prompt) for each in lines) - len(each.prompt) for each in lines]
        rows = list(zip(gaps, lines, strict=True))
        self.ids_BT = pad([[0] * gap + each.prompt + each.ids for gap, each in rows])
        self.real_BT = pad([[0] * gap + [1] * len(each.prompt + each.ids) for gap, each in rows])
        roles = [[CONTEXT] * (gap + len(each.prompt)) + each.roles for gap, each in rows]
        self.roles_BT = pad(roles).to(torch.int8)
        self.sampled_BT = self.roles_BT != CONTEXT
        self.reference = precise_model()
        with torch.no_grad():
            self.ref_BT, energy_BT = self.scores(self.reference)
        returns_B = torch.tensor([each.total for each in lines])
        groups_B = torch.arange(len(lines)) // GROUP
        # TRL's ε.
        self.advantages_BT = grpo_advantages(returns_B, groups_B, eps=1e-4)[:, None] * self.sampled_BT
        settings = focus.model_dump(include={"alpha", "beta", "other_weight"})
        self.weights_BT = token_weights(self.roles_BT, energy_BT, **settings)
        self.model = copy.deepcopy(self.reference)
        self.old_BT = torch.zeros(0)

    def scores(self, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """log π(y_t) and the energy of its context, with NaN and 0 in the place of the first token."""
        logits = model(input_ids=self.ids_BT, attention_mask=self.real_BT).logits[:, :-1]
        logprobs = logits.log_softmax(-1).gather(-1, self.ids_BT[:, 1:, None])[..., 0]
        first = logits.new_zeros(len(self.ids_BT), 1)
        return torch.cat([first, logprobs], 1), torch.cat([first * torch.nan, -logits.logsumexp(-1)], 1)

    def at(self, parameters: dict[str, torch.Tensor], *, kl: float) -> tuple[float, dict[str, torch.Tensor]]:
        """Loss and gradient at these parameters; the first ones are those that sampled."""
        self.model.load_state_dict(parameters, strict=False)
        self.model.zero_grad()
        logprobs_BT, _ = self.scores(self.model)
        if not len(self.old_BT):
            self.old_BT = logprobs_BT.detach()
        loss, _ = policy_loss(logprobs_BT, self.old_BT, self.advantages_BT, self.weights_BT, **CLIP)
        penalty_BT = kl_penalty(logprobs_BT, self.ref_BT, "k3")
        loss = loss + kl * penalty_BT[self.sampled_BT].mean()
        loss.backward()
        return loss.item(), {name: value.grad for name, value in self.model.named_parameters()}


def precise_model() -> Any:
    """In float64, or the rounding of a gradient of 10 would hide what is looked for."""
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64)


def pad(rows: list[list[int]]) -> torch.Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def compare(tmp_path: Path, **settings: Any) -> None:
    """Three updates on one batch, whose ratio leaves 1 with the second."""
    made = trainer(
        tmp_path,
        model=precise_model(),
        focus=FOCUS,
        learning_rate=1e-4,
        max_steps=3,
        num_iterations=3,
        epsilon=CLIP["clip_low"],
        epsilon_high=CLIP["clip_high"],
        use_bias_correction_kl=False,
        **settings,
    )
    kept = Recorder(made)
    losses = losses_of(made)
    made.train()
    own = OwnLoss(range(8), FOCUS)
    for update, (before, gradients) in enumerate(zip(kept.before, kept.gradients, strict=True)):
        loss, expected = own.at(before, kl=settings.get("beta", 0.0))
        parts = made.args.gradient_accumulation_steps
        assert abs(sum(losses[parts * update : parts * (update + 1)]) - loss) <= 1e-6
        # Of the norm: layer norms and rotary embeddings compute in float32 whatever the weights are.
        norm = stacked(expected).norm()
        assert norm > 1
        assert (stacked(gradients) - stacked(expected)).norm() <= 1e-5 * norm, update


def stacked(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_our_loss_and_that_of_trl_agree(kl: float, tmp_path: Path) -> None:
    compare(tmp_path, beta=kl)


def test_nor_does_the_split_into_micro_batches_matter(tmp_path: Path) -> None:
    """Micro-batches of one row: what is normalised per row or per micro-batch would show."""
    compare(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_they_differ_with_wrong_roles(mutation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = MUTATIONS[mutation](trainer_module.completion_roles)
    monkeypatch.setattr(trainer_module, "completion_roles", wrong)
    with pytest.raises(AssertionError):
        compare(tmp_path)


def test_the_lines_hold_every_role() -> None:
    roles = {role for number in range(8) for role in line(number).roles}
    assert roles == {CONTEXT, REASONING, ACTION, OTHER}
