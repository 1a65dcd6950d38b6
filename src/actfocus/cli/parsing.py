"""Command-line arguments to a command, with tyro; what is wrong with them, on one line.

tyro reports an error as a box of several lines on stderr and exits. Here the box is caught and condensed.
Only tyro's public behaviour is used: its exit code, its help text and the text of the box.
"""

import contextlib
import inspect
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import tyro
from pydantic import BaseModel, ValidationError

from actfocus.config import explain, nearest_key
from actfocus.errors import ConfigError

C = TypeVar("C")


def parse(
    command: type[C], args: Sequence[str], prog: str, *, tree: type[BaseModel], default: Any = None
) -> C:
    """The command with its options from `args`; raises ConfigError with one line if they are wrong.

    Args:
        command: a dataclass.
        args: the words after the command's name.
        prog: what the help calls the program.
        tree: the pydantic tree in the command, which names the keys in messages.
        default: an instance that gives the defaults, instead of the class's own.
    """
    if args and args[0].replace("_", "-").startswith("--tyro-"):  # tyro's own, unchecked: see Completion
        raise ConfigError(f"unknown option {args[0]}; see {prog} --help")
    given = {} if default is None else {"default": default}
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            description = inspect.getdoc(command)
            return cast(C, tyro.cli(command, args=list(args), prog=prog, description=description, **given))
    except ValidationError as error:
        raise ConfigError(explain(error, tree)) from None
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        message = (
            _unknown_flag(command, args, prog) or _validation(stop, tree) or _condense(box.getvalue(), prog)
        )
        raise ConfigError(message) from None


def flag_value(args: Sequence[str], flag: str) -> str | None:
    """The value of `flag` in `args`, before they are parsed; the last one if there are several."""
    value = None
    for number, word in enumerate(args):
        if word == flag and number + 1 < len(args):
            value = args[number + 1]
        elif word.startswith(f"{flag}="):
            value = word.removeprefix(f"{flag}=")
    return value


def _unknown_flag(command: type[Any], args: Sequence[str], prog: str) -> str | None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        tyro.cli(command, args=["--help"], prog=prog)
    known = list(dict.fromkeys(re.findall(r"(?<![\w-])--([a-z][a-z0-9.-]*[a-z0-9])", shown.getvalue())))
    for word in args:
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name[2:] not in known:
            # A switch is turned off by `--section.no-key`; `--no-section.key` is a near miss of just that.
            switch = re.sub(r"^no-(.*)\.", r"\1.no-", name[2:])
            hint = nearest_key(name[2:], [switch] if switch in known else known).replace("'", "'--", 1)
            return f"unknown option {word.partition('=')[0]}{hint or f'; see {prog} --help'}"
    return None


def _validation(stop: BaseException, tree: type[BaseModel]) -> str | None:
    """The message of the pydantic error that made tyro stop, if one did."""
    for error in _chain(stop):
        if isinstance(error, ValidationError):
            return explain(error, tree)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _condense(box: str, prog: str) -> str:
    """Tyro's box of lines as one line: its first section, without the frame."""
    # Where stdout is not UTF-8, tyro draws no frame: the title stands alone, with a rule of hyphens under it.
    rows = [line.strip().removeprefix("│").removesuffix("│").strip() for line in box.splitlines()]
    rows = [row for row in rows if row and row[0] not in "╰"]
    body = rows[1:] if rows[0].startswith("╭") else rows[2:]
    rule = next((n for n, row in enumerate(body) if set(row) in ({"─"}, {"-"})), len(body))
    text = " ".join(body[:rule])
    if found := re.match(r"Error parsing (\S+?):? (.*)", text):
        return f"{_shown(found[1])}: {_wrong_type(found[2])}"
    if found := re.match(r"Missing from .*?: (\S+)", text):
        return f"{found[1]} is missing"
    if found := re.match(r"Missing value for argument '([^']*)'\. Expected (\d+)", text):
        count = found[2]
        return f"{_shown(found[1])} needs {'a value' if count == '1' else f'{count} values'}"
    if found := re.match(
        r"[Ii]nvalid choice '(.*)' for argument '([^']*)'\. Expected one of \((.*?),?\) ?\.?$", text
    ):
        return f"{_shown(found[2])}: input should be one of {found[3]}, got {found[1]!r}"
    if found := re.match(r"Unrecognized options: (.*)", text):
        return f"unexpected argument {found[1].split(', ')[0]!r}; see {prog} --help"
    return text


def _shown(argument: str) -> str:
    """A flag under the shortest of its names; a positional argument without what it is part of."""
    return argument.partition("/")[0] if argument.startswith("-") else argument.rpartition(".")[2]


def _wrong_type(text: str) -> str:
    """Python's words for a value of the wrong type, in ours."""
    if found := re.search(r"could not convert string to float: ('.*?')", text):
        return f"input should be a number, got {found[1]}"
    if found := re.search(r"invalid literal for int\(\) with base 10: ('.*?')", text):
        return f"input should be a whole number, got {found[1]}"
    return text
