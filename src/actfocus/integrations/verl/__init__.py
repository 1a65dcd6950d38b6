"""ActFocus in verl: `python -m actfocus.integrations.verl` in the place of `python -m verl.trainer.main_ppo`.

    python -m actfocus.integrations.verl +actfocus.alpha=0.1 +actfocus.beta=0.5 +actfocus.signal=energy …

Everything else is verl's own, settings included. docs/verl.md says what works where, and what has been run.
Importing this package imports no verl.
"""

from actfocus.integrations.verl.version import SUPPORTED, require_verl

__all__ = ["SUPPORTED", "require_verl"]
