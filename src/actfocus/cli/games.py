"""`actfocus play` and `actfocus check-env`: the games without a model."""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Outcome
from actfocus.config import EnvConfig, EnvName
from actfocus.errors import ConfigError
from actfocus.report.tables import figures_table


class _Game(EnvConfig):
    """The game's settings, with its name as the first word instead of a flag."""

    name: Annotated[EnvName, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """Which game: frozen-lake, sokoban, sudoku, webshop, or a class of your own as module:Class."""


@dataclass(frozen=True)
class Play:
    """Play a game yourself: you see what the agent sees, and type the actions.

    The same level every time; FrozenLake without slips:
        actfocus play sokoban --seed 7
        actfocus play frozen-lake --success-rate 1
    """

    game: Annotated[_Game, tyro.conf.arg(name="")]
    seed: Annotated[int | None, optional("INT")] = None
    """Which level; if not given, a random one."""
    json: Json = False

    def run(self) -> Outcome:
        """Hand over to the game; its last line has told people the result already."""
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"seed: input should be greater than or equal to 0, got {self.seed}")
        from actfocus.cli.play import play

        result = play(self.game.name, seed=self.seed, settings=self.game.settings())
        return Outcome({"env": self.game.name} | result)


@dataclass(frozen=True)
class CheckEnv:
    """Check a game: solvable levels, the same level for the same seed, no reply that breaks it.

    The exit code is 1 if a problem was found:
        actfocus check-env sudoku
        actfocus check-env webshop --catalogue NAME
    """

    game: Annotated[_Game, tyro.conf.arg(name="")]
    seeds: int = 1000
    """Levels to check."""
    fuzz: int = 100_000
    """Random replies, most of them malformed, to throw at the parser and the game."""
    json: Json = False

    def run(self) -> Outcome:
        """Run the checks and list what they found."""
        for key in ("seeds", "fuzz"):
            if getattr(self, key) < 1:
                raise ConfigError(
                    f"{key}: input should be greater than or equal to 1, got {getattr(self, key)}"
                )
        from actfocus.envs import make_env
        from actfocus.envs.check import check_environment

        name, settings = self.game.name, self.game.settings()
        make_env(name, **settings)  # refuses a class that is not there before the first line of progress
        print(f"checking {name}: {self.seeds} levels, {self.fuzz} replies", file=sys.stderr, flush=True)
        report = check_environment(
            name,
            settings=settings,
            seeds=self.seeds,
            fuzz=self.fuzz,
            progress=lambda text: print(text, file=sys.stderr, flush=True),
        )
        figures = dataclasses.asdict(report)
        problems = [str(problem) for problem in figures.pop("problems")]
        verdict = f"{name}: no problem found" if report.ok else f"{name}: problems: {len(problems)}"
        return Outcome(
            {"env": name, "ok": report.ok, "problems": problems, **figures},
            [figures_table(figures), verdict, *(f"  {problem}" for problem in problems)],
            code=0 if report.ok else 1,
        )
