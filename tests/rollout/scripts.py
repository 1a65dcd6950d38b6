"""Episodes of the tiny agent, and scripted ones: all tokens are equally likely and the luck is chosen."""

from collections.abc import Callable, Sequence

import torch

from actfocus.envs import TextEnv, make_env
from actfocus.focus.roles import Role
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.models.tiny import tiny_model
from actfocus.rollout.sampler import Episode, Limits, sample_episodes
from actfocus.rollout.seeds import training_starts
from actfocus.rollout.trajectory import Trajectory

LIMITS = Limits(900, 24)


class Indifferent(LanguageModel):
    """The trunk is read as ever, but all tokens are equally likely."""

    started = False

    def head(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        logits_NV = super().head(hidden_ND)
        return torch.zeros_like(logits_NV) if self.started else logits_NV


def play_scripts(
    chat: Chat,
    scripts: Sequence[Sequence[Sequence[int]]],
    make: Callable[[], TextEnv],
    limits: Limits,
    monkeypatch,
) -> list[Trajectory]:
    """One episode per script; a script is one list of ids per reply, after which the reply is cut."""
    model = Indifferent(tiny_model(chat.tokenizer))
    model.started = True
    vocabulary = len(chat.tokenizer)

    def draw(episode: Episode) -> float:
        script = scripts[episode.record.start.member]
        token = script[len(episode.record.rewards)][len(episode.reply)]
        return (token + 0.5) / vocabulary

    monkeypatch.setattr(Episode, "draw", draw)
    starts = training_starts(0, 0, 1, len(scripts))
    return sample_episodes(model, chat, make, starts, limits=limits)


def frozen_lake(**settings) -> TextEnv:
    return make_env("frozen-lake", **({"turns": 3, "actions_per_turn": 2} | settings))


def play(model, chat, starts=None, make=frozen_lake, limits=LIMITS, **settings):
    starts = training_starts(1, 0, 3, 3) if starts is None else starts
    return sample_episodes(model, chat, make, starts, limits=limits, **settings)


def replies_of(record):
    turns = sorted(set(record.turns))
    pairs = list(zip(record.ids, record.roles, record.turns, strict=True))
    found = [[i for i, role, t in pairs if t == turn and role != Role.CONTEXT] for turn in turns]
    return [reply for reply in found if reply]


# 1. Alignment. ------------------------------------------------------------------------------------------


def opening_text(record):
    env = frozen_lake()
    observation, _ = env.reset(
        seed=record.start.level_seed, options={"chance_seed": record.start.chance_seed}
    )
    return env.system_prompt, observation
