"""Games of the user's own: an error in one is for the user to mend, so it becomes one line, no traceback."""

import functools
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gymnasium.error import ResetNeeded

from actfocus.envs.protocol import TextEnv
from actfocus.errors import ActfocusError, GameError

_CALLED_BY_US = ("reset", "step")
_SUPPLIED = (
    *("new_level", "picture", "read_action", "play"),
    *("expert_actions", "random_action", "remarks", "figures", "shorthand"),
)


@functools.cache
def guarded(game: type[TextEnv], name: str) -> type[TextEnv]:
    """A subclass of a user's game that turns what it raises into `GameError`; `name` is shown.

    What the game does not supply stays `TextEnv`'s own, so that one can see what is missing.
    """

    def guard(method: str) -> Callable[..., Any]:
        @functools.wraps(getattr(game, method))
        def call(self: TextEnv, *args: Any, **options: Any) -> Any:
            with _blamed(game, name, method):
                return getattr(super(kind, self), method)(*args, **options)

        return call

    def system_prompt(self: TextEnv) -> Any:
        with _blamed(game, name, "system_prompt"):  # it reads `rules`, which may be missing
            return super(kind, self).system_prompt

    supplied = [method for method in _SUPPLIED if getattr(game, method) is not getattr(TextEnv, method)]
    members = {method: guard(method) for method in (*_CALLED_BY_US, *supplied)}
    names = {key: getattr(game, key) for key in ("__module__", "__qualname__", "__doc__")}
    kind: Any = type(game.__name__, (game,), names | members | {"system_prompt": property(system_prompt)})
    made: type[TextEnv] = kind
    return made


@contextmanager
def _blamed(game: type[TextEnv], name: str, method: str) -> Iterator[None]:
    try:
        yield
    except (ActfocusError, ResetNeeded):
        raise  # said already, or the mistake of the one who calls
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise GameError(f"the game {name}: {method} raised {said} ({_place(error, game)})") from error


def _place(error: Exception, game: type[TextEnv]) -> str:
    """`file:line: code`, of the deepest call in the folder of the game, or else of the deepest call."""
    calls = traceback.extract_tb(error.__traceback__)
    folder = Path(getattr(sys.modules.get(game.__module__), "__file__", None) or "").parent
    own = [call for call in calls if Path(call.filename).parent == folder]
    call = (own or calls)[-1]
    return f"{call.filename}:{call.lineno}: {call.line}"
