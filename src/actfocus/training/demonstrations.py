"""Demonstrations: episodes of the scripted expert, with chance moves and reasoning about the state."""

import numpy as np

from actfocus.config import WarmstartConfig
from actfocus.envs import configured_env
from actfocus.envs.protocol import ACTION_SEPARATOR, TextEnv
from actfocus.models.chat import Chat
from actfocus.rollout.sampler import read_reply
from actfocus.rollout.seeds import Stream, derive_seed
from actfocus.rollout.trajectory import Start, Trajectory

_PLAIN_STYLE = 0
"""Seed of the one order and wording of plain reasoning."""


def demonstration_texts(config: WarmstartConfig, episode: int) -> list[tuple[str, str]]:
    """One episode as pairs of (what the environment says, what the demonstrator replies)."""
    rng = np.random.default_rng(derive_seed(Stream.DEMONSTRATIONS, config.seed, episode))
    env = configured_env(config.env)
    observation, _ = env.reset(seed=derive_seed(Stream.LEVEL, config.seed, episode))
    plain = episode < config.plain_share * config.episodes
    pairs: list[tuple[str, str]] = []
    unseen = int(rng.integers(env.turns)) if plain and config.midway else 0
    for _ in range(unseen):
        observation, _, terminated, truncated, _ = env.step(_reply(env, rng, config, plain=plain))
        if terminated or truncated:
            observation, _ = env.reset(seed=derive_seed(Stream.LEVEL, config.seed, episode))
    over = False
    while not over:
        reply = _reply(env, rng, config, plain=plain)
        pairs.append((observation, reply))
        observation, _, terminated, truncated, _ = env.step(reply)
        over = terminated or truncated or plain
    return pairs


def _reply(env: TextEnv, rng: np.random.Generator, config: WarmstartConfig, *, plain: bool) -> str:
    """Reasoning that speaks of the state and not of the choice: the action tokens alone decide."""
    count = int(rng.integers(1, env.actions_per_turn + 1))
    expert = env.expert_actions()
    if not expert or rng.random() < config.random_share:
        actions = [env.random_action(rng) for _ in range(count)]
    else:
        actions = expert[:count]
    wanted = int(rng.integers(max(1, config.remarks - 2), config.remarks + 3))
    wording = np.random.default_rng(_PLAIN_STYLE) if plain else rng
    remarks: list[str] = []
    while len(remarks) < wanted:
        remarks += env.remarks(wording)
    reasoning = " ".join(remarks[:wanted])
    answer = f" {ACTION_SEPARATOR} ".join(actions)
    return f"<think> {reasoning}</think><answer> {answer}</answer>"


def demonstration(config: WarmstartConfig, chat: Chat, episode: int) -> Trajectory:
    """One episode as a token record; the demonstrator's tokens carry the roles that sampled ones would."""
    system = configured_env(config.env).system_prompt
    record = Trajectory(Start(group=episode, member=0, level_seed=0, chance_seed=0, sampling_seed=0))
    for turn, (observation, text) in enumerate(demonstration_texts(config, episode)):
        before = chat.next_turn(observation, reply_ended=True) if turn else chat.opening(system, observation)
        record.add_context(before, turn)
        ids = chat.encode_reply(text)
        roles = read_reply(chat, ids).roles
        record.add_reply(ids, roles, [0.0] * len(ids), turn)
    return record
