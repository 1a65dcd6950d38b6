"""Our games as a verifiers taskset: rows are levels, an episode is a chat with the game.

    python -m actfocus.integrations.verifiers eval actfocus-games --env.taskset.game.name sokoban …

docs/environments_elsewhere.md says which seeds the rows have and how an episode is scored.
"""

import sys

from actfocus.integrations.verifiers.version import require_verifiers

# Before anything that imports verifiers: what is missing or out of range is said in one line.
require_verifiers()

from actfocus.integrations.verifiers.chat import GameHarness  # noqa: E402
from actfocus.integrations.verifiers.games import (  # noqa: E402
    GameData,
    GameEnv,
    GameEnvConfig,
    GameTask,
    GameTaskset,
    GameTasksetConfig,
)

TASKSET_ID = "actfocus_games"
"""What verifiers calls the games: `taskset.id`, also as `actfocus-games`."""

# verifiers imports a plug-in by its id, and an id can only name a top-level module.
sys.modules.setdefault(TASKSET_ID, sys.modules[__name__])

# verifiers takes the one taskset, the one environment and the one harness that it finds in here.
__all__ = [
    "TASKSET_ID",
    "GameData",
    "GameEnv",
    "GameEnvConfig",
    "GameHarness",
    "GameTask",
    "GameTaskset",
    "GameTasksetConfig",
]
