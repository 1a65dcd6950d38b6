"""The report of a run as one HTML page that needs nothing else."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from actfocus.diagnosis.verdict import FEWEST_GROUPS
from actfocus.focus.bottleneck import RESAMPLES
from actfocus.report.summary.chart import Chart, described, draw, evenly, shown
from actfocus.report.summary.cost import cost
from actfocus.report.summary.curves import curves
from actfocus.report.summary.diagnosis import recorded_diagnosis
from actfocus.report.summary.headline import headline
from actfocus.report.summary.record import RunRecord, read_record
from actfocus.report.summary.trajectories import trajectories
from actfocus.report.viewer import page as viewer
from actfocus.run_directory import write_whole

NAME = "report.html"
"""The report's file in the run directory."""
MOST_ROWS = 200
"""Of the table of evaluations."""

# What the viewer draws a conversation with.
_SCRIPTS = ("text.js", "data.js", "figures.js", "board.js", "conversation.js", "details.js")


def write_report(run: Path, out: Path | None = None) -> dict[str, Any]:
    """Write the report of a run, finished or not, by default into its directory.

    Args:
        run: The run directory.
        out: The file; one that exists is replaced.

    Returns:
        What came of it, JSON-ready: `out`, `bytes`, `state`, `steps`, `recorded_step`, `trajectories` and
        `problems`, whatever was damaged and left out.

    Raises:
        RunError: If there is no run, or its config.toml is damaged.
        OSError: If the file cannot be written.
    """
    out = run / NAME if out is None else out
    contents = report_contents(read_record(run))
    page = render(contents).encode()
    write_whole(out, page)
    return {
        "out": str(out),
        "bytes": len(page),
        "state": contents["headline"]["state"],
        "steps": contents["headline"]["steps"],
        "recorded_step": contents["trajectories"]["step"],
        "trajectories": [chosen["title"] for chosen in contents["trajectories"]["chosen"]],
        "problems": contents["notes"],
    }


def report_contents(record: RunRecord) -> dict[str, Any]:
    """What the page says, before it is HTML."""
    evaluations = record.evaluations()
    contents: dict[str, Any] = {
        "name": record.name,
        "headline": headline(record),
        "evaluations": evenly(evaluations, MOST_ROWS),
        "evaluated": len(evaluations),
        "charts": curves(record),
        "first_step": record.metrics[0]["step"] if record.metrics else 0,
        "last_step": record.last_step or 0,
        "diagnosis": recorded_diagnosis(record),
        "trajectories": trajectories(record),
        "config": record.config_text,
        "environment": record.environment,
        "cost": cost(record),
    }
    return contents | {"notes": record.notes}  # last: all of the above may add to them


def render(contents: dict[str, Any]) -> str:
    """The page. Every string in `contents` is shown as text, whatever is in it."""
    data = contents["trajectories"]["data"]
    return (
        _environment()
        .from_string(_asset("template.html"))
        .render(
            **contents,
            policy=policy(),
            style=Markup(style()),
            script=Markup(script()),
            data=None if data is None else Markup(viewer.embed(data)),
            fewest_groups=FEWEST_GROUPS,
            resamples=RESAMPLES,
        )
    )


def policy() -> str:
    """The page's Content-Security-Policy."""
    return viewer.policy(script(), style())


def script() -> str:
    """The page's script, as it stands in it."""
    return '"use strict";\n' + "\n".join([*map(viewer.asset, _SCRIPTS), _asset("report.js")])


def style() -> str:
    """The page's style: the viewer's, and what the report has besides."""
    return viewer.style() + _asset("report.css")


def seen(value: Any) -> Any:
    """Text with every character that would act instead of being seen under its code, as `‹U+202E›`."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() or c == "\n" else f"‹U+{ord(c):04X}›" for c in value)


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=seen, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "figure": _figure,
        "percent": lambda share, digits=1: "–" if share is None else f"{100 * share:.{digits}f} %",
        "points": lambda gain: "–" if gain is None else f"{100 * gain:+.1f}".replace("-", "−"),
        "signed": lambda value: "–" if value is None else f"{value:+.2f}".replace("-", "−"),
        "duration": _duration,
        "memory": _memory,
    }
    environment.globals |= {"draw": draw, "described": described, "last_value": _last_value}
    return environment


def _last_value(chart: Chart, place: int) -> str:
    return shown(chart.lines[place].last, chart.percent)


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) >= 1000):
        return f"{value:,.0f}".replace("-", "−")
    return shown(value) if isinstance(value, float) else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _memory(count: float | None) -> str:
    if count is None:
        return "–"
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")
