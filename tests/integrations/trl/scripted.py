"""A trainer whose completions are written here, so that every role is known without the code under test.

Legend: B completions, T tokens.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from actfocus.integrations.trl import ActFocusGRPOTrainer, FocusConfig, episode_return
from actfocus.models.chat import Chat
from actfocus.models.registry import tiny_path

MODEL = str(tiny_path("frozen-lake"))
CONTEXT, REASONING, ACTION, OTHER = range(4)
GROUP, PROMPTS = 4, 2
ACTIONS = ["Left", "Right", "Up", "Down", "Left || Up", " Right ", "Down || Left", "Up || Right"]


class Line(NamedTuple):
    """A completion as it was written: ids, one role each, and the return."""

    prompt: list[int]
    ids: list[int]
    roles: list[int]
    total: float


def encode(text: str) -> list[int]:
    ids: list[int] = tokenizer().encode(text, add_special_tokens=False)
    return ids


def tokenizer() -> Any:
    if not _TOKENIZER:
        _TOKENIZER.append(AutoTokenizer.from_pretrained(MODEL))
    return _TOKENIZER[0]


_TOKENIZER: list[Any] = []


def piece(text: str, role: int) -> tuple[list[int], list[int]]:
    ids = encode(text)
    return ids, [role] * len(ids)


def reply(number: int, action: str) -> list[tuple[list[int], list[int]]]:
    """A well-formed reply, written piece by piece: a token never reaches over the end of a piece."""
    return [
        piece("<think>", OTHER),
        piece(f"The player is at ({number % 6},{number % 5}).", REASONING),
        piece("</think>", OTHER),
        piece("<answer>", OTHER),
        piece(action, ACTION),
        piece("</answer>", OTHER),
        piece("<|end|>", OTHER),
    ]


def line(number: int) -> Line:
    """Completion `number`: of one or two turns, some malformed, some cut; all of them different."""
    pieces = reply(number, ACTIONS[number % len(ACTIONS)])
    if number % 3 == 1:  # a second turn
        pieces += [piece("<|user|>You see ice.<|end|><|assistant|>", CONTEXT)]
        pieces += reply(number + 1, ACTIONS[(number + 3) % len(ACTIONS)])
    if number % 8 == 6:  # malformed
        pieces = [piece("I go <answer>Left</answer><|end|>", OTHER)]
    if number % 8 == 7:  # cut off: no tag closes, so nothing is known
        pieces = [piece("<think>The player", OTHER)]
    ids = [i for part, _ in pieces for i in part]
    roles = [r for _, part in pieces for r in part]
    prompt = encode(
        "<|system|>FrozenLake<|end|><|user|>" + "Go. " * (1 + number % 3) + "<|end|><|assistant|>"
    )
    return Line(prompt, ids, roles, [0.9, -0.1, 0.3, 0.0, 1.0, -0.2, 0.5, 0.1][number * 5 % 8])


class Script:
    """A `rollout_func` that plays the lines of this process's share, new ones at each call."""

    def __init__(self) -> None:
        self.calls = 0

    def numbers(self, count: int, rank: int = 0, world: int = 1) -> list[int]:
        first = self.calls * count * world + rank * count
        return list(range(first, first + count))

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        accelerator = trainer.accelerator
        numbers = self.numbers(len(prompts), accelerator.process_index, accelerator.num_processes)
        self.calls += 1
        lines = [line(number) for number in numbers]
        return {
            "prompt_ids": [each.prompt for each in lines],
            "completion_ids": [each.ids for each in lines],
            "env_mask": [[int(role != CONTEXT) for role in each.roles] for each in lines],
            "logprobs": None,
            "episode_return": [each.total for each in lines],
        }


def config(out: Path, **settings: Any) -> GRPOConfig:
    """A run of a few seconds: one update on 8 completions per step, plain on the CPU."""
    given: dict[str, Any] = {
        "output_dir": str(out),
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": GROUP,
        "max_steps": 1,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
        "report_to": [],
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return GRPOConfig(**{**given, **settings})


def prompts(count: int = 16) -> Dataset:
    return Dataset.from_dict({"prompt": [f"level {k}" for k in range(count)]})


def trainer(
    out: Path, *, kind: type = ActFocusGRPOTrainer, model: Any = MODEL, args: Any = None, **given: Any
) -> Any:
    """A scripted trainer; `kind=GRPOTrainer` gives TRL's own."""
    if kind is not GRPOTrainer:
        given.setdefault("focus", FocusConfig())
    given.setdefault("rollout_func", Script())
    given.setdefault("reward_funcs", episode_return)
    settings = {name: given.pop(name) for name in list(given) if name in GRPOConfig.__dataclass_fields__}
    args = args or config(out, **settings)
    return kind(model=model, args=args, train_dataset=prompts(), **given)


def parameters(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


class Recorder(TrainerCallback):
    """Keeps, of every update, the parameters before it, its gradient, and the batches it was made of."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.before: list[dict[str, torch.Tensor]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.batches: list[list[dict[str, Any]]] = []
        trainer.add_callback(self)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        named = list(self.trainer.model.named_parameters())
        self.before.append({name: value.detach().clone() for name, value in named})
        self.gradients.append({name: value.grad.clone() for name, value in named if value.grad is not None})
        self.batches.append(copy.deepcopy(self.trainer._buffered_inputs))


def chat() -> Chat:
    return Chat(copy.deepcopy(tokenizer()))


def shifted(find_roles: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Roles one token late."""
    return lambda *args: find_roles(*args).roll(1, dims=1)


def inverted(find_roles: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Reasoning taken for action, and the other way round."""
    order = torch.tensor([CONTEXT, ACTION, REASONING, OTHER], dtype=torch.int8)
    return lambda *args: order[find_roles(*args).long()]


MUTATIONS = {"shifted": shifted, "inverted": inverted}


def losses_of(trainer: Any) -> list[float]:
    """The loss of every micro-batch, as training goes on."""
    losses: list[float] = []
    compute = trainer._compute_loss

    def watch(model: Any, inputs: Any) -> torch.Tensor:
        loss = compute(model, inputs)
        losses.append(loss.item())
        return loss

    trainer._compute_loss = watch
    return losses
