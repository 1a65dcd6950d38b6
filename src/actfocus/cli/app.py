"""`actfocus`: which command it is, and what its errors become."""

import contextlib
import errno
import inspect
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Annotated, Any, Union

import tyro

from actfocus.cli.compare import Compare
from actfocus.cli.completion import Completion
from actfocus.cli.diagnose import Diagnose
from actfocus.cli.evaluate import Eval
from actfocus.cli.games import CheckEnv, Play
from actfocus.cli.models import Models
from actfocus.cli.outcome import Command, print_outcome
from actfocus.cli.parsing import parse
from actfocus.cli.report import Report
from actfocus.cli.train import Train, train_defaults
from actfocus.cli.view import View
from actfocus.cli.warmstart import Warmstart
from actfocus.cli.webshop import Webshop
from actfocus.config import Config, WarmstartConfig
from actfocus.errors import ActfocusError, ConfigError, GameError, did_you_mean
from actfocus.report.output import printable
from actfocus.report.progress import is_first_process

COMMANDS: dict[str, type[Any]] = {
    "train": Train,
    "eval": Eval,
    "compare": Compare,
    "diagnose": Diagnose,
    "warmstart": Warmstart,
    "play": Play,
    "check-env": CheckEnv,
    "models": Models,
    "view": View,
    "report": Report,
    "webshop": Webshop,
    "completion": Completion,
}

ABOUT = """Train LLM agents with PPO and GRPO, the gradient focused on the tokens that decide the outcome.

Start here:
    actfocus play frozen-lake     play a game yourself, as the agent sees it
    actfocus train --dry-run      what a run would do and need
    actfocus train --help         every setting, with its default

Train a small agent:
    actfocus train --config recipes/frozen-lake-grpo.toml

To understand a command: actfocus COMMAND --help. The version: actfocus --version."""

# A quota, a read-only or forbidden place, too long a name: for the user to put right, so no traceback.
_USERS_OWN = {errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code.

    0, 1 (a check failed), 2 (wrong input), 130 (interrupted) or 141 (nobody reads the output any more).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        # Torch's threads spin while they wait for each other: by default so much that beside another program
        # a step takes ten times as long. With this it takes twice as long, and alone as long as before.
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets `?`, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = _run(list(sys.argv[1:] if args is None else args))
        sys.stdout.flush()
        return code
    except GameError as error:
        if not os.environ.get("ACTFOCUS_TRACEBACK"):
            return _fail(f"{error}; ACTFOCUS_TRACEBACK=1 shows the traceback", 2)
        traceback.print_exc()
        return _fail(str(error), 2)
    except ActfocusError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted", 130)
    except BrokenPipeError:
        # The reader (`| head`) has gone; Python would complain again while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        message = _outside_cause(error)
        if message is None:
            raise
        return _fail(message, 2)


def command_line() -> Any:
    """The type of the whole command line, for the help and for shell completion."""
    kinds = [
        Annotated[kind, tyro.conf.subcommand(name, description=_summary(kind))]
        for name, kind in COMMANDS.items()
    ]
    return Union[tuple(kinds)]  # noqa: UP007 - made at run time


def _summary(kind: type[Any]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        with contextlib.suppress(SystemExit):
            tyro.cli(command_line(), args=["--help"], prog="actfocus", description=ABOUT)
        return 0
    if args[0] == "--version":
        print(version("actfocus"))
        return 0
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        what = "option before the command" if name.startswith("-") else "unknown command"
        raise ConfigError(f"{what}: {name!r}{did_you_mean(name, COMMANDS) or '; see actfocus --help'}")
    kind = COMMANDS[name]
    default = train_defaults(rest) if kind is Train else None
    tree = WarmstartConfig if kind is Warmstart else Config
    command: Command = parse(kind, rest, f"actfocus {name}", tree=tree, default=default)
    with _stdout_kept_for_json(command.json):
        outcome = command.run()
    if is_first_process():
        print_outcome(outcome, command.json)
    return outcome.code


@contextlib.contextmanager
def _stdout_kept_for_json(as_json: bool) -> Iterator[None]:
    """With --json, what a library prints goes to stderr: stdout holds one object and nothing else."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def _fail(message: str, code: int) -> int:
    # Control characters in a file name could otherwise rewrite the terminal.
    line = printable(" ".join(message.split()))
    print(f"actfocus: {line}", file=sys.stderr, flush=True)
    return code


def _outside_cause(error: BaseException) -> str | None:
    """One line for an error that comes from the machine and not from a bug; None for a bug."""
    cause: BaseException | None = error
    while cause is not None:
        # safetensors and torch wrap the disk's error in types of their own and keep only its text.
        if "os error 28" in str(cause) or "No space left on device" in str(cause):
            return (
                f"the disk is full ({cause}); make room, then run the command again"
                " (a training that had begun goes on with: actfocus train --resume RUN)"
            )
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    if isinstance(error, OSError) and error.errno in _USERS_OWN:
        return f"cannot read or write {error.filename or 'a file'}: {error.strerror}"
    return None


__all__ = ["ABOUT", "COMMANDS", "command_line", "main"]
