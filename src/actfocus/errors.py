"""Errors that a user can cause. The command line prints them as one line and exits with code 2."""

import difflib
from collections.abc import Iterable


class ActfocusError(Exception):
    """Base of all errors with a message for the user: what is wrong, where, and what to do."""


class ConfigError(ActfocusError):
    """A setting or a configuration file is wrong."""


class GameError(ActfocusError):
    """A game of the user's own raised an error, or gave what is no number."""


class ModelError(ActfocusError):
    """A model cannot be found, read or used."""


class RunError(ActfocusError):
    """A run directory is missing, damaged, in use, or does not fit the configuration."""


class NonFiniteError(ActfocusError):
    """A loss, gradient, log-probability or reward is not finite; the update it belongs to was not made."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
