"""The command line in this process, and stand-ins for what trains."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from actfocus.cli import main
from actfocus.config import Config, to_toml


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def actfocus(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Call the command line in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> Result:
        capsys.readouterr()
        try:
            code = main(args)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put functions in place of a module that trains: here only the wiring is tested."""

    def replace(name: str, **functions: Any) -> None:
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    return replace


def make_run(folder: Path, config: Config | None = None, steps: tuple[int, ...] = ()) -> Path:
    """A run directory with its settings and empty checkpoints."""
    for step in steps:
        (folder / "checkpoints" / f"step_{step}").mkdir(parents=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(to_toml(config or Config()), encoding="utf-8")
    return folder
