"""What tests read off a real step, in the trainer's actor, and roles found without the code under test.

Legend: B rows, R tokens of the longest response.
"""

import re
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch
import transfer_queue as tq
from tensordict import NonTensorStack
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.trainer.ppo.v1 import PPOTrainerSync

from actfocus.config import FocusConfig
from actfocus.focus import policy_loss
from actfocus.integrations.verl import trainer as trainer_module
from tests.verl.config import MODEL
from tests.verl.stage import fields

CONTEXT, REASONING, ACTION, OTHER = range(4)
_REPLY = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")
KEPT = (
    *("prompts", "responses", "response_mask", "loss_mask", "rm_scores", "old_log_probs", "ref_log_prob"),
    *("values", "extra_fields", "extra_info", "session_id", "rollout_log_probs", "global_steps"),
    *("focus_roles", "focus_signal"),
)


def step(stage: Any) -> dict[str, Any]:
    """The advantages of verl, then those of ours, and all that they were made of."""
    metrics: dict[str, Any] = {}
    PPOTrainerSync._compute_advantage(stage.trainer, stage.batch, metrics)
    plain = fields(stage, "advantages", "returns")
    stage.trainer._compute_advantage(stage.batch, metrics)
    after = fields(stage, "advantages", "returns", "focus_weights", *KEPT)
    return {
        **after,
        "plain_advantages": plain["advantages"],
        "plain_returns": plain["returns"],
        "metrics": metrics,
    }


def update(stage: Any) -> dict[str, Any]:
    """What verl's actor reports of the update on our advantages."""
    metrics: dict[str, Any] = {}
    batch = stage.trainer._compute_advantage(stage.batch, metrics)
    stage.trainer._update_actor(batch, metrics)
    return metrics


def with_wrong_roles(stage: Any, name: str) -> dict[str, Any]:
    """`step`, where the trainer reads roles that are late by a token or inverted."""
    read = trainer_module.response_roles
    table = torch.tensor([CONTEXT, ACTION, REASONING, OTHER], dtype=torch.int8)
    wrong = {
        "right": read,
        "shifted": lambda *args, **kwargs: read(*args, **kwargs).roll(1),
        "inverted": lambda *args, **kwargs: table[read(*args, **kwargs).long()],
    }[name]
    # The signal stands at the right actions only; without it wrong roles would be refused at once.
    focus = stage.trainer._focus.model_copy(update={"beta": 0.0})
    with patch.object(trainer_module, "response_roles", wrong), patch.object(stage.trainer, "_focus", focus):
        return step(stage)


def with_signal(stage: Any, name: str) -> dict[str, Any]:
    """`step` with another signal, for which the reference makes its pass again where it has to."""
    focus = FocusConfig(signal=name)
    with patch.object(stage.trainer, "_focus", focus):
        if name == "entropy":
            stage.trainer._compute_ref_log_prob(stage.batch, {})
        return step(stage)


def uniform(stage: Any) -> dict[str, Any]:
    """`step` with the weights of plain GRPO."""
    with patch.object(stage.trainer, "_focus", FocusConfig(alpha=1, beta=0)):
        return step(stage)


def weightless(stage: Any) -> dict[str, Any]:
    """`update` where no token has a weight: reasoning alone, at α = 0."""
    read = trainer_module.response_roles
    with (
        patch.object(stage.trainer, "_focus", FocusConfig(alpha=0)),
        patch.object(
            trainer_module,
            "response_roles",
            lambda *args, **kwargs: read(*args, **kwargs).clamp(max=REASONING),
        ),
    ):
        return update(stage)


def without_actions(stage: Any, alpha: float, beta: float) -> list[str]:
    """What is logged in two steps where all of the replies are malformed."""
    read, said = trainer_module.response_roles, []
    focus = FocusConfig(alpha=alpha, beta=beta)
    with (
        patch.object(stage.trainer, "_focus", focus),
        patch.object(stage.trainer, "_warned_of_no_action", False),
        patch.object(
            trainer_module,
            "response_roles",
            lambda *args, **kwargs: torch.where(read(*args, **kwargs) == CONTEXT, CONTEXT, OTHER),
        ),
        patch.object(trainer_module._log, "warning", lambda text, *args: said.append(text % args)),
    ):
        for _ in range(2):
            step(stage)
    return said


def critic_losses(stage: Any) -> list[dict[str, Any]]:
    """What verl's critic reports of the update on our advantages, and on its own; its learning rate is 0."""
    found = []
    for compute in (
        stage.trainer._compute_advantage,
        partial(PPOTrainerSync._compute_advantage, stage.trainer),
    ):
        metrics: dict[str, Any] = {}
        stage.trainer._update_critic(compute(stage.batch, metrics), metrics)
        found.append(metrics)
    return found


def without_spans(stage: Any, how: str) -> None:
    """The advantages of rows whose loop gave no spans: as another field's value, or without the field."""
    batch = stage.batch
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id)
    if how == "empty":
        data["extra_fields"] = NonTensorStack(*[{"reward_extra_info": {}} for _ in batch.keys])
    else:
        del data["extra_fields"]
    bare = tq.kv_batch_put(keys=batch.keys, partition_id=f"bare-{how}", fields=data, tags=batch.tags)
    try:
        stage.trainer._compute_advantage(bare, {})
    finally:
        tq.kv_clear(keys=batch.keys, partition_id=f"bare-{how}")


def mini_batches(count: int, ranks: int, size: int, *, shuffle: bool) -> list[list[int]]:
    """Rows of each update: contiguous shares of the ranks, each shuffled by verl's default seed + rank."""
    share, parts = count // ranks, []
    for rank in range(ranks):
        rows = list(range(rank * share, (rank + 1) * share))
        generator = torch.Generator().manual_seed(42 + rank)
        size_of_rank = size // ranks
        parts.append(
            list(DataLoader(rows, size_of_rank, shuffle=shuffle, generator=generator, collate_fn=list))
        )
    return [[row for part in step for row in part] for step in zip(*parts, strict=True)]


def losses(table: dict[str, Any], updates: list[list[int]]) -> list[float]:
    """The method's loss of each update on the policy that sampled: the ratio is 1."""
    advantages, weights = padded(table["plain_advantages"]), padded(table["focus_weights"])
    found = []
    for rows in updates:
        same = torch.zeros_like(advantages[rows])
        loss, _ = policy_loss(same, same, advantages[rows], weights[rows], clip_low=0.2, clip_high=0.28)
        found.append(loss.item())
    return found


def padded(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


@cache
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


def replies(row: dict[str, Any]) -> list[tuple[int, int]]:
    """Ranges of the response that the model sampled."""
    flags = row["response_mask"].tolist()
    edges = [
        at
        for at in range(len(flags) + 1)
        if (flags[at] if at < len(flags) else 0) != (flags[at - 1] if at else 0)
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))


def well_formed(text: str) -> re.Match[str] | None:
    """A reply's reasoning and action as groups 1 and 2."""
    return _REPLY.fullmatch(text) if len(_TAG.findall(text)) == 4 else None


def expected_roles(row: dict[str, Any]) -> torch.Tensor:
    """One role per token, from the text that growing prefixes of a reply decode to."""
    ids = row["responses"].tolist()
    roles = [CONTEXT] * len(ids)
    for start, end in replies(row):
        reply = [i for i in ids[start:end] if i != tokenizer().eos_token_id]
        ends = [len(tokenizer().decode(reply[: k + 1])) for k in range(len(reply))]
        text = tokenizer().decode(reply)
        match = well_formed(text)
        for at in range(start, end):
            roles[at] = OTHER
            if match is not None and at - start < len(reply):
                lo, hi = ([0, *ends])[at - start : at - start + 2]
                for group, role in ((1, REASONING), (2, ACTION)):
                    if max(lo, match.start(group)) < min(hi, match.end(group)):
                        roles[at] = role
    return torch.tensor(roles, dtype=torch.int8)


def rows_of(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The table row by row."""
    names = [
        name
        for name, column in table.items()
        if isinstance(column, list) and len(column) == len(table["keys"])
    ]
    return [{name: table[name][row] for name in names} for row in range(len(table["keys"]))]


def is_padding(row: dict[str, Any]) -> bool:
    return bool(row["tags"].get("is_padding", False))


def all_roles(table: dict[str, Any]) -> torch.Tensor:
    """Roles [B, R] of every row; verl's padding has none."""
    return padded(
        [
            torch.zeros(len(row["responses"]), dtype=torch.int8) if is_padding(row) else expected_roles(row)
            for row in rows_of(table)
        ]
    )
