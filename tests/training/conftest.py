"""A tiny model that has just learnt the reply format, and small configurations that train it.

The model stands for `tiny`: the same architecture, its own tokenizer, warm-started until some of its replies
are well-formed, so that batches hold action tokens. It is made once per session.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from actfocus.config import Config, EnvConfig, ModelConfig, WarmstartConfig
from actfocus.distributed import Processes
from actfocus.focus import Role
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.models.loading import load
from actfocus.models.tiny import tiny_model, tiny_tokenizer
from actfocus.report.progress import SilentProgress
from actfocus.rollout.batch import Batch, collate
from actfocus.rollout.trajectory import Start, Trajectory
from actfocus.training.demonstrations import demonstration, demonstration_texts
from actfocus.training.run import train
from actfocus.training.warmstart import imitate
from tests.small import small, small_episodes

__all__ = ["small", "small_episodes"]

ENV = EnvConfig(name="frozen-lake", turns=2, actions_per_turn=1)

SMALL: dict[str, Any] = {
    "env": {"name": "frozen-lake", "turns": 2, "actions_per_turn": 1},
    "algorithm": {"name": "grpo"},
    "rollout": {"prompts": 2, "group": 4, "keep": 1.0, "context": 520, "response": 20},
    "optimizer": {"lr": 1e-3, "mini_batch": 4, "micro_batch": 3},
    "evaluation": {"every": 2, "states": 3, "samples": 2},
    "steps": 3,
    "checkpoint_every": 2,
    "save_episodes_every": 2,
    "gradients_every": 10,
    "seed": 5,
}
"""A run of about two seconds."""


def lines(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def lessons(model: Path | str = "tiny", **settings: Any) -> WarmstartConfig:
    """Short demonstrations, for the warm start of the tests' own model."""
    given = {"env": ENV, "model": ModelConfig(name=str(model)), "remarks": 1, "batch": 8, "lr": 1e-2}
    return WarmstartConfig(**{**given, **settings})


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with the tests' model."""
    # The same for test files elsewhere that import these fixtures.
    folder = tmp_path_factory.getbasetemp() / "tiny"
    if folder.exists():
        return folder
    config = lessons(episodes=240)
    texts = [text for episode in range(40) for pair in demonstration_texts(config, episode) for text in pair]
    tokenizer = tiny_tokenizer(texts)
    chat = Chat(tokenizer)
    # The shape of `tiny`, smaller: what is tested here does not depend on how clever it is.
    shape = tiny_model(tokenizer).config
    shape.update({"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LanguageModel(LlamaForCausalLM(shape))
    imitate(model, chat, config, SilentProgress())
    model.causal_lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_config(model_folder: Path) -> Callable[..., Config]:
    """`SMALL` with the tests' model; keyword arguments replace single keys of its sections."""

    def make(**changes: Any) -> Config:
        settings = {"model": {"name": str(model_folder)}, **SMALL}
        for key, value in changes.items():
            settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value
        return Config.model_validate(settings)

    return make


@pytest.fixture
def loaded(model_folder: Path) -> tuple[LanguageModel, Chat]:
    """The tests' model and its tokenizer, fresh."""
    return load(ModelConfig(name=str(model_folder)))


@pytest.fixture(scope="session")
def processes() -> Processes:
    return Processes()


@pytest.fixture(scope="session")
def demonstrated(model_folder: Path) -> list[Trajectory]:
    """See `demonstrate`."""
    return demonstrate(model_folder)


def demonstrate(model_folder: Path) -> list[Trajectory]:
    """Eight demonstrations in two groups, with returns that differ and tokens of every role.

    Of the long opening prompt only a few tokens are kept, a different number in each.
    """
    _, chat = load(ModelConfig(name=str(model_folder)))
    records = []
    for episode in range(8):
        record = demonstration(lessons(), chat, episode)
        opening = next(t for t, role in enumerate(record.roles) if role != Role.CONTEXT)
        for name in ("ids", "roles", "logprobs", "turns"):
            setattr(record, name, getattr(record, name)[opening - 3 - episode :])
        record.start = Start(episode // 4, episode % 4, level_seed=0, chance_seed=0, sampling_seed=0)
        record.rewards = [0.3 * ((episode * 5) % 7) - 0.5]
        records.append(record)
    return records


@pytest.fixture
def batch(demonstrated: list[Trajectory]) -> Batch:
    """The demonstrations as a batch, not scored yet."""
    return collate(demonstrated)


@pytest.fixture(scope="session")
def finished(
    make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The directory of an uninterrupted run of `SMALL` with the algorithm of that name. Not to be changed."""
    folder = tmp_path_factory.getbasetemp() / "finished"

    def run(algorithm: str) -> Path:
        path = folder / algorithm
        if not path.exists():
            train(make_config(algorithm={"name": algorithm}), path, progress=SilentProgress())
        return path

    return run


def equal_in_equal_runs(run: Path) -> dict[str, bytes]:
    """The files of a run that config, seed and machine decide, byte for byte."""
    names = ["config.toml", "environment.json", "metrics.jsonl"]
    files = [run / name for name in names]
    files += [path for folder in ("checkpoints", "episodes") for path in sorted((run / folder).rglob("*"))]
    return {str(path.relative_to(run)): path.read_bytes() for path in files if path.is_file()}


def double(batch: Batch) -> Batch:
    """The batch in float64, in place."""
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            setattr(batch, name, value.double())
    return batch
