"""`actfocus report`: what came of a run, as a page to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Outcome, require_writable
from actfocus.cli.train import saved_config


@dataclass(frozen=True)
class Report:
    """Write the report of a run: outcome, curves, diagnosis, five trajectories, settings, cost.

    Training writes it at its end; this writes it anew, also for a run that goes on or was killed:
        actfocus report runs/NAME

    It is one HTML file that opens offline, by default report.html in the run directory.
    """

    directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Annotated[Path | None, optional("FILE")] = None
    """The file to write; if not given, report.html in the run directory. An existing file is replaced."""
    json: Json = False

    def run(self) -> Outcome:
        """Check the options, then write."""
        saved_config(self.directory)  # says what is wrong before anything slow is imported
        out = self.out or self.directory / "report.html"
        require_writable(out, "report.html")
        from actfocus.report.summary.page import write_report

        summary = write_report(self.directory, out)
        lines = [f"left out: {problem}" for problem in summary["problems"]]
        count = len(summary["trajectories"])
        words = f"{summary['steps']} steps ({summary['state']}), {count} trajectories"
        lines += [f"{words}, {summary['bytes'] / 1e6:.2f} MB", f"Open in a browser: {out}"]
        return Outcome(summary, lines)
