"""`actfocus completion`: a script that completes commands and flags in the shell."""

import contextlib
import io
from dataclasses import dataclass
from typing import Literal

import tyro

from actfocus.cli.options import Json
from actfocus.cli.outcome import Outcome


@dataclass(frozen=True)
class Completion:
    """Print a script with which the shell completes commands and flags.

    bash, for this session or, in ~/.bashrc, for every one:
        eval "$(actfocus completion bash)"

    zsh, into a folder on $fpath:
        actfocus completion zsh > ~/.zfunc/_actfocus
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh"]]
    """Which shell."""
    json: Json = False

    def run(self) -> Outcome:
        """Let tyro write the script for the whole command line."""
        from actfocus.cli.app import command_line  # it imports this module

        script = io.StringIO()
        with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
            tyro.cli(command_line(), args=["--tyro-write-completion", self.shell, "-"], prog="actfocus")
        text = script.getvalue().strip()
        return Outcome({"shell": self.shell, "script": text}, [text])
