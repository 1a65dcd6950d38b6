"""`python -m actfocus.integrations.verifiers COMMAND …`: verifiers' own commands, knowing our games.

    python -m actfocus.integrations.verifiers eval actfocus-games --no-push -n 16 …

Worker processes that a command starts run this module again, and so know the games too.
"""

import sys
from importlib import import_module

# For its effect: the package puts the games where verifiers looks for a taskset.
import actfocus.integrations.verifiers  # noqa: F401

COMMANDS = {
    "debug": "verifiers.v1.cli.debug",
    "eval": "verifiers.v1.cli.eval.main",
    "gepa": "verifiers.v1.cli.gepa",
    "replay": "verifiers.v1.cli.replay",
    "validate": "verifiers.v1.cli.validate",
}
"""Our word → the module whose `main` verifiers installs as `vf-…`."""


def main() -> None:
    """Hand over to the command that is named first; exit with code 2 if there is none."""
    name, *rest = sys.argv[1:] or [""]
    if name not in COMMANDS:
        print(f"error: the first word must be one of {', '.join(COMMANDS)}, got {name!r}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"vf-{name}", *rest]
    import_module(COMMANDS[name]).main()


if __name__ == "__main__":
    main()
