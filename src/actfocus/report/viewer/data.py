"""The viewer's data, compact: a table of pieces, a summary per episode, and its tokens deflated.

    {"run": {…}, "pieces": [[id, text] or [id, text, whole], …],
     "steps": [{"step": N, "recorded": …, "episodes": [{…, "tokens": base64}], "ranges": {…}}], "notes": […]}

`tokens` is the base64 of the zlib-compressed JSON
    {"pieces": [index, …], "roles": "0133…", "messages": [[kind, turn, end], …],
     "figures": {name: [number or null, …]}}
whose figures have one entry per sampled token and none for context, at 4 significant digits. A ratio is
given less 1, where its digits are.
"""

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from json import dumps
from typing import Any

import numpy as np

from actfocus.config import Config
from actfocus.report.viewer.records import FIGURES, Episode
from actfocus.report.viewer.text import Piece, Reader

UNKNOWN_ROLE = "?"


class Vocabulary:
    """The table of pieces; it only grows, so that what was packed earlier stays right."""

    def __init__(self) -> None:
        self._index: dict[Piece, int] = {}

    def __len__(self) -> int:
        return len(self._index)

    def index(self, piece: Piece) -> int:
        """The piece's place in the table."""
        return self._index.setdefault(piece, len(self._index))

    def entries(self, start: int = 0) -> list[list[Any]]:
        """The table from `start` on, as JSON."""
        pieces = list(self._index)[start:]
        return [[p.id, p.text, p.whole] if p.whole else [p.id, p.text] for p in pieces]


def run_facts(name: str, config: Config) -> dict[str, Any]:
    """What the page says of the run."""
    return {
        "name": name,
        "game": config.env.name,
        "model": config.model.name,
        "algorithm": config.algorithm.name,
        "alpha": config.focus.alpha,
        "beta": config.focus.beta,
        "signal": config.focus.signal,
        "steps": config.steps,
    }


def pack_step(
    step: int, episodes: Sequence[Episode], recorded: int, reader: Reader, vocabulary: Vocabulary
) -> dict[str, Any]:
    """One step: the episodes that the page shows, of `recorded` ones."""
    return {
        "step": step,
        "recorded": recorded,
        "episodes": [pack_episode(episode, reader, vocabulary) for episode in episodes],
        "ranges": ranges(episodes),
    }


def pack_episode(episode: Episode, reader: Reader, vocabulary: Vocabulary) -> dict[str, Any]:
    """The summary of an episode, with its tokens."""
    return {
        "group": episode.group,
        "member": episode.member,
        # As text: JavaScript's numbers hold 53 bits.
        "seed": None if episode.level_seed is None else str(episode.level_seed),
        "success": episode.success,
        "return": _rounded(episode.total_return),
        "rewards": [_rounded(reward) for reward in episode.rewards],
        "problems": episode.problems,
        "ended": episode.ended,
        "scores": {name: _rounded(value) for name, value in episode.scores.items()},
        "trained": episode.trained,
        "length": len(episode.ids),
        "sampled": episode.sampled,
        "tokens": _pack_tokens(episode, reader, vocabulary),
    }


def ranges(episodes: Iterable[Episode]) -> dict[str, list[float]]:
    """Of each figure the range from the 1st to the 99th percentile over sampled tokens, as the page shows it.

    A few extreme tokens would leave all others one colour.
    """
    values: dict[str, list[float]] = {name: [] for name in FIGURES}
    for episode in episodes:
        for name, figure in _sampled_figures(episode).items():
            values[name] += [value for value in figure if value is not None]
    return {
        name: [float(f"{bound:.4g}") for bound in np.percentile(found, [1, 99])]
        for name, found in values.items()
        if found
    }


def _pack_tokens(episode: Episode, reader: Reader, vocabulary: Vocabulary) -> str:
    pieces, messages = reader.read(episode)
    # Put together by hand: the figures are the bulk, and `dumps` would print 17 digits of each.
    figures = ",".join(
        f"{dumps(name)}:[{','.join(map(_digits, figure))}]"
        for name, figure in _sampled_figures(episode).items()
    )
    roles = "".join(UNKNOWN_ROLE if role not in range(4) else str(role) for role in episode.roles)
    indices = dumps([vocabulary.index(piece) for piece in pieces], separators=(",", ":"))
    text = f'{{"pieces":{indices},"roles":"{roles}","messages":{dumps(messages)},"figures":{{{figures}}}}}'
    return base64.b64encode(zlib.compress(text.encode())).decode()


def _sampled_figures(episode: Episode) -> dict[str, list[float | None]]:
    sampled = [token for token in range(len(episode.ids)) if episode.is_sampled(token)]
    found = {name: [figure[token] for token in sampled] for name, figure in episode.figures.items()}
    if "ratio" in found:
        found["ratio"] = [None if value is None else value - 1 for value in found["ratio"]]
    return found


def _digits(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "null"
    return f"{value:.4g}" if value else "0"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
