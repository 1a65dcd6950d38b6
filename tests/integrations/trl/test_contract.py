"""The seams of TRL that this integration stands on; where one has moved, the message names the range."""

import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer, utils

from actfocus.integrations.trl.version import SUPPORTED
from tests.integrations.trl.scripted import trainer

MESSAGE = (
    f"a seam of TRL has moved: actfocus.integrations.trl supports trl{SUPPORTED}, and trl {version('trl')} is"
    " installed. Install a supported one, or adapt the integration and its range in version.py. The seam: "
)


def hold(condition: Any, seam: str) -> None:
    assert condition, MESSAGE + seam


SIGNATURES = {
    "GRPOTrainer._generate_and_score_completions": ["self", "inputs"],
    "GRPOTrainer._prepare_inputs": ["self", "generation_batch"],
    "GRPOTrainer._compute_loss": ["self", "model", "inputs"],
    "GRPOTrainer._generate_single_turn": [
        "self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images",
    ],
    "VLLMGeneration.generate": ["self", "prompts", "images", "num_generations", "profiler"],
    "use_adapter": ["model", "adapter_name"],
    "get_config_model_id": ["config"],
    "create_model_from_path": ["model_id", "architecture", "kwargs"],
    "shuffle_sequence_dict": ["seq_dict"],
    "split_tensor_dict": ["tensor_dict", "num_chunks"],
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_order_of_arguments(name: str) -> None:
    owner: Any = {"GRPOTrainer": GRPOTrainer, "VLLMGeneration": VLLMGeneration}.get(name.split(".")[0], utils)
    function = getattr(owner, name.split(".")[-1], None)
    hold(function is not None, f"{name} is gone")
    found = list(inspect.signature(function).parameters)
    hold(found == SIGNATURES[name], f"{name}{tuple(found)}, expected {tuple(SIGNATURES[name])}")


def test_arguments_of_the_trainer() -> None:
    found = list(inspect.signature(GRPOTrainer.__init__).parameters)
    first = ["self", "model", "reward_funcs", "args", "train_dataset"]
    hold(found[:5] == first, f"GRPOTrainer.__init__ begins with {found[:5]}")
    for name in ("peft_config", "processing_class", "rollout_func", "environment_factory"):
        hold(name in found, f"GRPOTrainer takes no {name}")


def test_settings_that_are_read() -> None:
    known = GRPOConfig.__dataclass_fields__
    for name in (
        "importance_sampling_level", "loss_type", "steps_per_generation", "gradient_accumulation_steps",
        "sync_ref_model", "beta", "bf16", "per_device_train_batch_size", "trust_remote_code",
        "model_init_kwargs", "mask_truncated_completions", "use_liger_kernel",
    ):  # fmt: skip
        hold(name in known, f"GRPOConfig has no {name}")


def test_attributes_and_what_a_generation_returns(tmp_path: Path) -> None:
    made = trainer(tmp_path, kind=GRPOTrainer, beta=0.1)
    for name in (
        "_buffered_inputs", "_step", "_metrics", "_tokenizer", "_is_vlm", "eos_token_ids", "ref_model",
        "chat_template", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "use_vllm",
        "use_transformers_continuous_batching",
    ):  # fmt: skip
        hold(hasattr(made, name), f"GRPOTrainer has no {name}")
    made.model.train()
    output = made._generate_and_score_completions([{"prompt": "level 0"} for _ in range(8)])
    keys = {
        "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages",
        "num_items_in_batch", "ref_per_token_logps",
    }  # fmt: skip
    hold(keys <= output.keys(), f"a generation returns {sorted(output)}")
    rows, width = output["completion_ids"].shape
    for key in ("completion_mask", "tool_mask", "ref_per_token_logps"):
        hold(output[key].shape == (rows, width), f"{key} has the shape {tuple(output[key].shape)}")
    hold(output["advantages"].shape == (rows,), f"advantages have the shape {output['advantages'].shape}")
    read = output["completion_mask"] * output["tool_mask"]
    hold(
        output["num_items_in_batch"] == read.sum(),
        "num_items_in_batch counts other tokens than the loss mask",
    )


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "vespo"])
def test_the_loss_is_linear_in_advantages_of_every_token(loss_type: str, tmp_path: Path) -> None:
    """Where it is not, A · w is not a weight."""
    made = trainer(tmp_path, kind=GRPOTrainer, loss_type=loss_type)
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    batch = made._generate_and_score_completions([{"prompt": "level 0"} for _ in range(4)])
    shape = batch["completion_ids"].shape
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    real = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    logprobs, _, _ = made._get_per_token_logps_and_entropies(made.model, ids, real, shape[1])
    batch["old_per_token_logps"] = logprobs.detach() + 0.3 * torch.randn(shape)
    weights = torch.rand(shape)
    weights[:, ::3] = 0

    def loss(factors_BT: torch.Tensor) -> float:
        advantages_BT = batch["advantages"][:, None] * factors_BT
        return float(made._compute_loss(made.model, {**batch, "advantages": advantages_BT}))

    one = torch.ones_like(weights)
    whole, part, rest = loss(one), loss(weights), loss(one - weights)
    hold(
        part + rest == pytest.approx(whole, abs=1e-5),
        f"loss_type {loss_type}: {part} + {rest} is not {whole}",
    )
    plain = float(made._compute_loss(made.model, batch))
    hold(whole == pytest.approx(plain, abs=1e-6), f"loss_type {loss_type}: advantages [B] and [B, T] differ")
    hold(abs(part - whole) > 1e-4, f"loss_type {loss_type}: weights change nothing")


def test_tensors_that_are_added_are_shuffled_and_split_with_the_rest() -> None:
    table = {
        "ids": torch.arange(8)[:, None].repeat(1, 3),
        "focus_weights": torch.arange(8.0)[:, None] * torch.ones(3),
    }
    table["count"] = torch.tensor(8)
    for chunk in utils.split_tensor_dict(utils.shuffle_sequence_dict(table), 4):
        hold(chunk["ids"].shape == (2, 3), "split_tensor_dict")
        hold(torch.equal(chunk["ids"].float(), chunk["focus_weights"]), "added tensors lose their rows")


def test_one_way_to_the_loss() -> None:
    source = inspect.getsource(GRPOTrainer.compute_loss)
    hold("return self._compute_loss(model, inputs)" in source, "compute_loss has another loss (Liger's?)")
    hold("rollout_func" in inspect.getsource(grpo_trainer.GRPOTrainer._generate), "rollout_func")


def test_an_update_comes_after_the_last_of_its_micro_batches_is_counted(tmp_path: Path) -> None:
    """Which update has no weight is told from `_step` at `on_pre_optimizer_step`."""
    made = trainer(tmp_path, kind=GRPOTrainer, steps_per_generation=4, num_iterations=2, max_steps=5)
    micro_batches: list[tuple[int, int]] = []
    updates: list[tuple[int, int]] = []
    prepare = made._prepare_inputs

    def watch(generation_batch: Any) -> Any:
        inputs = prepare(generation_batch)
        place = next(k for k, held in enumerate(made._buffered_inputs) if held is inputs)
        micro_batches.append((made._step, place))
        return inputs

    class Probe(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            updates.append((made._step, made.rollout_func.calls))
            hold(kwargs["model"] is made.model, "callbacks are given another model than the trainer's")
            hold(any(value.grad is not None for value in made.model.parameters()), "no gradient to drop")

    made._prepare_inputs = watch
    made.add_callback(Probe())
    made.train()
    expected = [(step, step % 4) for step in range(10)]
    hold(micro_batches == expected, f"(_step, place in the buffer) of the micro-batches: {micro_batches}")
    expected = [(2, 1), (4, 1), (6, 1), (8, 1), (10, 2)]
    hold(updates == expected, f"(_step, generations) at on_pre_optimizer_step: {updates}, not {expected}")


def test_the_message_names_the_range() -> None:
    with pytest.raises(AssertionError, match=r"supports trl>=1\.16,<1\.17, and trl 1\.16"):
        hold(False, "none")
    assert trl.__version__.startswith("1.16")
