"""Run directories made without training: real games and templates, given replies, figures that are drawn."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from actfocus.config import Config
from actfocus.envs import make_env
from actfocus.models.chat import Chat
from actfocus.models.registry import tiny_path
from actfocus.rollout.sampler import Episode, Limits
from actfocus.rollout.trajectory import Start, Trajectory
from actfocus.run_directory import RunDirectory

Record = dict[str, Any]

DRAWN = ("old_logprobs", "ref_logprobs", "signal", "values", "advantages", "weights", "entropy", "ratio")
REPLY = "<think> The goal is 2 down.</think><answer> Down || Left</answer>"


@cache
def tiny_chat() -> Chat:
    return Chat(AutoTokenizer.from_pretrained(str(tiny_path("frozen-lake"))))


def play(
    replies: Iterable[str],
    *,
    chat: Chat | None = None,
    game: str = "frozen-lake",
    group: int = 0,
    member: int = 0,
    cut: bool = False,
) -> Trajectory:
    """An episode with these replies. `cut`: no reply ends itself."""
    chat = chat or tiny_chat()
    start = Start(group, member, 2**62 + group, 7 + member, 0)
    episode = Episode(make_env(game), chat, start, Limits(8000, 2000))
    for number, reply in enumerate(replies):
        if episode.record.ended:
            break
        ids = chat.encode_reply(reply)
        for token in ids[:-1] if cut else ids:
            episode.write(token, -0.25 * (number + 1))
        episode.play()
    return episode.record


def with_figures(trajectory: Trajectory, seed: int = 0, names: Sequence[str] = DRAWN) -> Record:
    """A record of an episode that was trained on; 0 for context, as in a real one."""
    rng = np.random.default_rng(seed)
    record = plain(trajectory)
    for name in names:
        record[name] = [float(rng.normal()) if role else 0.0 for role in trajectory.roles]
    if "ratio" in record:
        record["ratio"] = [1 + 0.01 * value for value in record["ratio"]]
    return record


def plain(trajectory: Trajectory) -> Record:
    """A record of an episode that was not trained on."""
    return trajectory.to_json() | {"return": trajectory.total_return}


def write_run(
    path: Path, steps: dict[int, list[Record]], *, config: Config | None = None, chat: Chat | None = None
) -> Path:
    """A run directory with these records and a checkpoint that holds the tokenizer."""
    run = RunDirectory.create(path, config or Config(steps=20))
    (chat or tiny_chat()).tokenizer.save_pretrained(run.checkpoints / "step_1" / "model")
    for step, records in steps.items():
        run.write_episodes("episodes", step, records)
    return path


def small_step(step: int) -> list[Record]:
    """Two groups of three: one trained on, one with a malformed reply, an unknown action and no figures."""
    trained = [with_figures(play([REPLY] * 5, member=m), seed=10 * step + m) for m in range(3)]
    bad = ["no tags at all", "<think> x</think><answer> Jump</answer>"]
    other = [plain(play([reply, REPLY], group=1, member=m)) for m, reply in enumerate([*bad, REPLY])]
    trained[0] |= {"success": True, "return": 1.0}
    return [*trained, *other]


def replace(records: Iterable[Record], name: str, change: Callable[[list[Any]], list[Any]]) -> list[Record]:
    """The records with one list changed."""
    return [record | {name: change(record[name])} for record in records]
