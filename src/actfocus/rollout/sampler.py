"""Batched multi-turn sampling: many episodes at once, one forward pass per token of the longest reply.

Legend: B rows, D hidden size, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from actfocus.envs.protocol import REPLY_TAGS, TextEnv, parse_reply
from actfocus.errors import ConfigError, ModelError, NonFiniteError
from actfocus.focus.roles import Role, token_roles
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.rollout.context_cache import ContextCache
from actfocus.rollout.trajectory import Start, Trajectory


@dataclass(frozen=True)
class Limits:
    """Tokens: of a whole episode, and of one reply."""

    context: int
    response: int


class BrokenSampling(NonFiniteError):
    """The policy's distribution is not finite; `records` holds every episode as far as it came."""

    def __init__(self, message: str, records: Sequence[Trajectory] = ()) -> None:
        super().__init__(message)
        self.records = list(records)


class ReadReply(NamedTuple):
    """A reply's text, with what the template wrote of it, and the role of each token that the model wrote."""

    text: str
    roles: list[int]


def opening_of(chat: Chat, before: Sequence[int], text: str) -> str:
    """What the chat template wrote of a reply, as those of DeepSeek-R1 and Qwen3.5 do: `<think>`, or nothing.

    Args:
        chat: The tokenizer.
        before: The tokens before the reply.
        text: The reply; where it has a `<think>` of its own, the template's is no part of it.
    """
    # The tag and the blanks behind it are at most a few tokens, even with one token a byte.
    return written_opening(chat.decode(list(before[-16:]))[0], text)


def written_opening(before: str, text: str) -> str:
    """`opening_of`, from the text before the reply."""
    think = REPLY_TAGS[0]
    return think if before.rstrip().endswith(think) and not text.lstrip().startswith(think) else ""


def read_reply(chat: Chat, ids: list[int], before: Sequence[int] = ()) -> ReadReply:
    """Decode a reply and lay the parsed spans on the tokens that wrote them.

    Args:
        chat: The tokenizer.
        ids: What the model wrote.
        before: The tokens in front of it, whose end may be a part of the reply: see `opening_of`.
    """
    text, offsets = chat.decode(ids)
    opening = opening_of(chat, before, text)
    reply, shift = parse_reply(opening + text), len(opening)
    found = [(reply.reasoning, Role.REASONING), (reply.action, Role.ACTION)]
    spans = [(span[0] - shift, span[1] - shift, role) for span, role in found if span is not None]
    return ReadReply(opening + text, token_roles(ids, offsets, spans, [True] * len(ids)).tolist())


class Episode:
    """One running episode: its environment, its record, and the reply being written."""

    def __init__(self, env: TextEnv, chat: Chat, start: Start, limits: Limits) -> None:
        self._env, self._chat, self._limits = env, chat, limits
        observation, _ = env.reset(seed=start.level_seed, options={"chance_seed": start.chance_seed})
        self._uniform = np.random.default_rng(start.sampling_seed)
        self.record = Trajectory(start)
        self.reply: list[int] = []
        self._logprobs: list[float] = []
        self._turn = 0
        self.pending = chat.opening(env.system_prompt, observation)
        """Context that the model has not read yet."""
        self.record.add_context(self.pending, turn=0)
        self._open_reply()

    def _open_reply(self) -> None:
        self.reply, self._logprobs = [], []
        room = self._limits.context - len(self.record.ids)
        self._room = min(self._limits.response, room)
        self.writing = self._room > 0
        if not self.writing:
            self.record.ended = "context"

    def draw(self) -> float:
        """The uniform number in [0, 1) for the next token: a row's luck does not depend on other rows."""
        return float(self._uniform.random())

    def write(self, token: int, logprob: float) -> None:
        """Take the sampled token; `writing` turns false where the reply ends."""
        self.reply.append(token)
        self._logprobs.append(logprob)
        self.writing = token not in self._chat.end_ids and len(self.reply) < self._room

    def take(self, reply: Sequence[int], logprobs: Sequence[float | None] | None) -> None:
        """Take a reply that was sampled elsewhere, as far as there is room; what is unknown of it is NaN.

        Raises:
            ModelError: If it is empty.
        """
        if not reply:
            raise ModelError("a reply came without any token: was the request for it aborted?")
        for place, token in enumerate(reply):
            if not self.writing:
                break
            logprob = None if logprobs is None else logprobs[place]
            self.write(token, math.nan if logprob is None else logprob)
        self.writing = False

    def keep_half_reply(self) -> None:
        """Put what was written of the present reply into the record, unplayed."""
        # Not `writing`: a whole reply may wait for other rows. A reply that was played has made room for the
        # next one, unless it was the last.
        if not self.record.ended:
            self._add_reply()

    def _add_reply(self) -> str:
        """Put the present reply into the record, with its roles; returns it as the game reads it."""
        text, roles = read_reply(self._chat, self.reply, self.record.ids)
        self.record.add_reply(self.reply, roles, self._logprobs, self._turn)
        return text

    def play(self) -> None:
        """Lay roles on the finished reply, play it, and append the observation as context."""
        observation, reward, terminated, truncated, info = self._env.step(self._add_reply())
        self.record.rewards.append(float(reward))
        self.record.problems.append(info["problem"])
        self.record.success = bool(info["success"])
        self.record.figures = info["figures"]
        if terminated or truncated:
            self.record.ended = "terminated" if terminated else "truncated"
            return
        self._turn += 1
        self.pending = self._chat.next_turn(observation, reply_ended=self.reply[-1] in self._chat.end_ids)
        # An observation that leaves no room for an answer is of no use to anyone.
        if len(self.record.ids) + len(self.pending) >= self._limits.context:
            self.record.ended = "context"
            return
        self.record.add_context(self.pending, self._turn)
        self._open_reply()


@torch.no_grad()
def require_context(model: LanguageModel, limits: Limits, who: str = "the model") -> None:
    """Refuse episodes longer than a model reads: raises `ConfigError`."""
    if model.longest is not None and limits.context > model.longest:
        raise ConfigError(
            f"an episode may have {limits.context} tokens (the context), but {who} reads at most"
            f" {model.longest}: lower rollout.context, or --context of actfocus diagnose"
        )


def sample_episodes(
    model: LanguageModel,
    chat: Chat,
    make_env: Callable[[], TextEnv],
    starts: Sequence[Start],
    *,
    limits: Limits,
    temperature: float = 1.0,
) -> list[Trajectory]:
    """Play one episode per start, all of them side by side.

    The cache is kept across turns, and each distinct opening prompt is computed once.

    Args:
        model: The policy.
        chat: Its tokenizer and template.
        make_env: Makes one environment; called once per start.
        starts: Level and seeds of each episode.
        limits: Token budgets; a reply that reaches its limit is cut and played as it stands.
        temperature: Divides the logits that are sampled from; 0 takes the likeliest token. Recorded
            log-probabilities are always those at temperature 1.

    Returns:
        The records, in the order of `starts`.

    Raises:
        BrokenSampling: If the model's distribution holds NaN or infinity.
        GameError: If a game of the user's own raises.
        ConfigError: If no first prompt leaves room for a reply, or the model reads less than the context.
    """
    require_context(model, limits)
    episodes = [Episode(make_env(), chat, start, limits) for start in starts]
    if episodes and not any(episode.writing for episode in episodes):
        shortest = min(len(episode.pending) for episode in episodes)
        raise ConfigError(
            f"the first prompt has {shortest} tokens or more, so a context of {limits.context} leaves no room"
            " for a reply: raise rollout.context, or --context of actfocus diagnose"
        )
    try:
        _play_out(model, episodes, temperature)
    except NonFiniteError as error:
        for episode in episodes:
            episode.keep_half_reply()
        raise BrokenSampling(str(error), [episode.record for episode in episodes]) from error
    return [episode.record for episode in episodes]


class _Rows(NamedTuple):
    """Episodes side by side, and their rows in one cache."""

    cache: ContextCache
    episodes: Sequence[Episode]
    unread: Sequence[list[int]]
    """Per row the ids that the cache has not read yet."""

    def split(self, wanted: Callable[[Episode], bool]) -> tuple["_Rows", "_Rows"]:
        """Those whose episodes are wanted, and the others; uses up the cache of these rows."""
        chosen, others = self._where(wanted), self._where(lambda episode: not wanted(episode))
        cache = self.cache.split_off(chosen)
        return self._of(chosen, cache), self._of(others, self.cache)

    @staticmethod
    def joined(parts: Sequence["_Rows"], wanted: Callable[[Episode], bool]) -> "_Rows":
        """Those of all parts whose episodes are wanted, in one cache; there must be one."""
        chosen = [(part, rows) for part in parts if (rows := part._where(wanted))]
        episodes = [part.episodes[row] for part, rows in chosen for row in rows]
        unread = [part.unread[row] for part, rows in chosen for row in rows]
        return _Rows(ContextCache.joined([(part.cache, rows) for part, rows in chosen]), episodes, unread)

    def _where(self, wanted: Callable[[Episode], bool]) -> list[int]:
        return [row for row, episode in enumerate(self.episodes) if wanted(episode)]

    def _of(self, rows: Sequence[int], cache: ContextCache) -> "_Rows":
        return _Rows(cache, [self.episodes[row] for row in rows], [self.unread[row] for row in rows])


def _play_out(model: LanguageModel, episodes: Sequence[Episode], temperature: float) -> None:
    """Play all episodes to their ends."""
    with model.autocast():
        rows, hidden_BD = _read_openings(model, [episode for episode in episodes if episode.writing])
        while rows.episodes:
            parts = _write_replies(model, rows, hidden_BD, temperature)
            for episode in rows.episodes:
                episode.play()
            if all(episode.record.ended for episode in rows.episodes):
                return
            rows = _Rows.joined(parts, lambda episode: not episode.record.ended)
            new = zip(rows.unread, rows.episodes, strict=True)
            hidden_BD = rows.cache.append([unread + episode.pending for unread, episode in new])


def _read_openings(model: LanguageModel, episodes: Sequence[Episode]) -> tuple[_Rows, torch.Tensor]:
    openings = [tuple(episode.pending) for episode in episodes]
    distinct = list(dict.fromkeys(openings))
    cache = ContextCache.empty(model, len(distinct))
    hidden_PD = cache.append(distinct) if distinct else torch.empty(0)
    row_of = {opening: row for row, opening in enumerate(distinct)}
    rows = [row_of[opening] for opening in openings]
    return _Rows(cache.taken(rows), episodes, [[] for _ in episodes]), hidden_PD[rows]


def _write_replies(
    model: LanguageModel, rows: _Rows, hidden_BD: torch.Tensor, temperature: float
) -> list[_Rows]:
    """Sample one reply per row; rows that have finished rest until the last one has.

    Returns:
        The same rows, in parts: a pass reads the whole context of a row that rests, so those are put aside
        whenever they are half of all.
    """
    aside: list[_Rows] = []
    while True:
        writing = [row for row, episode in enumerate(rows.episodes) if episode.writing]
        # In float64: as a float32, a number just below 1 is 1, and no token lies there.
        draws = [rows.episodes[row].draw() for row in writing]
        uniform = torch.tensor(draws, dtype=torch.float64, device=hidden_BD.device)
        tokens, logprobs = draw_tokens(model.head(hidden_BD[writing]), uniform, temperature)
        new: list[list[int]] = [[] for _ in rows.episodes]
        for row, token, logprob in zip(writing, tokens.tolist(), logprobs.tolist(), strict=True):
            rows.episodes[row].write(token, logprob)
            new[row] = [token]
        rows = rows._replace(unread=new)
        still = sum(episode.writing for episode in rows.episodes)
        if not still:
            return [*aside, rows]
        if 2 * still <= len(rows.episodes):
            resting, rows = rows.split(lambda episode: not episode.writing)
            aside.append(resting)
        hidden_BD = rows.cache.append(rows.unread)


def draw_tokens(
    logits_BV: Float[torch.Tensor, "B V"], uniform_B: Float[torch.Tensor, " B"], temperature: float
) -> tuple[Int[torch.Tensor, " B"], Float[torch.Tensor, " B"]]:
    """Draw one token per row by inverting the cumulative distribution.

    Args:
        logits_BV: Those that predict the token.
        uniform_B: Where it is inverted, in [0, 1), float64.
        temperature: Divides the logits; 0 takes the likeliest token.

    Returns:
        Token ids [B], and their log-probabilities [B] at temperature 1.

    Raises:
        NonFiniteError: If a row's distribution is not finite.
    """
    logprobs_BV = logits_BV.float().log_softmax(-1)
    if not logprobs_BV.isfinite().any(-1).all() or logprobs_BV.isnan().any():
        raise NonFiniteError("the policy's distribution is not finite while sampling: its weights are broken")
    if temperature == 0:
        tokens_B1 = logprobs_BV.argmax(-1, keepdim=True)
    else:
        cumulative_BV = (logprobs_BV / temperature).softmax(-1).cumsum(-1, dtype=torch.float64)
        point_B1 = uniform_B[:, None].double() * cumulative_BV[:, -1:]
        # right=True: the first token whose cumulative probability exceeds the point, so never one of p = 0.
        tokens_B1 = torch.searchsorted(cumulative_BV, point_B1, right=True)
    return tokens_B1.squeeze(-1), logprobs_BV.gather(-1, tokens_B1).squeeze(-1)
