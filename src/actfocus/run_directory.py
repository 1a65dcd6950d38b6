"""The run directory: what a run leaves behind, and how it is written so that nothing saved is ever lost.

config.toml            the resolved configuration
environment.json       versions, machine, threads, what a resume changed of them; digest of initial weights
metrics.jsonl          one line a step; equal in runs of equal config, seed, machine and versions
timing.jsonl           one line a step, of seconds and bytes
learning_curve.png, report.html  made of these when the run ends
tracking.json          which run of a tracker it is
episodes/              every episode of a step, token by token
checkpoints/step_N/    the newest state that verified
failed/                the batch at which a run stopped
"""

import fcntl
import gzip
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actfocus.config import Config, explain, load_toml, to_toml
from actfocus.errors import RunError

SCHEMA = 1
"""Version of the lines in `metrics.jsonl`, `timing.jsonl` and `episodes/`."""


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file aside and rename it into place: it is there whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def numbered(folder: Path, suffix: str = "") -> dict[int, Path]:
    """What is named `step_N` and the suffix: N → path, in order of N."""
    names = {
        path.name.removeprefix("step_").removesuffix(suffix): path for path in folder.glob(f"step_*{suffix}")
    }
    return dict(sorted((int(name), path) for name, path in names.items() if name.isdecimal()))


@contextmanager
def claimed(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder's lock, which goes with the process. Raises `RunError` if another process holds it."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder} is being {doing} by another process") from None
        yield


class RunDirectory:
    """One run's files. Made by `create` or `open`; `locked` while the run goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path, config: Config) -> "RunDirectory":
        """A new run. Raises `RunError` if anything is there already."""
        if path.exists() or path.is_symlink():
            raise RunError(
                f"{path} exists already and is never overwritten: choose another --out, or continue it with"
                f" `actfocus train --resume {path}`"
            )
        # Made aside and renamed: a run that is killed here is not there at all, or can be resumed.
        aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            cls(aside).checkpoints.mkdir(parents=True)
            write_whole(aside / "config.toml", to_toml(config).encode())
            os.rename(aside, path)  # refuses a folder that was filled in the meantime
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        fsync_folder(path.parent)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """An existing run. Raises `RunError` if there is none."""
        if not (path / "config.toml").is_file():
            raise RunError(f"{path} is not a run: it holds no config.toml")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Claim the run for this process. Raises `RunError` if another one has it."""
        with claimed(self.path, "trained"):
            yield

    def config(self) -> Config:
        """The configuration that the run was started with."""
        path = self.path / "config.toml"
        try:
            return Config.model_validate(load_toml(path))
        except ValidationError as error:
            raise RunError(f"{path} is damaged: {explain(error, Config)}") from None

    def environment(self) -> dict[str, Any]:
        """What the run was made with: machine, versions, `initial_weights` (the digest of its first model).

        Raises:
            RunError: If `environment.json` is missing or damaged.
        """
        path = self.path / "environment.json"
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            str(found["initial_weights"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f"{path} cannot be read, so the run's first model is not known: {error}") from None
        return found

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Append one line to `metrics.jsonl` or `timing.jsonl`."""
        line = json.dumps({"schema": SCHEMA} | record, allow_nan=False)
        with (self.path / name).open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """The lines of a file; a last line that a kill cut short is left out.

        Raises:
            RunError: If the file is damaged.
        """
        path = self.path / name
        if not path.exists():
            return []
        *whole, _cut = path.read_bytes().split(b"\n")
        try:
            lines = [json.loads(line.decode()) for line in whole]
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} is damaged: {error}") from None
        if not all(isinstance(line, dict) and type(line.get("step")) is int for line in lines):
            raise RunError(f"{path} is damaged: a line has no step")
        return lines

    def rewind(self, step: int) -> None:
        """Drop the lines after `step`: the steps after the checkpoint are run again, to the same bits."""
        for name in ("metrics.jsonl", "timing.jsonl"):
            path = self.path / name
            if path.exists():
                kept = [line for line in self.lines(name) if line["step"] <= step]
                data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept).encode()
                if path.read_bytes() != data:
                    write_whole(path, data)

    def episodes_path(self, folder: str, step: int) -> Path:
        """Where `write_episodes` writes."""
        return self.path / folder / f"step_{step}.jsonl.gz"

    def write_episodes(self, folder: str, step: int, records: Iterable[dict[str, Any]]) -> Path:
        """Write `FOLDER/step_N.jsonl.gz`, one episode a line; equal episodes give equal bytes."""
        path = self.episodes_path(folder, step)
        path.parent.mkdir(exist_ok=True)
        text = "".join(json.dumps({"schema": SCHEMA} | _finite(record)) + "\n" for record in records)
        write_whole(path, gzip.compress(text.encode(), compresslevel=6, mtime=0))
        return path


def _finite(value: Any) -> Any:
    """JSON has no NaN: it is written as null, so that any reader can read the file."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
