"""Warm start: supervised training on demonstrations, so that reinforcement learning has something to reinforce.

Legend: B trajectories, T tokens.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import PreTrainedModel

from actfocus.config import EnvConfig, EnvName, ModelConfig, WarmstartConfig
from actfocus.errors import NonFiniteError, RunError
from actfocus.models import registry
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.models.loading import load
from actfocus.models.tiny import tiny_model, tiny_tokenizer
from actfocus.report.progress import Progress
from actfocus.rollout.batch import Batch, collate
from actfocus.training.demonstrations import demonstration, demonstration_texts

_WARMUP_SHARE = 0.05
_SORTED_TOGETHER = 16  # batches whose episodes are sorted by length, so that rows of a batch are alike


def warmstart(config: WarmstartConfig, out: Path, *, progress: Progress) -> dict[str, Any]:
    """Train `config.model` on demonstrations and save it as a Hugging Face folder at `out`.

    Raises:
        RunError: If `out` exists.
        ModelError: If the model cannot be loaded.
        NonFiniteError: If the loss is not finite; nothing is saved.
    """
    if out.exists():
        raise RunError(f"{out} exists already and is never overwritten: choose another --out")
    if config.model.name == registry.TINY:
        model, chat = _fresh_tiny(config)
    else:
        model, chat = load(config.model)
    losses = imitate(model, chat, config, progress)
    _save(model, chat, config, out)
    return {"model": str(out), "loss": losses[-1], "losses": losses}


def warm_tiny(env: EnvConfig, *, progress: Progress) -> Path:
    """The warm-started `tiny` for an environment: from the cache, or built now in about a minute."""
    config = WarmstartConfig(env=env)
    folder = registry.cache_folder() / f"tiny-{env.name}-{_digest(config)}"
    if not (folder / "config.json").exists():
        progress.note(f"building the warm-started model `tiny` for {env.name} (once, about a minute)")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Built aside and renamed: two processes may build at once, and a killed build leaves no half.
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tiny-"))
        try:
            warmstart(config, aside / "model", progress=progress)
            if not folder.exists():
                os.replace(aside / "model", folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def imitate(model: LanguageModel, chat: Chat, config: WarmstartConfig, progress: Progress) -> list[float]:
    """Minimise the negative log-likelihood of the demonstrator's tokens; returns the loss of each update."""
    total = math.ceil(config.episodes / config.batch)
    parameters = model.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    progress.begin(f"warm start on {config.env.name}", total)
    for step, batch in enumerate(_batches(config, chat)):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _course(step, total)
        loss = _update(model, optimizer, batch, parameters)
        losses.append(loss)
        progress.advance({"update": step + 1, "loss": loss})
    progress.end()
    return losses


def _update(
    model: LanguageModel, optimizer: torch.optim.Optimizer, batch: Batch, parameters: list[torch.nn.Parameter]
) -> float:
    scores = model.token_scores(batch.ids_BT, batch.sampled_BT)
    loss = -scores.logprobs.mean()
    if not loss.isfinite():
        raise NonFiniteError("the warm start's loss is not finite: lower --lr")
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()


def _course(step: int, total: int) -> float:
    warmup = max(1, int(total * _WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _batches(config: WarmstartConfig, chat: Chat) -> Iterator[Batch]:
    pool_size = config.batch * _SORTED_TOGETHER
    order = torch.Generator().manual_seed(config.seed)
    for start in range(0, config.episodes, pool_size):
        stop = min(start + pool_size, config.episodes)
        pool = [demonstration(config, chat, episode) for episode in range(start, stop)]
        pool.sort(key=lambda record: len(record.ids))
        batches = [pool[i : i + config.batch] for i in range(0, len(pool), config.batch)]
        for index in torch.randperm(len(batches), generator=order).tolist():
            yield collate(batches[index])


def _fresh_tiny(config: WarmstartConfig) -> tuple[LanguageModel, Chat]:
    tokenizer = tiny_tokenizer(_tokenizer_corpus())
    model = tiny_model(tokenizer, config.model.init_seed)
    return LanguageModel(model, precision=config.model.precision), Chat(tokenizer)


def _tokenizer_corpus(episodes: int = 100) -> Iterator[str]:
    """Demonstrations of every environment, so that one tokenizer serves them all."""
    for name in get_args(EnvName):
        config = WarmstartConfig(env=EnvConfig(name=name), model=ModelConfig())
        yield _system_prompt(config)
        for episode in range(episodes):
            for observation, reply in demonstration_texts(config, episode):
                yield observation
                yield reply.replace("<think>", "").replace("</think>", "\n").replace("<answer>", "").replace("</answer>", "")


def _save(model: LanguageModel, chat: Chat, config: WarmstartConfig, out: Path) -> None:
    trained = model.model.merge_and_unload() if model.has_adapters else model.causal_lm
    assert isinstance(trained, PreTrainedModel)
    trained.save_pretrained(out)
    chat.tokenizer.save_pretrained(out)
    (out / "warmstart.json").write_text(config.model_dump_json(indent=2) + "\n")


def _digest(config: WarmstartConfig) -> str:
    """Names what the built model depends on: settings, rules, and the wording of demonstrations."""
    material = [config.model_dump(), _system_prompt(config), [demonstration_texts(config, e) for e in range(20)]]
    return hashlib.sha256(json.dumps(material).encode()).hexdigest()[:12]


def _system_prompt(config: WarmstartConfig) -> str:
    from actfocus.envs import make_env

    return make_env(config.env.name, **config.env.settings()).system_prompt
