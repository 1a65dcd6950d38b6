"""Warm start: supervised training on demonstrations, so that there is something to reinforce.

Legend: B trajectories, T tokens; b and t those of a micro-batch, N its chosen tokens.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from actfocus.config import (
    Config,
    EnvConfig,
    EvaluationConfig,
    ModelConfig,
    RolloutConfig,
    WarmstartConfig,
)
from actfocus.distributed import Processes
from actfocus.envs import configured_env, parse_reply
from actfocus.errors import NonFiniteError, RunError
from actfocus.evaluation import evaluate
from actfocus.focus import Role
from actfocus.models import registry
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.models.loading import load
from actfocus.models.tiny import VOCABULARY, tiny_model, tiny_tokenizer
from actfocus.report.progress import Progress
from actfocus.rollout.batch import Batch, collate
from actfocus.training.demonstrations import demonstration, demonstration_texts


class _Language(NamedTuple):
    """What the tokenizer of a fresh `tiny` is made of."""

    games: tuple[str, ...]
    episodes: int
    """Demonstrated episodes of each game."""
    vocabulary: int
    """Tokens, at most."""


_GRID = _Language(("frozen-lake", "sokoban", "sudoku"), 100, VOCABULARY)
_SHOP = _Language(("webshop",), 1000, 4096)
"""So many that ids, option values and words of the shipped products are one token each: to repeat them is
to copy one token."""

_EVALUATION_SAMPLES = 4
_WARMUP_SHARE = 0.05
_SORTED_TOGETHER = 16  # batches whose episodes are sorted by length, so that rows of a batch are alike


def warmstart(config: WarmstartConfig, out: Path, *, progress: Progress) -> dict[str, Any]:
    """Train `config.model` on demonstrations and save it as a Hugging Face folder at `out`.

    Returns:
        `model` (the folder), `loss` and `success`: the evaluation, None without start states.

    Raises:
        GameError: If a game of the user's own raises.
        RunError: If `out` exists, or several processes were started.
        ModelError: If the model cannot be loaded.
        NonFiniteError: If the loss or a gradient is not finite; nothing is saved.
    """
    if out.exists():
        raise RunError(f"{out} exists already and is never overwritten: choose another --out")
    processes = Processes()
    if processes.count > 1:
        raise RunError("the warm start runs in one process: start it without `accelerate launch`")
    if config.model.name == registry.TINY:
        model, chat = _fresh_tiny(config, processes.device)
    else:
        model, chat = load(config.model, device=processes.device)
    losses = imitate(model, chat, config, progress)
    _save(model, chat, config, out)
    last = losses[-len(losses) // 10 :]
    success = None
    if config.evaluation_states:
        progress.note("evaluating")
        success = {"step": len(losses)} | _success(config, model, chat, processes)
    return {"model": str(out), "loss": sum(last) / len(last), "success": success}


def _success(
    config: WarmstartConfig, model: LanguageModel, chat: Chat, processes: Processes
) -> dict[str, Any]:
    usual = RolloutConfig()
    context = min(usual.context, model.longest or usual.context)
    run = Config(env=config.env, model=config.model, rollout=usual.model_copy(update={"context": context}))
    settings = EvaluationConfig(states=config.evaluation_states, samples=_EVALUATION_SAMPLES)
    return evaluate(run, settings, model, chat, processes).to_json()


def imitate(model: LanguageModel, chat: Chat, config: WarmstartConfig, progress: Progress) -> list[float]:
    """Minimise the negative log-likelihood of the demonstrator's tokens; returns the loss of each update."""
    total = math.ceil(config.episodes / config.batch)
    parameters = model.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    progress.begin(f"warm start on {config.env.name}", total)
    for step, batch in enumerate(_batches(config, chat, model.device)):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _course(step, total)
        loss = _update(model, optimizer, batch, config, parameters)
        losses.append(loss)
        progress.advance({"update": step + 1, "loss": loss})
    progress.end()
    return losses


def _update(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: WarmstartConfig,
    parameters: list[torch.nn.Parameter],
) -> float:
    """One update; returns the mean loss of the demonstrator's tokens alone."""
    chosen_BT = batch.sampled_BT
    if config.context_weight > 0:
        chosen_BT = torch.arange(chosen_BT.shape[1], device=model.device) < batch.lengths_B[:, None]
        chosen_BT[:, 0] = False  # nothing predicts the first token
    weights_BT = torch.where(batch.sampled_BT, 1.0, config.context_weight)
    weights_BT[batch.roles_BT == Role.ACTION] = config.action_weight
    weight = weights_BT[chosen_BT].sum()
    said = 0.0
    optimizer.zero_grad()
    # Neighbours are of alike length already: see `_batches`.
    for rows in torch.arange(len(batch)).split(config.micro_batch):
        part = batch.rows(rows.tolist())
        chosen_bt = chosen_BT[rows, : part.ids_BT.shape[1]]
        losses_N = -model.token_scores(part.ids_BT, chosen_bt).logprobs
        weights_N = weights_BT[rows, : part.ids_BT.shape[1]][chosen_bt]
        loss = (weights_N * losses_N).sum() / weight
        if not loss.isfinite():
            raise NonFiniteError("the warm start's loss is not finite: lower --lr")
        loss.backward()
        said += float(losses_N[part.sampled_BT[chosen_bt]].detach().sum())
    if not torch.nn.utils.clip_grad_norm_(parameters, 1.0).isfinite():
        raise NonFiniteError("the warm start's gradient is not finite: lower --lr")
    optimizer.step()
    return said / int(batch.sampled_BT.sum())


def _course(step: int, total: int) -> float:
    warmup = max(1, int(total * _WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _batches(config: WarmstartConfig, chat: Chat, device: torch.device) -> Iterator[Batch]:
    pool_size = config.batch * _SORTED_TOGETHER
    order = torch.Generator().manual_seed(config.seed)
    for start in range(0, config.episodes, pool_size):
        stop = min(start + pool_size, config.episodes)
        pool = [demonstration(config, chat, episode) for episode in range(start, stop)]
        pool.sort(key=lambda record: len(record.ids))
        batches = [pool[i : i + config.batch] for i in range(0, len(pool), config.batch)]
        for index in torch.randperm(len(batches), generator=order).tolist():
            yield collate(batches[index], device)


def _fresh_tiny(config: WarmstartConfig, device: torch.device) -> tuple[LanguageModel, Chat]:
    language = _SHOP if config.env.name in _SHOP.games else _GRID
    tokenizer = tiny_tokenizer(_corpus(language), language.vocabulary)
    model = tiny_model(tokenizer, config.model.init_seed).to(device)
    return LanguageModel(model, precision=config.model.precision), Chat(tokenizer)


def _corpus(language: _Language) -> Iterator[str]:
    for name in language.games:
        config = WarmstartConfig(env=EnvConfig(name=name), model=ModelConfig())
        yield _system_prompt(config)
        for episode in range(language.episodes):
            for observation, reply in demonstration_texts(config, episode):
                yield observation
                parsed = parse_reply(reply)
                yield from (reply[slice(*span)] for span in (parsed.reasoning, parsed.action) if span)


def _save(model: LanguageModel, chat: Chat, config: WarmstartConfig, out: Path) -> None:
    whole: Any = model.model
    trained = whole.merge_and_unload() if model.has_adapters else whole
    assert isinstance(trained, PreTrainedModel)
    # Made aside and renamed: after a kill or on a full disk no half of a model stands at `out`.
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        trained.save_pretrained(aside)
        chat.tokenizer.save_pretrained(aside)
        record = config.model_dump(mode="json") | {"wording": wording_digest(config)}
        (aside / "warmstart.json").write_text(json.dumps(record, indent=2) + "\n")
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def wording_digest(config: WarmstartConfig) -> str:
    """Names the rules and the wording that a model was taught: another digest, another language."""
    varied = config.model_copy(update={"plain_share": 0.0})
    texts = [demonstration_texts(varied, episode) for episode in range(40)]
    return hashlib.sha256(json.dumps([_system_prompt(config), texts]).encode()).hexdigest()


def _system_prompt(config: WarmstartConfig) -> str:
    return configured_env(config.env).system_prompt
