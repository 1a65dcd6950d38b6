"""What a command hands back, and how it is printed: for people, or as one JSON object."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.text import Text

from actfocus.errors import RunError
from actfocus.report.output import jsonable


@dataclass(frozen=True)
class Outcome:
    """The result of a command: `data` for `--json`, `show` for people."""

    data: dict[str, Any]
    show: Sequence[RenderableType] = ()
    code: int = 0


class Command(Protocol):
    """What every command is: a dataclass of its options, and `run`."""

    @property
    def json(self) -> bool:
        """Whether the result goes to stdout as JSON."""

    def run(self) -> Outcome:
        """Do it; raises `ActfocusError` for what the user can put right."""


class Interrupted(KeyboardInterrupt):
    """Control-C, with a line that says what to do next."""


def require_writable(out: Path, example: str) -> None:
    """Refuse a file that a page cannot be written to; `example` is the name of one in a folder.

    Raises:
        RunError: Saying why and what to do.
    """
    if out.is_dir():
        raise RunError(f"{out} is a folder: name a file, such as {out / example}")
    if out.exists() and not out.is_file():
        raise RunError(f"{out} is no ordinary file and is not written to: name another --out")
    if out.exists() and not _is_page(out):
        raise RunError(f"{out} exists and is no page of HTML, so it is not replaced: name another --out")
    if not out.absolute().parent.is_dir():
        raise RunError(f"cannot write {out}: there is no folder {out.absolute().parent}")


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(15).lower() == b"<!doctype html>"


def print_outcome(outcome: Outcome, as_json: bool) -> None:
    """Print the result on stdout."""
    if as_json:
        print(json.dumps(jsonable(outcome.data), allow_nan=False))
        return
    console = Console(highlight=False)
    for part in outcome.show:
        # Plain strings may hold a user's text: no markup in them, and paths must not be broken over lines.
        if isinstance(part, str):
            console.print(Text(part), soft_wrap=True)
        else:
            console.print(part)
