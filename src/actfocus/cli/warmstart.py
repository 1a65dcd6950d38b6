"""`actfocus warmstart`: teach a model the format and the game from demonstrations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Interrupted, Outcome
from actfocus.cli.train import check_game, check_model, check_new, timestamp
from actfocus.config import WarmstartConfig
from actfocus.report.progress import make_progress
from actfocus.report.tables import success_table


@dataclass(frozen=True)
class Warmstart:
    """Teach a model the reply format, and some of the game, from a scripted expert's demonstrations.

    Reinforcement learning needs a policy that succeeds now and then. A small model that never saw the format
    does not, and this gives it a start:
        actfocus warmstart --env sokoban

    The line that trains the model further is printed at the end, with the folder that was made.
    """

    out: Annotated[Path | None, optional("DIR")] = None
    """Folder to create; if not given, one under runs/ that names game, seed and time."""
    json: Json = False
    settings: Annotated[WarmstartConfig, tyro.conf.arg(name="")] = WarmstartConfig()  # noqa: RUF009 - frozen

    def run(self) -> Outcome:
        """Check all that can be checked without torch, then train."""
        config = self.settings
        out = self.out or Path("runs") / f"{config.env.name}-warmstart-{config.seed}-{timestamp()}"
        check_new(out)
        check_game(config.env)
        check_model(config.model.name)
        from actfocus.training.warmstart import warmstart

        progress = make_progress()
        try:
            summary = warmstart(config, out, progress=progress)
        except KeyboardInterrupt:
            if out.exists():
                raise Interrupted(f"interrupted in the evaluation; the model is in {out}") from None
            raise Interrupted("interrupted; a warm start cannot be resumed: start it again") from None
        finally:
            progress.end()
        evaluations = [summary["success"]] if summary["success"] is not None else []
        tables = [success_table({"run": str(out), "evaluations": evaluations})] if evaluations else []
        next_line = f"Next: actfocus train --env {config.env.name} --model {summary['model']}"
        return Outcome(summary, [*tables, f"Loss: {summary['loss']:.4f}", next_line])
