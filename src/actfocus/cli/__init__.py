"""The command line. Nothing here imports torch before the input is known to be right."""

from actfocus.cli.app import main

__all__ = ["main"]
