"""What each of two processes runs in `test_distributed.py`: five starts, each of which one rank cannot make.

    python -m tests.training.one_of_two_fails FOLDER

`FOLDER` holds `config.toml`. Prints, as JSON, the type and the message of each error.
"""

import fcntl
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actfocus.config import Config, load_config
from actfocus.distributed import Processes
from actfocus.envs.frozen_lake import FrozenLake
from actfocus.errors import ActfocusError
from actfocus.report.progress import SilentProgress
from actfocus.training.loop import Loop, Step
from actfocus.training.run import resume, train
from tests.training.test_failures import poison_weights

QUIET = SilentProgress()


class FailsOnOneRank(FrozenLake):
    def new_level(self, rng: np.random.Generator) -> None:
        super().new_level(rng)
        if os.environ["RANK"] == "1":
            _ = 1 / 0


def break_policy_of_one_rank() -> None:
    original = Loop.run

    def run(self: Loop, step: Step) -> None:
        if os.environ["RANK"] == "1":
            poison_weights(self._policy)
        original(self, step)

    Loop.run = run  # type: ignore[method-assign]


def main(folder: Path) -> None:
    config, processes = load_config(folder / "config.toml"), Processes()
    game = {"name": f"{FailsOnOneRank.__module__}:FailsOnOneRank".replace("__main__", __spec__.name)}
    failing = Config.model_validate(config.model_dump() | {"env": game | {"turns": 2, "actions_per_turn": 1}})
    broken = folder / "broken"
    errors = []

    def attempt(start: Callable[[], Any]) -> None:
        try:
            start()
        except ActfocusError as error:
            errors.append((type(error).__name__, str(error)))

    attempt(lambda: train(failing, folder / "game", progress=QUIET))
    break_policy_of_one_rank()
    attempt(lambda: train(config, broken, progress=QUIET))
    attempt(lambda: train(config, broken, progress=QUIET))
    path = broken / "environment.json"
    if processes.is_main:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"initial_weights": "others"}))
    attempt(lambda: resume(broken, progress=QUIET))
    with (broken / ".lock").open("w") as lock:
        if processes.is_main:
            fcntl.flock(lock, fcntl.LOCK_EX)
        attempt(lambda: resume(broken, progress=QUIET))
    print(json.dumps(errors))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
