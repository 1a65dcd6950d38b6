"""actfocus: reinforcement learning of LLM agents, the gradient where the outcome is decided.

The method is here by name; torch is imported when the first of these names is used.
"""

from importlib import import_module
from typing import Any

from actfocus.envs import make_env, register_environments

__version__ = "0.1.0"

_METHOD = [
    "Bottleneck",
    "PolicyStatistics",
    "Role",
    "TokenScores",
    "bottleneck",
    "kl_penalty",
    "policy_loss",
    "score_hidden",
    "token_energy",
    "token_entropy",
    "token_nll",
    "token_roles",
    "token_shift",
    "token_weights",
]

__all__ = ["__version__", "make_env", *_METHOD]

register_environments()


def __getattr__(name: str) -> Any:
    if name in _METHOD:
        return getattr(import_module("actfocus.focus"), name)
    raise AttributeError(f"module 'actfocus' has no attribute {name!r}")
