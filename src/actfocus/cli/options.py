"""How options look in the help; what several commands share."""

from typing import Annotated, Any

import tyro

Json = Annotated[
    bool,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.arg(
        help="Print the result as one JSON object, and nothing else, on stdout; progress goes to stderr.",
        help_behavior_hint="",
    ),
]
"""The option `--json`."""


def optional(metavar: str) -> Any:
    """For an option that is None unless given: the help names its kind, and its text says what None means."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")
