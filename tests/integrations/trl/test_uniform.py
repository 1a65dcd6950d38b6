"""(α, β) = (1, 0) is `GRPOTrainer`, bit for bit: the parameters after each of 5 updates are the same bits.

On TRL's own sampling, with the KL term, clipping (two passes over each batch), gradient accumulation; with
LoRA and gradient checkpointing; with each loss type.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOTrainer

from actfocus.integrations.trl import ActFocusGRPOTrainer, FocusConfig
from actfocus.integrations.trl.settings import LOSS_TYPES
from tests.integrations.trl.scripted import MODEL, Recorder, config, parameters, trainer

UNIFORM = FocusConfig(alpha=1.0, beta=0.0)


def length_reward(completions: list[str], **kwargs: Any) -> list[float]:
    return [len(set(text)) / 10 - len(text) / 50 for text in completions]


def sampled_run(kind: type, out: Path, *, updates: int = 5, lora: bool = False, **given: Any) -> Any:
    """Train on what TRL samples itself, and keep the parameters before every update and after the last."""
    texts = [f"<|system|>FrozenLake<|end|><|user|>Go {k}.<|end|><|assistant|>" for k in range(8)]
    args = config(
        out,
        max_steps=updates,
        num_iterations=2,
        beta=0.1,
        max_completion_length=20,
        max_grad_norm=1.0,
        activation_checkpointing=lora,
    )
    if lora:
        given["peft_config"] = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    made = kind(
        model=MODEL,
        reward_funcs=length_reward,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": texts}),
        **given,
    )
    kept = Recorder(made)
    made.train()
    return [*kept.before, parameters(made)], made


def same(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora-checkpointing"])
def test_five_updates_are_bit_for_bit_those_of_grpo_trainer(lora: bool, tmp_path: Path) -> None:
    theirs, plain = sampled_run(GRPOTrainer, tmp_path, lora=lora)
    ours, focused = sampled_run(ActFocusGRPOTrainer, tmp_path, lora=lora, focus=UNIFORM)
    assert len(ours) == 6 and not same(ours[:1], ours[-1:])
    assert same(ours, theirs)
    # What is logged is the same too, but for times and our own figures.
    for one, other in zip(focused.state.log_history[:-1], plain.state.log_history[:-1], strict=True):
        assert {key: one[key] for key in other if key != "step_time"} == {
            key: value for key, value in other.items() if key != "step_time"
        }


QUICK = ("dapo", "grpo", "vespo")
"""One of each way to normalise and to clip; `test_contract.py` has them all in every run."""


@pytest.mark.parametrize(
    "loss_type",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in LOSS_TYPES],
)
def test_each_loss_type(loss_type: str, tmp_path: Path) -> None:
    """With env_mask, several updates per generation and a second pass over each of them."""
    settings = {"loss_type": loss_type, "steps_per_generation": 4, "num_iterations": 2, "max_steps": 4}
    ends = []
    for given in ({"kind": GRPOTrainer}, {"focus": UNIFORM}):
        made = trainer(tmp_path, **settings, **given)
        start = [parameters(made)]
        made.train()
        ends.append([parameters(made)])
        assert not same(start, ends[-1])
    assert same(*ends)


def test_other_weights_give_other_bits(tmp_path: Path) -> None:
    ends = []
    for alpha in (1.0, 0.1):
        made = trainer(tmp_path, focus=FocusConfig(alpha=alpha, beta=0))
        made.train()
        ends.append([parameters(made)])
    assert not same(*ends)
