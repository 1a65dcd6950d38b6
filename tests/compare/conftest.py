"""A grid whose runs are played by `stand_in.py`: here the processes are tested, not the training."""

import sys
from pathlib import Path

import pytest

from actfocus.compare import runner
from actfocus.compare.arms import choose_arms
from actfocus.compare.directory import CompareDirectory, Grid
from actfocus.compare.grid import make_cells

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture
def stand_in(monkeypatch):
    """Runs are played, not trained."""
    monkeypatch.setattr(runner, "child_command", lambda words: [sys.executable, str(STAND_IN), *words])
    return monkeypatch


@pytest.fixture
def directory(tmp_path):
    return CompareDirectory(tmp_path / "compared")


@pytest.fixture
def cells(directory):
    """Two arms, two seeds, two steps, in their directory."""
    made = make_cells(
        envs=[],
        algorithms=["grpo"],
        arms=choose_arms(["uniform", "actfocus"], [], []),
        seeds=[0, 1],
        lrs=[],
        config=None,
        changes=["steps=2", "evaluation.every=1"],
    )
    directory.save(Grid(made, ["actfocus compare"], False, None))
    return made
