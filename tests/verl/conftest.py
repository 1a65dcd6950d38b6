"""verl, Ray and TransferQueue are real in all of these tests; only device and rollout server are ours.

They need verl's own virtual environment (`make test-verl`). Where verl is not installed, only the tests of
spans and weights are collected: they need none.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "tests.verl.cpu_platform,tests.verl.tiny_rollout",
    "VERL_PLATFORM": "cpu",
    # Its engines are registered for cuda and npu; nothing in them insists on either.
    "VERL_ENGINE_DEVICE": "cuda",
    "HF_HUB_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
}


def _has_verl() -> bool:
    try:
        version("verl")
    except PackageNotFoundError:
        return False
    return True


if not _has_verl():
    _alone = ("test_spans.py", "test_weigh.py")
    collect_ignore = [
        path.name for path in Path(__file__).parent.glob("test_*.py") if path.name not in _alone
    ]
if _has_verl():
    # Before verl is imported, here and in the processes that Ray starts. Not elsewhere: this file is read in
    # every test run, and other tests depend on the environment.
    os.environ.update(ENVIRONMENT)


@pytest.fixture(scope="session")
def levels(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Data sets of FrozenLake, as overrides of verl's configuration."""
    from actfocus.integrations.verl.dataset import main

    folder = tmp_path_factory.mktemp("levels")
    main(["--env", "frozen-lake", "--train", "16", "--test", "2", "--out", str(folder)])
    return [f"data.train_files={folder}/train.parquet", f"data.val_files={folder}/test.parquet"]


class _Stages:
    """One stage at a time, on a Ray of its own: verl's actors and queue have names that only one can bear."""

    def __init__(self, levels: list[str]) -> None:
        self._levels = levels
        self._open: tuple[str, Any, ExitStack] | None = None

    def get(self, name: str) -> Any:
        from tests.verl import stage

        if self._open is None or self._open[0] != name:
            self.close()
            stack = ExitStack()
            entered = stack.enter_context(stage.staged([*getattr(stage, name), *self._levels]))
            self._open = name, entered, stack
        return self._open[1]

    def close(self) -> None:
        if self._open is not None:
            self._open[2].close()
            self._open = None


@pytest.fixture(scope="session")
def stages(levels: list[str]) -> Iterator[_Stages]:
    opened = _Stages(levels)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def grpo(stages: _Stages) -> Any:
    """GRPO on two ranks, two mini-batches a step, after one step's rollout and reference pass."""
    return stages.get("GRPO")


@pytest.fixture(scope="module")
def ppo(stages: _Stages) -> Any:
    """PPO with a critic on one rank, one mini-batch a step."""
    return stages.get("PPO")
