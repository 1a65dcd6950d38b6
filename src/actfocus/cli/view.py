"""`actfocus view`: every token of a run's recorded episodes, as a page to look at."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Outcome, require_writable
from actfocus.cli.train import saved_config
from actfocus.errors import ConfigError
from actfocus.report.progress import make_progress


@dataclass(frozen=True)
class View:
    """Look at every token of a run: role, weight, energy, advantage, and what the agent saw.

    Write one HTML file that opens offline, by default view.html in the run directory:
        actfocus view runs/NAME

    Follow a training that goes on, on this machine alone; Control-C ends it:
        actfocus view runs/NAME --serve

    A run records the episodes of every tenth step and of the last one (`save_episodes_every`).
    """

    directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Annotated[Path | None, optional("FILE")] = None
    """The file to write; if not given, view.html in the run directory. An existing file is replaced."""
    step: Annotated[int | None, optional("INT")] = None
    """Only this step; if not given, all that are recorded."""
    limit: Annotated[int, tyro.conf.arg(metavar="INT")] = 1000
    """At most so many trajectories, shared equally among the steps: whole groups, those trained on first.
    With --serve each step shows at least one."""
    serve: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Serve the page on 127.0.0.1 instead of writing it; new steps appear in it."""
    port: Annotated[int, tyro.conf.arg(metavar="INT")] = 8642
    """Port for --serve; 0 takes any that is free."""
    json: Json = False

    def run(self) -> Outcome:
        """Check the options, then write or serve."""
        if self.limit < 1:
            raise ConfigError(f"--limit must be at least 1, got {self.limit}")
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"--port must be from 0 to 65535, got {self.port}")
        saved_config(self.directory)  # says what is wrong before anything slow is imported
        if self.serve:
            if self.out is not None:
                raise ConfigError("--out does not go with --serve, which writes no file")
            return self._serve()
        return self._write()

    def _write(self) -> Outcome:
        out = self.out or self.directory / "view.html"
        require_writable(out, "view.html")
        from actfocus.report.viewer.collect import page_data
        from actfocus.report.viewer.page import render_page

        data = page_data(self.directory, step=self.step, limit=self.limit, note=make_progress().note)
        page = render_page(data).encode()
        from actfocus.run_directory import write_whole

        write_whole(out, page)
        steps, shown, recorded = _counts(data)
        summary = {
            "out": str(out),
            "bytes": len(page),
            "steps": [packed["step"] for packed in data["steps"]],
            "trajectories": shown,
            "recorded": recorded,
            "problems": data["notes"],
        }
        left = f" of {recorded} (--limit {self.limit})" if recorded > shown else ""
        words = f"{shown} trajectories{left} of {steps} {'step' if steps == 1 else 'steps'}"
        return Outcome(summary, [f"{words}, {len(page) / 1e6:.2f} MB", f"Open in a browser: {out}"])

    def _serve(self) -> Outcome:
        from actfocus.report.viewer.collect import Follower
        from actfocus.report.viewer.server import LOOPBACK, make_server

        note = make_progress().note
        follower = Follower(self.directory, step=self.step, limit=self.limit, note=note)
        with make_server(follower, self.port) as server:
            url = f"http://{LOOPBACK}:{server.server_port}/"
            # To stderr, and before the end: stdout holds the result alone.
            print(f"Open in a browser: {url} (Control-C ends)", file=sys.stderr, flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
        return Outcome({"url": url, "run": str(self.directory)})


def _counts(data: dict[str, Any]) -> tuple[int, int, int]:
    steps = data["steps"]
    shown = sum(len(packed["episodes"]) for packed in steps)
    return len(steps), shown, sum(packed["recorded"] for packed in steps)
