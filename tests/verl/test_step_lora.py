"""PPO with LoRA on verl's FSDP2 worker: the reference is the actor without its adapters.

The adapters are none that start at zero: with them the model is another. Promises: energies, entropies and
log-probabilities of the reference are those of the base model, and the actor's are those of the adapted one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from actfocus.focus import token_weights
from tests.verl import readings, stage
from tests.verl.config import MODEL
from tests.verl.readings import ACTION, CONTEXT, all_roles, padded, rows_of


def _base() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an adapter whose matrices B are not 0."""
    folder = tmp_path_factory.mktemp("adapter")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=16, target_modules="all-linear", init_lora_weights=False
        )
        model = get_peft_model(_base(), settings)
    assert all(weight.any() for name, weight in model.named_parameters() if "lora_B" in name)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def lora(stages: Any, levels: list[str], adapter: str) -> Iterator[Any]:
    stages.close()
    overrides = [*stage.LORA, *levels, f"actor_rollout_ref.model.lora_adapter_path={adapter}"]
    with stage.staged(overrides) as opened:
        yield opened


@pytest.fixture(scope="module")
def table(lora: Any) -> dict[str, Any]:
    return lora(readings.step)


@pytest.fixture(scope="module")
def logits(table: dict[str, Any], adapter: str) -> dict[str, list[torch.Tensor]]:
    """Per row, those that predict the response: of the adapted model, and of the same with adapters off."""
    model = PeftModel.from_pretrained(_base(), Path(adapter)).eval()

    def of(row: dict[str, Any]) -> torch.Tensor:
        ids = torch.cat([row["prompts"], row["responses"]])
        return model(ids[None]).logits[0, len(row["prompts"]) - 1 : -1]

    with torch.no_grad():
        adapted = [of(row) for row in rows_of(table)]
        with model.disable_adapter():
            return {"on": adapted, "off": [of(row) for row in rows_of(table)]}


def signals(table: dict[str, Any]) -> list[torch.Tensor]:
    """At each response token, from the place of the logits that predict it."""
    return [row["focus_signal"][len(row["prompts"]) - 1 : -1] for row in rows_of(table)]


def test_energies_are_those_of_the_base_model(table: dict[str, Any], logits: dict[str, Any]) -> None:
    seen, apart = 0, 0.0
    for row, found, off, on in zip(rows_of(table), signals(table), logits["off"], logits["on"], strict=True):
        actions = readings.expected_roles(row) == ACTION
        assert torch.allclose(found[actions], -off[actions].logsumexp(-1), atol=1e-3)
        assert int(row["focus_signal"].isfinite().sum()) == int(actions.sum())
        apart = max([apart, *(found[actions] + on[actions].logsumexp(-1)).abs().tolist()])
        seen += int(actions.sum())
    assert seen > 4 and apart > 0.1


def test_the_actor_has_its_adapters_on(table: dict[str, Any], logits: dict[str, Any]) -> None:
    sampled = padded([row["response_mask"] for row in rows_of(table)]).bool()
    found = {}
    for name, rows in logits.items():
        own = [
            each.log_softmax(-1).gather(-1, row["responses"][:, None])[:, 0]
            for row, each in zip(rows_of(table), rows, strict=True)
        ]
        found[name] = padded(own)[sampled]
    assert torch.allclose(padded(table["old_log_probs"])[sampled], found["on"], atol=1e-3)
    assert torch.allclose(padded(table["ref_log_prob"])[sampled], found["off"], atol=1e-3)
    assert (found["on"] - found["off"]).abs().max() > 0.1


def test_weights_are_ours_to_the_bit(table: dict[str, Any]) -> None:
    expected = token_weights(all_roles(table), padded(signals(table)), alpha=0.1, beta=0.5)
    assert torch.equal(padded(table["focus_weights"]), expected)
    assert {CONTEXT, ACTION} <= {int(role) for role in all_roles(table).unique()}


def test_verls_actor_reports_the_loss_of_the_method(table: dict[str, Any], lora: Any) -> None:
    reported, (loss,) = lora(readings.update), readings.losses(table, [[0, 1, 2, 3]])
    assert reported["actor/pg_loss"] == pytest.approx(loss, abs=1e-5)
    assert abs(loss) > 1e-4 and reported["actor/grad_norm"] > 0


def test_shift_is_between_the_adapted_and_the_base_model(lora: Any) -> None:
    table = lora(readings.with_signal, "shift")
    shift = padded(table["old_log_probs"]) - padded(table["ref_log_prob"])
    expected = token_weights(all_roles(table), shift, alpha=0.1, beta=0.5)
    assert torch.equal(padded(table["focus_weights"]), expected) and shift.abs().max() > 0.1


def test_entropies_are_those_of_the_base_model(lora: Any, logits: dict[str, Any]) -> None:
    table = lora(readings.with_signal, "entropy")
    for row, found, off in zip(rows_of(table), signals(table), logits["off"], strict=True):
        actions, p = readings.expected_roles(row) == ACTION, off.softmax(-1)
        assert torch.allclose(found[actions], -(p * p.log()).sum(-1)[actions], atol=1e-3)
