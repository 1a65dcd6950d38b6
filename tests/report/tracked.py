"""Runs with trackers, killed where the tests say, and what the trackers' own files hold afterwards."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actfocus.config import Config
from actfocus.report import trackers as module
from actfocus.report.progress import SilentProgress
from actfocus.report.trackers import Tracking
from actfocus.run_directory import RunDirectory
from actfocus.training.run import train

Steps = dict[int, dict[str, float]]


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def warnings(self) -> list[str]:
        return [note for note in self.notes if note.startswith("warning: tracker")]


def expected(run: Path) -> Steps:
    """What a tracker must hold, from the two files."""
    rows: Steps = {}
    for name in ("metrics.jsonl", "timing.jsonl"):
        for line in map(json.loads, (run / name).read_text().splitlines()):
            step, _ = line.pop("step"), line.pop("schema")
            rows.setdefault(step, {}).update(_paths(line))
    return rows


def _paths(tree: Any) -> dict[str, float]:
    if not isinstance(tree, dict):
        return {"": tree}
    return {f"{key}/{rest}".rstrip("/"): n for key, item in tree.items() for rest, n in _paths(item).items()}


def in_a_fork(action: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def killed(run: Path, config: Config, trackers: list[str], step: int) -> None:
    """Train in a process of its own, which is killed when the trackers have been told of that step."""

    def action() -> None:
        log = Tracking.log

        def last(self: Tracking, record: Any) -> None:
            log(self, record)
            if record["step"] == step:
                os.kill(os.getpid(), signal.SIGKILL)

        Tracking.log = last  # type: ignore[method-assign]
        train(config, run, progress=SilentProgress(), trackers=trackers)

    assert os.WTERMSIG(in_a_fork(action)) == signal.SIGKILL
    assert RunDirectory(run).lines()[-1]["step"] == step


def read_tensorboard(run: Path) -> Steps:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    rows: Steps = {}
    for tag in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(tag)]
        assert len(steps) == len(set(steps)), tag
        for event in events.Scalars(tag):
            rows.setdefault(event.step, {})[tag] = event.value
    return rows


def read_trackio(places: Path) -> list[tuple[str, str, int, dict[str, float]]]:
    database = sqlite3.connect(places / "trackio" / f"{module.PROJECT}.db")
    rows = database.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    return [(run, name, step, json.loads(metrics)) for run, name, step, metrics in rows]


def read_wandb(part: Path) -> list[Any]:
    """The records in a `.wandb` file, which is a log of LevelDB's format after seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = part.glob("*.wandb")
    data, place, records, begun = file.read_bytes(), 7, [], b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # the rest of a block that holds no header
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        begun += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            records.append(Record.FromString(begun))
            begun = b""
    return records


def wandb_rows(records: list[Any]) -> Steps:
    rows: Steps = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            assert record.history.step.num not in rows
            rows[record.history.step.num] = {k: v for k, v in items.items() if not k.startswith("_")}
    return rows
