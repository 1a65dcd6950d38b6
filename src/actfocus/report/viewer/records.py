"""What a run directory holds for the viewer: its recorded steps, their episodes, its tokenizer."""

import gzip
import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actfocus.config import Config
from actfocus.errors import RunError
from actfocus.focus.roles import Role
from actfocus.models import registry
from actfocus.models.chat import Chat
from actfocus.run_directory import RunDirectory, numbered

FIGURES = (
    "weights",
    "signal",
    "advantages",
    "ratio",
    "to_reference",
    "entropy",
    "logprobs",
    "old_logprobs",
    "ref_logprobs",
    "values",
)
"""Figures of a token. `to_reference` is not recorded: it is old_logprobs - ref_logprobs."""

Figure = list[float | None]


class DamagedFile(RunError):
    """A file of recorded episodes cannot be read."""


@dataclass(frozen=True)
class Episode:
    """One recorded episode; the lists hold one entry per token, `rewards` and `problems` one per turn."""

    group: int
    member: int
    level_seed: int | None
    ids: list[int]
    roles: list[int | None]
    turns: list[int]
    figures: dict[str, Figure]
    """Those of `FIGURES` that are recorded; None where a figure is missing or not finite."""
    rewards: list[float | None]
    problems: list[str | None]
    success: bool | None
    total_return: float | None
    ended: str
    scores: dict[str, float | None] = field(default_factory=dict)
    """What the game itself reported at the end."""
    notes: tuple[str, ...] = ()
    """What of the record could not be used."""

    @property
    def trained(self) -> bool:
        """Whether the step trained on this episode."""
        return "weights" in self.figures

    @property
    def sampled(self) -> int:
        """How many tokens the model sampled."""
        return sum(map(self.is_sampled, range(len(self.ids))))

    def is_sampled(self, token: int) -> bool:
        """Whether the model sampled the token; so too if nobody knows."""
        return self.roles[token] != Role.CONTEXT


def recorded_steps(run: Path, folder: str = "episodes") -> dict[int, Path]:
    """Step → file of its episodes, in order."""
    return numbered(run / folder, ".jsonl.gz")


def require_episodes(run: Path, config: Config, step: int | None = None) -> dict[int, Path]:
    """The recorded steps, or only `step`.

    Raises:
        RunError: If there are none, or not this one; says which setting records them.
    """
    steps = recorded_steps(run)
    if not steps:
        every = config.save_episodes_every
        if every == 0:
            why = "its save_episodes_every is 0, which records none: train with --save-episodes-every 10"
        elif config.steps == 0:
            why = "with steps = 0 it trained no step: train with --steps 10"
        else:
            first = min(config.due(every))
            why = f"its save_episodes_every is {every}, so the first come with step {first}"
        raise RunError(f"{run} has no recorded episodes: {why}")
    if step is None:
        return steps
    if step not in steps:
        raise RunError(
            f"{run} has no episodes of step {step}; it has {', '.join(map(str, steps))}"
            " (save_episodes_every sets which steps are recorded)"
        )
    return {step: steps[step]}


def read_episodes(path: Path) -> tuple[list[Episode], list[str]]:
    """The episodes of one file, and what of it could not be used.

    Raises:
        DamagedFile: If the file cannot be read as a whole.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DamagedFile(f"{path} is damaged and left out: {error}") from error
    episodes, notes = [], []
    for number, line in enumerate(lines, start=1):
        try:
            episode = read_episode(json.loads(line))
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            notes.append(f"{path}, line {number} is left out: {error}")
            continue
        episodes.append(episode)
        notes += [f"{path}, line {number}: {note}" for note in episode.notes]
    return episodes, notes


def read_episode(record: dict[str, Any]) -> Episode:
    """A line of an episodes file. Raises `ValueError`, `TypeError` or the like if it holds no token ids."""
    ids = record.get("ids")
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**31 for i in ids):
        raise ValueError("it has no list of token ids")
    notes: list[str] = []
    roles = _per_token(record, "roles", len(ids), notes) or [None] * len(ids)
    turns = _per_token(record, "turns", len(ids), notes) or [0.0] * len(ids)
    start = record.get("start") or {}
    rewards = [_number(reward) for reward in record.get("rewards") or []]
    known = [reward for reward in rewards if reward is not None]
    return Episode(
        group=int(start.get("group") or 0),
        member=int(start.get("member") or 0),
        level_seed=start.get("level_seed"),
        ids=ids,
        roles=[None if role is None else int(role) for role in roles],
        turns=_rising(turns),
        figures=_figures(record, len(ids), notes),
        rewards=rewards,
        problems=[None if problem is None else str(problem) for problem in record.get("problems") or []],
        success=None if record.get("success") is None else bool(record["success"]),
        total_return=_number(record.get("return", math.fsum(known))),
        ended=str(record.get("ended") or ""),
        scores={str(name): _number(value) for name, value in (record.get("figures") or {}).items()},
        notes=tuple(notes),
    )


def _figures(record: dict[str, Any], length: int, notes: list[str]) -> dict[str, Figure]:
    found = {name: _per_token(record, name, length, notes) for name in FIGURES}
    old, reference = found["old_logprobs"], found["ref_logprobs"]
    if old is not None and reference is not None:
        # From the full figures: in rounded ones the difference would drown.
        pairs = zip(old, reference, strict=True)
        found["to_reference"] = [None if a is None or b is None else _number(a - b) for a, b in pairs]
    return {name: values for name, values in found.items() if values is not None}


def _per_token(record: dict[str, Any], name: str, length: int, notes: list[str]) -> Figure | None:
    """One entry per token; a list of another length would put figures on the wrong tokens, and is dropped."""
    values = record.get(name)
    if not isinstance(values, list):
        return None
    if len(values) != length:
        notes.append(f"{name} has {len(values)} entries for {length} tokens and is left out")
        return None
    finite = math.isfinite
    return [v if type(v) is float and finite(v) else _number(v) for v in values]  # nearly all are floats


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _rising(turns: Figure) -> list[int]:
    """Turns as whole numbers that never fall, whatever the record says."""
    risen, last = [], 0
    for turn in turns:
        last = max(last, int(turn or 0))
        risen.append(last)
    return risen


def load_chat(run: RunDirectory, config: Config) -> Chat:
    """The run's tokenizer: of its newest checkpoint, or before the first one of the model it began with.

    Never asks the network.

    Raises:
        RunError: If there is none on this machine.
    """
    from transformers import AutoTokenizer

    reasons = []
    for source, options in _tokenizer_sources(run, config):
        try:
            return Chat(AutoTokenizer.from_pretrained(source, local_files_only=True, **options))
        except Exception as error:  # transformers raises many kinds, and the first line says enough
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reasons.append(f"{source}: {lines[0]}")
    tried = "; ".join(reasons) or f"{run.checkpoints} holds no step_N/model"
    raise RunError(f"cannot find the tokenizer of {run.path}, so no token can be shown as text ({tried})")


def _tokenizer_sources(run: RunDirectory, config: Config) -> list[tuple[str, dict[str, str]]]:
    folders = list(reversed(numbered(run.checkpoints).values()))
    sources: list[tuple[str, dict[str, str]]] = [
        (str(folder / "model"), {}) for folder in folders if (folder / "model").is_dir()
    ]
    if sources:
        return sources
    if any(folder.is_dir() for folder in folders):
        raise RunError(
            f"{folders[0]} has no folder model, and the tokenizer lies in it: no token can be shown as text"
        )
    name = config.model.name
    if name == registry.TINY:
        return [(str(registry.tiny_path(config.env.name)), {})]
    path = registry.smollm2_path() if name == registry.SMOLLM2 else Path(name).expanduser()
    if path.suffix == ".gguf":
        return [(str(path.parent), {"gguf_file": path.name})]
    return [(str(path) if path.exists() else name, {})]


__all__ = [
    "FIGURES",
    "DamagedFile",
    "Episode",
    "load_chat",
    "read_episode",
    "read_episodes",
    "recorded_steps",
    "require_episodes",
]
