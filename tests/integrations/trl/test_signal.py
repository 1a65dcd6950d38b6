"""The signal is that of the frozen reference, wherever it comes from, and never has a temperature.

Expected figures are made row by row from the logits of the shipped model, without padding.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from actfocus.errors import ConfigError
from actfocus.focus import token_weights
from actfocus.integrations.trl import ActFocusGRPOTrainer, FocusConfig
from tests.integrations.trl.scripted import ACTION, MODEL, config, line, prompts, trainer

LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])


def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL)


@torch.no_grad()
def expected(name: str, reference: Any, policy: Any) -> dict[tuple[int, ...], list[float]]:
    """The scores of the action tokens of every line, by its ids."""
    scores = {}
    for number in range(16):
        each = line(number)
        ids = torch.tensor([each.prompt + each.ids])
        places = [len(each.prompt) + t for t, role in enumerate(each.roles) if role == ACTION]
        before = [place - 1 for place in places]
        f, p = (m(input_ids=ids).logits[0].double() for m in (reference, policy))
        tokens = ids[0, places]
        logprobs = p.log_softmax(-1)[before, tokens]
        scores[tuple(each.ids)] = {
            "energy": -f.logsumexp(-1)[before],
            "entropy": -(f.softmax(-1) * f.log_softmax(-1)).sum(-1)[before],
            "nll": -logprobs,
            "shift": logprobs - f.log_softmax(-1)[before, tokens],
        }[name].tolist()
    return scores


def check_signal(made: Any, name: str, reference: Any, policy: Any) -> None:
    """Score the next generation and compare, action token by action token."""
    kept = []
    score = made._signal

    def watch(*batch: torch.Tensor) -> Any:
        kept.append((batch, score(*batch)))
        return kept[-1][1]

    made._signal = watch
    made.model.train()
    output = made._generate_and_score_completions([{"prompt": "level 0"} for _ in range(8)])
    made._signal = score
    (ids, real, chosen), signal = kept[0]
    wanted = expected(name, reference, policy)
    width = output["completion_ids"].shape[1]
    assert chosen.sum() > 8 and bool((real == 0).any())
    for row in range(len(ids)):
        count = int(output["completion_mask"][row].sum())
        key = tuple(output["completion_ids"][row, :count].tolist())
        found = signal[row, -width:][chosen[row, -width:]]
        assert found.tolist() == pytest.approx(wanted[key], abs=2e-4)
    assert bool(signal[~chosen].isnan().all())
    settings = made._focus.model_dump(include={"alpha", "beta", "other_weight"})
    weights = token_weights(output["focus_roles"], signal[:, -width:], **settings)
    assert torch.equal(weights, output["focus_weights"])
    assert made.model.training


def given(source: str) -> dict[str, Any]:
    return {
        "of TRL": {"beta": 0.1},
        "read again": {},
        "copied": {"model": model()} if source == "copied" else {},
        "adapters off": {"peft_config": LORA},
        "adapters off, checkpointing": {"peft_config": LORA, "activation_checkpointing": True},
    }[source]


SOURCES = ["of TRL", "read again", "copied", "adapters off", "adapters off, checkpointing"]


@pytest.mark.parametrize("source", SOURCES)
def test_energy_is_that_of_the_model_before_training(source: str, tmp_path: Path) -> None:
    """Also after updates that are far too large."""
    made = trainer(tmp_path, learning_rate=0.05, **given(source))
    reference = model()
    before = {name: value.clone() for name, value in made.model.named_parameters()}
    made.train()
    assert any(not torch.equal(before[name], value) for name, value in made.model.named_parameters())
    check_signal(made, "energy", reference, reference)


@pytest.mark.parametrize("name", ["entropy", "nll", "shift"])
def test_other_signals_at_temperature_1(name: str, tmp_path: Path) -> None:
    made = trainer(
        tmp_path,
        focus=FocusConfig(signal=name),
        learning_rate=1e-3,
        temperature=0.5,
    )
    made.train()
    policy = model()
    policy.load_state_dict(made.model.state_dict())
    check_signal(made, name, model(), policy)


def test_policy_signals_with_adapters(tmp_path: Path) -> None:
    made = trainer(tmp_path, focus=FocusConfig(signal="shift"), learning_rate=1e-2, peft_config=LORA)
    made.train()
    merged = copy.deepcopy(made.model)
    merged.base_model.model.__dict__.pop("forward")  # TRL's, which would still be the original's
    check_signal(made, "shift", model(), merged.merge_and_unload())


def test_the_reference_of_trl_is_not_loaded_twice(tmp_path: Path) -> None:
    made = trainer(tmp_path, beta=0.1)
    assert made._signal._reference.model is made.ref_model


@pytest.mark.parametrize("focus", [FocusConfig(beta=0), FocusConfig(signal="nll")])
def test_no_reference_is_held_that_nothing_reads(focus: FocusConfig, tmp_path: Path) -> None:
    assert trainer(tmp_path, focus=focus)._signal._reference is None


def trained_adapters() -> Any:
    adapted = get_peft_model(model(), LORA)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    return adapted


def test_adapters_that_were_trained_before_need_a_copy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GRPOConfig\(beta=...\) above 0"):
        trainer(tmp_path, model=trained_adapters())
    adapted = trained_adapters()
    reference = copy.deepcopy(adapted).merge_and_unload()
    made = ActFocusGRPOTrainer(
        adapted,
        lambda completions, **_: [float(len(text)) for text in completions],
        config(tmp_path, beta=0.1, max_completion_length=8),
        prompts(),
    )
    made.train()
    made.rollout_func = trainer(tmp_path, beta=0.1).rollout_func
    made.reward_funcs = [lambda episode_return, **_: episode_return]
    check_signal(made, "energy", reference, reference)


def test_random_state_is_left_alone(tmp_path: Path) -> None:
    """Loading a reference draws nothing that TRL would have drawn otherwise."""
    states = []
    for focus in (FocusConfig(beta=0), FocusConfig()):
        trainer(tmp_path, focus=focus)
        states.append(torch.get_rng_state())
    assert torch.equal(states[0], states[1])
