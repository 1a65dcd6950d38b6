"""`actfocus eval`: the success of a run's checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError

from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Outcome
from actfocus.cli.train import saved_config
from actfocus.config import EvaluationConfig, explain
from actfocus.errors import ConfigError, RunError
from actfocus.report.progress import make_progress
from actfocus.report.tables import success_table
from actfocus.run_directory import numbered


@dataclass(frozen=True)
class Eval:
    """Measure the success of a run's checkpoint on start states whose seeds training never drew.

    The last checkpoint, as the run itself evaluates:
        actfocus eval runs/NAME

    More episodes, for a narrower interval:
        actfocus eval runs/NAME --states 256 --samples 16
    """

    directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    states: Annotated[int | None, optional("INT")] = None
    """Fixed start states; if not given, as many as the run uses."""
    samples: Annotated[int | None, optional("INT")] = None
    """Episodes per start state; if not given, as many as the run uses."""
    temperature: Annotated[float | None, optional("FLOAT")] = None
    """Sampling temperature, 0 takes the likeliest token; if not given, the run's."""
    step: Annotated[int | None, optional("INT")] = None
    """Which checkpoint; if not given, the last one."""
    json: Json = False

    def run(self) -> Outcome:
        """Check the run and the figures, then evaluate."""
        settings = self._settings()
        check_checkpoint(self.directory, self.step)
        from actfocus.training.run import evaluate_run

        progress = make_progress()
        try:
            result = evaluate_run(
                self.directory,
                states=settings.states,
                samples=settings.samples,
                temperature=settings.temperature,
                step=self.step,
                progress=progress,
            )
        finally:
            progress.end()
        summary = {"run": str(self.directory), "evaluations": [result]}
        return Outcome(result, [success_table(summary)])

    def _settings(self) -> EvaluationConfig:
        given = {"states": self.states, "samples": self.samples, "temperature": self.temperature}
        saved = saved_config(self.directory).evaluation.model_dump()
        try:
            return EvaluationConfig(
                **saved | {key: value for key, value in given.items() if value is not None}
            )
        except ValidationError as error:
            raise ConfigError(explain(error, EvaluationConfig)) from None


def check_checkpoint(run: Path, step: int | None) -> None:
    """Refuse a step that has no checkpoint, and a run that has none at all."""
    there = list(numbered(run / "checkpoints"))
    if not there:
        raise RunError(f"{run} has no checkpoint yet")
    if step is not None and step not in there:
        raise RunError(f"{run} has no checkpoint of step {step}; it has {', '.join(map(str, there))}")
