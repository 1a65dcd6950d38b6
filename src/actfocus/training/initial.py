"""The policy that a run starts from, which is also its reference."""

import hashlib
from pathlib import Path

import torch

from actfocus.config import EnvConfig, ModelConfig
from actfocus.errors import RunError
from actfocus.models import registry
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.models.loading import load
from actfocus.run_directory import RunDirectory


def load_initial(
    model: ModelConfig, env: EnvConfig, *, device: str | torch.device = "cpu"
) -> tuple[LanguageModel, Chat]:
    """Load the model by name; `tiny` is the one that ships warm-started for the environment."""
    return load(model, path=shipped_path(model, env), device=device)


def shipped_path(model: ModelConfig, env: EnvConfig) -> Path | None:
    """Where a model lies that ships with the package, None for any other."""
    return registry.tiny_path(env.name) if model.name == registry.TINY else None


def require_same_start(run: RunDirectory, digest: str) -> None:
    """Raise `RunError` if `digest` is not that of the model that the run began with: its reference."""
    if digest != run.environment()["initial_weights"]:
        raise RunError(
            f"the model {run.config().model.name} is no longer the one that {run.path} was started from: its"
            " reference is lost, so the run can neither be continued nor read"
        )


def weights_digest(policy: LanguageModel) -> str:
    """SHA-256 of all weights: two models with the same digest are the same model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
