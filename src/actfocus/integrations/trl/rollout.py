"""Episodes of our environments as TRL's `rollout_func`: many turns, with a real end.

A row of the data set names a level; the members of a group share it and not the luck. Replies are sampled
tokens, what the environment says between them is masked (`env_mask`), and no sampled token is ever tokenised
again.
"""

import math
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from datasets import Dataset

from actfocus.envs import make_env
from actfocus.envs.protocol import TextEnv
from actfocus.errors import ConfigError
from actfocus.focus import Role
from actfocus.integrations.levels import Split, level_seeds
from actfocus.integrations.trl.chat import quiet_chat
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.rollout.sampler import Episode, Limits, sample_episodes
from actfocus.rollout.seeds import Stream, derive_seed
from actfocus.rollout.trajectory import Start, Trajectory

_LEVEL = re.compile(r" level (\d+)$")


class EnvironmentRollout:
    """Plays an environment for TRL: `rollout_func=rollout`, `train_dataset=rollout.dataset(rows)`."""

    def __init__(self, env: str, *, context: int, response: int, seed: int = 0, **settings: Any) -> None:
        """Choose the environment; it is made once, so that wrong settings are refused at once.

        Args:
            env: Its name, or `package.module:Class`.
            context: Tokens in a whole episode, at most.
            response: Tokens in one reply, at most.
            seed: Of the levels and of all luck.
            settings: The environment's own.

        Raises:
            ConfigError: If there is no such environment or it refuses the settings.
        """
        self._name, self._settings, self._seed = env, settings, seed
        self._limits = Limits(context, response)
        self._chat: Chat | None = None
        self._tokenizer: Any = None
        self._moment: tuple[int, int] = (-1, 0)
        """(optimiser steps, calls since then): a level that comes again is played with other luck."""
        self._make()

    def _make(self) -> TextEnv:
        return make_env(self._name, **self._settings)

    def dataset(self, rows: int, *, split: Split = "train") -> Dataset:
        """A data set of `rows` levels, of training or of evaluation; no level seed is in both.

        Raises:
            ConfigError: If there is no such split.
        """
        levels = level_seeds(rows, seed=self._seed, split=split)
        return Dataset.from_dict({"prompt": [f"{self._name} level {level}" for level in levels]})

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """What TRL asks of a `rollout_func`, with `episode_return` and `success` for reward functions.

        Args:
            prompts: This process's share; each stands there once per completion.
            trainer: The `GRPOTrainer`.

        Raises:
            ConfigError: If the prompts are not from `dataset`, or the trainer's settings do not suit.
        """
        if self._chat is None or self._tokenizer is not trainer._tokenizer:
            self._tokenizer = trainer._tokenizer
            self._chat = quiet_chat(self._tokenizer, trainer.eos_token_ids)
        starts = self._starts(prompts, trainer)
        if trainer.use_vllm or trainer.use_transformers_continuous_batching:
            if self._limits.response > trainer.max_completion_length:
                raise ConfigError(
                    f"a reply may have {self._limits.response} tokens, but max_completion_length ="
                    f" {trainer.max_completion_length} cuts it: raise that, or lower response"
                )
            return as_trl(
                play_with(trainer, self._chat, self._make, starts, self._limits), with_logprobs=True
            )
        # Ours are those of temperature 1, whatever the sampling was.
        return as_trl(self._sample(trainer, starts), with_logprobs=trainer.temperature == 1)

    def _starts(self, prompts: Sequence[str], trainer: Any) -> list[Start]:
        step = int(trainer.state.global_step)
        self._moment = (step, self._moment[1] + 1 if self._moment[0] == step else 0)
        first = trainer.accelerator.process_index * len(prompts)
        starts = []
        for place, prompt in enumerate(prompts, first):
            found = _LEVEL.search(prompt) if isinstance(prompt, str) else None
            if found is None:
                raise ConfigError(
                    f"the prompt {str(prompt)[:60]!r} names no level: train on the rollout's dataset(rows)"
                )
            key = (self._seed, *self._moment, place)
            chance, sampling = derive_seed(Stream.CHANCE, *key), derive_seed(Stream.SAMPLING, *key)
            starts.append(Start(place, 0, int(found[1]), chance, sampling))
        return starts

    def _sample(self, trainer: Any, starts: Sequence[Start]) -> list[Trajectory]:
        """With our own sampler, which keeps the cache from turn to turn."""
        _refuse_other_sampling(trainer)
        model, chat = trainer.model, self._chat
        assert chat is not None
        was_training = model.training
        try:
            policy = LanguageModel(model, precision="bfloat16" if trainer.args.bf16 else "float32")
            return sample_episodes(
                policy, chat, self._make, starts, limits=self._limits, temperature=trainer.temperature
            )
        finally:
            model.train(was_training)


def _refuse_other_sampling(trainer: Any) -> None:
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ConfigError(
            "EnvironmentRollout samples from whole weights: set use_vllm with FSDP or DeepSpeed"
        )
    plain = {"top_p": (1.0,), "top_k": (0, None), "min_p": (None, 0.0), "repetition_penalty": (1.0,)}
    for name, values in plain.items():
        if getattr(trainer, name) not in values:
            raise ConfigError(
                f"EnvironmentRollout samples at a temperature and nothing else: leave {name} at its default,"
                " or set use_vllm"
            )


def play_with(
    trainer: Any, chat: Chat, make_env: Callable[[], TextEnv], starts: Sequence[Start], limits: Limits
) -> list[Trajectory]:
    """Play episodes with the trainer's own generation, one call per turn: vLLM, or whatever it has.

    All processes make the same number of calls with the same number of prompts: a vLLM server is asked by all
    of them together, and TRL deals its answers out by that number. What is asked for beyond the episodes is
    dropped.
    """
    episodes = [Episode(make_env(), chat, start, limits) for start in starts]
    while True:
        active = [episode for episode in episodes if episode.writing]
        own = torch.tensor([len(active)], device=trainer.accelerator.device)
        width = int(trainer.accelerator.gather(own).max())
        if width == 0:
            return [episode.record for episode in episodes]
        contexts = [episode.record.ids for episode in active]
        contexts += [episodes[0].record.ids[:1]] * (width - len(active))
        replies, logprobs = trainer._generate_single_turn(contexts, None, {}, 1)
        for row, episode in enumerate(active):
            episode.take(replies[row], logprobs[row] if logprobs else None)
            episode.play()


def as_trl(records: Sequence[Trajectory], *, with_logprobs: bool) -> dict[str, Any]:
    """Records as the dictionary that TRL takes from a `rollout_func`.

    Args:
        records: The episodes, in the order of the prompts.
        with_logprobs: Whether their log-probabilities are those that tokens were sampled with. Without one
            of them TRL gets none, and takes the trainer's own.

    Raises:
        ConfigError: If an episode has no room for a reply.
    """
    output: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "env_mask": []}
    logprobs = []
    for record in records:
        sampled = [role != Role.CONTEXT for role in record.roles]
        if True not in sampled:
            raise ConfigError(
                f"the first prompt has {len(record.ids)} tokens and leaves no room for a reply: raise context"
            )
        first = sampled.index(True)
        output["prompt_ids"].append(record.ids[:first])
        output["completion_ids"].append(record.ids[first:])
        output["env_mask"].append([int(flag) for flag in sampled[first:]])
        logprobs.append(record.logprobs[first:])
    known = all(map(math.isfinite, chain.from_iterable(logprobs)))
    output["logprobs"] = logprobs if with_logprobs and known else None
    output["episode_return"] = [record.total_return for record in records]
    output["success"] = [record.success for record in records]
    return output


def episode_return(completions: Sequence[Any], episode_return: Sequence[float], **kwargs: Any) -> list[float]:
    """The reward function that goes with `EnvironmentRollout`: R of each episode."""
    return list(episode_return)
