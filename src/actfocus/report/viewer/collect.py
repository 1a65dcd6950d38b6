"""From a run directory to the viewer's data, all at once or step by step while the run goes on."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actfocus.errors import RunError
from actfocus.report.viewer.data import Vocabulary, pack_step, run_facts
from actfocus.report.viewer.records import (
    DamagedFile,
    Episode,
    load_chat,
    read_episodes,
    recorded_steps,
    require_episodes,
)
from actfocus.report.viewer.text import Reader
from actfocus.run_directory import RunDirectory

LIMIT = 1000
"""Episodes on a page, unless asked for more."""

Note = Callable[[str], None]


def page_data(
    path: Path, *, step: int | None = None, limit: int = LIMIT, note: Note = print
) -> dict[str, Any]:
    """What the page of a run holds.

    Args:
        path: The run directory.
        step: Only this step.
        limit: At most so many episodes, shared equally among the steps.
        note: Called with each problem that was passed over.

    Raises:
        RunError: If there is no run, nothing recorded, nothing readable, or no tokenizer.
    """
    run = RunDirectory.open(path)
    config = run.config()
    files = _spread(require_episodes(path, config, step), limit)
    reader, vocabulary = Reader(load_chat(run, config)), Vocabulary()
    notes: list[str] = []
    steps = []
    for number, file in files.items():
        try:
            episodes, found = read_episodes(file)
        except DamagedFile as error:
            notes.append(str(error))
            continue
        notes += found
        chosen = choose(episodes, limit // len(files))
        steps.append(pack_step(number, chosen, len(episodes), reader, vocabulary))
    for problem in notes:
        note(problem)
    if not any(packed["episodes"] for packed in steps):
        raise RunError(
            f"no recorded episode of {path} can be read: {'; '.join(notes) or 'the files are empty'}"
        )
    return {
        "run": run_facts(path.resolve().name, config),
        "pieces": vocabulary.entries(),
        "steps": steps,
        "notes": notes,
    }


def choose(episodes: Sequence[Episode], limit: int) -> list[Episode]:
    """At most `limit` episodes, in their order: whole groups as long as they fit, trained ones first."""
    groups: dict[int, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.group, []).append(episode)
    ordered = sorted(groups.values(), key=lambda group: not any(member.trained for member in group))
    chosen: list[Episode] = []
    for group in ordered:
        if not chosen or len(chosen) + len(group) <= limit:
            chosen += group[:limit]
    kept = set(map(id, chosen))
    return [episode for episode in episodes if id(episode) in kept]


def _spread(files: dict[int, Path], limit: int) -> dict[int, Path]:
    """As many steps as have room for one episode each, evenly spread from the first to the last."""
    if limit < 1:
        raise RunError(f"--limit must be at least 1, got {limit}")
    if len(files) <= limit:
        return files
    steps = list(files)
    last = len(steps) - 1
    kept = {steps[round(place * last / (limit - 1))] for place in range(limit)} if limit > 1 else {steps[-1]}
    return {step: file for step, file in files.items() if step in kept}


class Follower:
    """The data of a run that may still be going on; what has been read stays as it is."""

    def __init__(
        self, path: Path, *, step: int | None = None, limit: int = LIMIT, note: Note = print
    ) -> None:
        """Raises `RunError` if there is no run, what is asked for never comes, or it has no tokenizer."""
        self._run = RunDirectory.open(path)
        self._config = self._run.config()
        steps = self._config.due(self._config.save_episodes_every) | set(recorded_steps(path))
        if not steps or step not in (None, *steps):
            require_episodes(path, self._config, step)
        self._path, self._only, self._note = path, step, note
        self._share = max(1, limit // (len(steps) if step is None else 1))
        self._reader, self._vocabulary = Reader(load_chat(self._run, self._config)), Vocabulary()
        self._steps: dict[int, dict[str, Any]] = {}
        self._notes: list[str] = []
        self._damaged: dict[int, int] = {}
        self._lock = threading.Lock()

    def data(self, after: int = -1, pieces: int = 0) -> dict[str, Any]:
        """All that was recorded after step `after`, and the table of pieces from number `pieces` on."""
        with self._lock:
            self._read_new()
            return {
                "run": run_facts(self._path.resolve().name, self._config),
                "pieces": self._vocabulary.entries(pieces),
                "steps": [packed for number, packed in sorted(self._steps.items()) if number > after],
                "notes": self._notes,
            }

    def _read_new(self) -> None:
        for number, file in recorded_steps(self._path).items():
            if number in self._steps or self._only not in (None, number):
                continue
            try:
                stamp = file.stat().st_mtime_ns
            except OSError:  # removed since the folder was listed
                continue
            if self._damaged.get(number) == stamp:  # said already
                continue
            try:
                episodes, notes = read_episodes(file)
            except DamagedFile as error:
                episodes, notes = [], [str(error)]
            for problem in notes:
                self._note(problem)
            self._notes += notes
            if not episodes:
                self._damaged[number] = stamp
            else:
                chosen = choose(episodes, self._share)
                packed = pack_step(number, chosen, len(episodes), self._reader, self._vocabulary)
                self._steps[number] = packed
