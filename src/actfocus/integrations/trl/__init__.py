"""ActFocus in TRL: `ActFocusGRPOTrainer` in the place of `GRPOTrainer`.

    from actfocus.integrations.trl import ActFocusGRPOTrainer, FocusConfig
    trainer = ActFocusGRPOTrainer(..., focus=FocusConfig(alpha=0.1, beta=0.5))

docs/trl.md says what works where. PPO left TRL in 1.13: for PPO there is `actfocus train`.
"""

from actfocus.config import FocusConfig
from actfocus.integrations.trl.version import require_trl

# Before anything that imports trl: what is missing or out of range is said in one line.
require_trl()

from actfocus.integrations.trl.rollout import EnvironmentRollout, episode_return  # noqa: E402
from actfocus.integrations.trl.spans import SpanFinder, tag_spans, tool_call_spans  # noqa: E402
from actfocus.integrations.trl.tools import GameTool, GameTools  # noqa: E402
from actfocus.integrations.trl.trainer import ActFocusGRPOTrainer  # noqa: E402

__all__ = [
    "ActFocusGRPOTrainer",
    "EnvironmentRollout",
    "FocusConfig",
    "GameTool",
    "GameTools",
    "SpanFinder",
    "episode_return",
    "tag_spans",
    "tool_call_spans",
]
