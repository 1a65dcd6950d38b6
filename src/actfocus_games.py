"""Our games under the name by which verifiers finds them: `taskset.id = "actfocus-games"`.

verifiers, and trainers that start it, import a taskset as a top-level module; the games themselves are in
`actfocus.integrations.verifiers`.
"""

from actfocus.integrations.verifiers import (
    GameData,
    GameEnv,
    GameEnvConfig,
    GameHarness,
    GameTask,
    GameTaskset,
    GameTasksetConfig,
)

# verifiers takes the one taskset, the one environment and the one harness that it finds in here.
__all__ = [
    "GameData",
    "GameEnv",
    "GameEnvConfig",
    "GameHarness",
    "GameTask",
    "GameTaskset",
    "GameTasksetConfig",
]
