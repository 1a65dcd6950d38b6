"""Checkpoints: safetensors and JSON, written aside, verified, renamed; the old one goes last.

step_N/model/              the policy as a Hugging Face folder (LoRA: the adapters), with its tokenizer
step_N/critic.safetensors  PPO only: the trained parameters of the critic
step_N/optimizer.safetensors
step_N/manifest.json       the step, and the SHA-256 of every file
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from actfocus.cache import file_sha256
from actfocus.errors import RunError
from actfocus.models.chat import Chat
from actfocus.models.critic import Critic
from actfocus.models.language_model import LanguageModel
from actfocus.run_directory import fsync_folder, numbered

MANIFEST = "manifest.json"


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    policy: LanguageModel,
    chat: Chat,
    critic: Critic | None,
    optimizer: torch.optim.Optimizer,
) -> Path:
    """Save the state after `step` under `folder`; older checkpoints go once the new one has verified.

    Raises:
        OSError: If the disk is full; or what safetensors raises then. What was saved before is untouched.
    """
    final, aside = folder / f"step_{step}", folder / f".step_{step}.partial"
    for leftover in folder.glob(".step_*.partial"):  # of a run that was killed while it saved
        shutil.rmtree(leftover)
    try:
        aside.mkdir()
        policy.model.save_pretrained(aside / "model")  # type: ignore[operator]
        chat.tokenizer.save_pretrained(aside / "model")
        if critic is not None:
            save_file(_trained(critic), aside / "critic.safetensors")
        save_file(_optimizer_tensors(optimizer), aside / "optimizer.safetensors")
        _write_manifest(aside, step)
        verify(aside)
        if final.exists():  # damaged, or the run would not have come back to this step
            shutil.rmtree(final)
        os.replace(aside, final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    fsync_folder(folder)
    keep_only(final)
    return final


def keep_only(checkpoint: Path) -> None:
    """Delete all other checkpoints of the run."""
    for other in _checkpoints(checkpoint.parent):
        if other != checkpoint:
            shutil.rmtree(other)


def latest_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """The newest checkpoint that verifies, with its step; None if there is none at all.

    Raises:
        RunError: If there are checkpoints but all of them are damaged.
    """
    problems = []
    for path in reversed(_checkpoints(folder)):
        try:
            return path, verify(path)
        except RunError as error:
            problems.append(str(error))
    if problems:
        raise RunError(f"no checkpoint can be used: {'; '.join(problems)}")
    return None


def find_checkpoint(folder: Path, step: int | None = None) -> tuple[Path, int]:
    """The checkpoint of a step, or the newest one that verifies; with its step.

    Raises:
        RunError: If there is none, or it is damaged.
    """
    if step is None:
        latest = latest_checkpoint(folder)
        if latest is None:
            raise RunError(f"{folder.parent} has no checkpoint yet")
        return latest
    path = folder / f"step_{step}"
    if not path.is_dir():
        raise RunError(f"{folder.parent} has no checkpoint of step {step}")
    return path, verify(path)


def verify(path: Path) -> int:
    """Check every file against the manifest; returns the step. Raises `RunError` naming the bad file."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        step, files = int(manifest["step"]), dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / MANIFEST} cannot be read: {error}") from None
    number = path.name.removeprefix("step_")
    if number.isdigit() and int(number) != step:
        raise RunError(f"{path / MANIFEST} is damaged: it speaks of step {step}")
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise RunError(f"{file} is missing")
        if file_sha256(file) != expected:
            raise RunError(f"{file} is damaged: its SHA-256 is not that of the manifest")
    return step


def load_state(path: Path, *, critic: Critic | None, optimizer: torch.optim.Optimizer) -> None:
    """Load critic and optimiser from a checkpoint; the policy is loaded by its own folder."""
    if critic is not None:
        _load_trained(critic, load_file(path / "critic.safetensors"))
    _load_optimizer(optimizer, load_file(path / "optimizer.safetensors"))


def load_policy(path: Path, policy: LanguageModel) -> None:
    """Load the policy's weights, or its adapters, into a model of the same shape."""
    folder = path / "model"
    if policy.has_adapters:
        from peft import set_peft_model_state_dict

        found = set_peft_model_state_dict(policy.model, load_file(folder / "adapter_model.safetensors"))
        # All else is missing by design: the file holds the adapters alone.
        lost = [name for name in found.missing_keys if "lora_" in name]
        if found.unexpected_keys or lost:
            raise RunError(f"{folder} does not fit: missing {lost}, unexpected {found.unexpected_keys}")
        return
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        weights |= load_file(file)
    # Tied weights are saved once: what is missing must share its storage with something that is there.
    missing, unexpected = policy.causal_lm.load_state_dict(weights, strict=False)
    tied = set(getattr(policy.causal_lm, "_tied_weights_keys", None) or [])
    if unexpected or set(missing) - tied:
        raise RunError(f"{folder} does not fit the model: missing {missing}, unexpected {unexpected}")


def _checkpoints(folder: Path) -> list[Path]:
    return list(numbered(folder).values())


def _write_manifest(folder: Path, step: int) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    manifest: dict[str, Any] = {
        "step": step,
        "files": {str(path.relative_to(folder)): file_sha256(path) for path in files},
    }
    with (folder / MANIFEST).open("w") as file:
        json.dump(manifest, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    for path in {path.parent for path in files} | {folder}:
        fsync_folder(path)


def _trained(module: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().contiguous() for n, p in module.named_parameters() if p.requires_grad}


def _load_trained(module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name])


def _parameters(optimizer: torch.optim.Optimizer) -> Sequence[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Adam's averages and step counts by position: `7.exp_avg` belongs to the eighth parameter."""
    return {
        f"{position}.{name}": tensor.detach().contiguous()
        for position, parameter in enumerate(_parameters(optimizer))
        for name, tensor in optimizer.state[parameter].items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    parameters = _parameters(optimizer)
    for key, tensor in tensors.items():
        position, name = key.split(".", 1)
        parameter = parameters[int(position)]
        # Adam keeps its step count on the CPU.
        optimizer.state[parameter][name] = tensor if name == "step" else tensor.to(parameter.device)
