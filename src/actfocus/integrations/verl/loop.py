"""Our environments as agent loops of verl's: many turns, real ends, and the spans of every reply.

A row of the data set (see `dataset.py`) names a level; the members of a group share it and not the luck. No
sampled token is ever tokenised again. The last token of a response is always a sampled one, because verl puts
the reward on the last token, and its GAE does not see it where that is masked.
"""

import copy
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput

from actfocus.envs import make_env
from actfocus.errors import ConfigError
from actfocus.focus import Role
from actfocus.integrations.verl.spans import KEY, spans_of
from actfocus.models.chat import Chat
from actfocus.rollout.sampler import Episode, Limits
from actfocus.rollout.seeds import Stream, derive_seed
from actfocus.rollout.trajectory import Start

LOOPS = Path(__file__).parent / "agent_loops.yaml"
"""For `actor_rollout_ref.rollout.agent.agent_loop_config_path`: one loop per environment, and `tags`."""


@lru_cache(maxsize=2)
def chat_of(tokenizer: Any) -> Chat:
    """On a copy, because `Chat` gives a tokenizer without a chat template ours. A loop lives one episode."""
    return Chat(copy.deepcopy(tokenizer))


class GameLoop(AgentLoopBase):  # type: ignore[misc, unused-ignore]
    """Plays one episode of an environment."""

    def __init__(self, *args: Any, env: str, reply: int = 400, settings: Any = None, **kwargs: Any) -> None:
        """Choose the environment; what is not listed here is verl's.

        Args:
            args: verl's.
            env: Its name, or `package.module:Class`.
            reply: Tokens in one reply, at most. The episode has verl's `rollout.response_length`.
            settings: The environment's own.
            kwargs: verl's.

        Raises:
            ConfigError: If there is no such environment or it refuses the settings.
        """
        super().__init__(*args, **kwargs)
        self._env = make_env(env, **dict(settings or {}))
        self._chat = chat_of(self.tokenizer)
        self._reply = reply

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Play an episode.

        Args:
            sampling_params: verl's; `max_tokens` and the ids that end a turn are added.
            kwargs: The row of the data set, with `session_id` and `global_steps`.

        Raises:
            ConfigError: If the row names no level, or the prompt is longer than `rollout.prompt_length`.
        """
        episode = await self.loop.run_in_executor(None, self._begin, kwargs)
        versions: list[int] = []
        request_id = uuid4().hex  # one for all turns: the same server still has the context
        seconds = 0.0
        while episode.writing:
            room = min(self._reply, self._context - len(episode.record.ids))
            started = time.perf_counter()
            output = await self.server_manager.generate(
                request_id=request_id,
                prompt_ids=list(episode.record.ids),
                sampling_params={
                    **sampling_params,
                    "max_tokens": room,
                    "stop_token_ids": sorted(self._chat.end_ids),
                },
            )
            seconds += time.perf_counter() - started
            bounds = (output.extra_fields.get(f"{end}_global_steps") for end in ("min", "max"))
            versions += [bound for bound in bounds if bound is not None]
            if not output.token_ids:
                raise RuntimeError("the rollout server returned no token: was the request aborted?")
            episode.take(output.token_ids, output.log_probs)
            await self.loop.run_in_executor(None, episode.play)
        return self._output(episode, seconds, versions, with_logprobs=bool(sampling_params.get("logprobs")))

    def _begin(self, row: dict[str, Any]) -> Episode:
        info = row.get("extra_info") or {}
        if "level" not in info:
            raise ConfigError(
                "the row of the data set names no level: make it with"
                " python -m actfocus.integrations.verl.dataset"
            )
        level, member = int(info["level"]), int(row.get("session_id", 0))
        # A level that comes again is played with other luck, but an evaluation is always the same.
        moment = (int(row.get("global_steps", 0)),) if info.get("split") == "train" else ()
        chance = derive_seed(Stream.CHANCE, level, member, *moment)
        observation, _ = self._env.reset(seed=level, options={"chance_seed": chance})
        opening = len(self._chat.opening(self._env.system_prompt, observation))
        if opening > self.rollout_config.prompt_length:
            raise ConfigError(
                f"the first prompt has {opening} tokens, more than data.max_prompt_length ="
                f" {self.rollout_config.prompt_length}: raise it"
            )
        self._context = opening + self.rollout_config.response_length
        # The server draws the tokens, so there is no seed of ours for them.
        start = Start(group=0, member=member, level_seed=level, chance_seed=chance, sampling_seed=0)
        return Episode(self._env, self._chat, start, Limits(self._context, self._reply))

    @staticmethod
    def _output(
        episode: Episode, seconds: float, versions: list[int], *, with_logprobs: bool
    ) -> AgentLoopOutput:
        record = episode.record
        sampled = [role != Role.CONTEXT for role in record.roles]
        first = sampled.index(True)
        roles = record.roles[first:]
        extra: dict[str, Any] = {
            KEY: spans_of(roles),
            "reward_extra_info": {**record.figures, "success": float(record.success)},
            "min_global_steps": min(versions, default=None),
            "max_global_steps": max(versions, default=None),
        }
        return AgentLoopOutput(
            prompt_ids=record.ids[:first],
            response_ids=record.ids[first:],
            response_mask=[int(flag) for flag in sampled[first:]],
            response_logprobs=record.logprobs[first:] if with_logprobs else None,
            reward_score=record.total_return,
            num_turns=2 * len(record.rewards),
            metrics={"generate_sequences": seconds},
            extra_fields=extra,
        )
