"""Our games as a verifiers taskset: rows are levels, an episode is a chat with the game.

    vf-eval actfocus-games --env.taskset.game.name sokoban …

verifiers finds them by the top-level module `actfocus_games`, which names what is in here.
docs/environments_elsewhere.md says which seeds the rows have and how an episode is scored.
"""

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

__all__ = [
    "GameData",
    "GameEnv",
    "GameEnvConfig",
    "GameHarness",
    "GameTask",
    "GameTaskset",
    "GameTasksetConfig",
]
