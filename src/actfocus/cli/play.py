"""`actfocus play ENV`: a person plays in the terminal, by the rules that hold for the model."""

from typing import TYPE_CHECKING, Any

import numpy as np

from actfocus.envs import make_env
from actfocus.envs.protocol import ACTION_SEPARATOR, REPLY_TAGS, TextEnv
from actfocus.errors import ConfigError
from actfocus.report.output import printable

if TYPE_CHECKING:
    from rich.console import Console

HELP = (
    f"Type an action, or several separated by {ACTION_SEPARATOR}, or a whole reply with its tags."
    " hint shows what the expert would do next, help the rules, quit leaves; all else is played."
)


def play(name: str, *, seed: int | None = None, settings: dict[str, Any]) -> dict[str, Any]:
    """Play one episode of `name`, made with `settings`, on the level of `seed` (random if None).

    Returns:
        `seed`, `success`, `return` (the sum of rewards so far), `turns` (the turns played) and `finished`
        (False if the player left).
    """
    from rich.console import Console

    console = Console(highlight=False)
    env = make_env(name, **settings)
    if seed is None:
        seed = int(np.random.default_rng().integers(1_000_000))
    env.reset(seed=seed)
    _say(console, f"{env.rules}\n\n{HELP}\n\nThe level of seed {seed}.", style="dim")
    total, finished = _play_episode(console, env)
    return {
        "seed": seed,
        # A game of the user's own may reckon in NumPy's types, which JSON does not know.
        "success": bool(env.success),
        "return": float(total),
        "turns": env.turn - 1,
        "finished": finished,
    }


def _play_episode(console: "Console", env: TextEnv) -> tuple[float, bool]:
    """The sum of rewards, and whether the player stayed to the end."""
    total, over, truncated = 0.0, False, False
    _show(console, env)
    while not over:
        text = _ask(console)
        match text.lower():
            case "":
                continue
            case "quit":
                _say(console, "Goodbye.")
                return total, False
            case "help":
                _say(console, f"{env.rules}\n\n{HELP}", style="dim")
                continue
            case "hint":
                _say(console, _hint(env), style="cyan")
                continue
        _, reward, terminated, truncated, info = env.step(_as_reply(env, text))
        total += reward
        over = terminated or truncated
        _show(console, env)
        if info["problem"]:
            _say(console, f"Problem: {info['problem']}", style="red")
        played = ", ".join(info["played"]) or "nothing"
        _say(console, f"Played: {played}. Reward {reward:.4g}, so far {total:.4g}.")
    outcome = "Solved!" if env.success else "Not solved."
    reason = " The budget is spent." if truncated else ""
    _say(console, f"{outcome}{reason} Return {total:.4g}.", style="bold green" if env.success else "bold red")
    return total, True


def _hint(env: TextEnv) -> str:
    """The expert's next action, or why there is none."""
    try:
        plan = env.expert_actions()
    except ConfigError as error:
        return f"There is no hint: {error}."
    return plan[0] if plan else "From here the game cannot be won."


def _ask(console: "Console") -> str:
    """A line from the player; Control-C and Control-D mean quit."""
    try:
        return console.input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        console.print()
        return "quit"


def _as_reply(env: TextEnv, text: str) -> str:
    """A bare action becomes a reply; text with a tag is taken as it is, so that the format can be tried."""
    if any(tag in text for tag in REPLY_TAGS):
        return text
    return f"<think></think><answer>{env.shorthand(text)}</answer>"


def _show(console: "Console", env: TextEnv) -> None:
    from rich.panel import Panel
    from rich.text import Text

    turns_left = env.turns - env.turn + 1
    title = f"turns left {turns_left}, actions left {env.actions_left}"
    console.print(Panel.fit(Text(printable(env.picture(), lines=True)), title=title, title_align="left"))


def _say(console: "Console", message: str, *, style: str = "") -> None:
    from rich.text import Text

    # `Text` takes no markup, so that brackets in a message stay brackets.
    console.print(Text(printable(message, lines=True), style=style))
