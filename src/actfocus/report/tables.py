"""Tables for the terminal. They take the JSON-ready results that `--json` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table


def success_table(summary: Mapping[str, Any]) -> Table:
    """Success and return at each evaluation, with the gain over the first one in points.

    Args:
        summary: `run` and `evaluations`, a list of dicts with `step`, `success`, `low` and `high` (shares
            of 1), `return` and `episodes`.
    """
    evaluations = summary["evaluations"]
    table = Table(title=escape(str(summary.get("run", ""))) or None, title_justify="left")
    table.add_column("")
    for heading in ("step", "success %", "95 % interval", "gain, points", "return", "episodes"):
        table.add_column(heading, justify="right")
    for number, row in enumerate(evaluations):
        table.add_row(
            _mark(number, len(evaluations)),
            str(row.get("step", "")),
            _percent(row["success"]),
            f"{_percent(row['low'])} – {_percent(row['high'])}",
            _gain(row["success"], evaluations[0]["success"]) if number else "",
            _figure(row["return"]),
            str(row["episodes"]),
            style="bold" if number == len(evaluations) - 1 else None,
        )
    return table


def figures_table(figures: Mapping[str, Any]) -> Table:
    """Figures, one a row; what starts with `memory` is bytes, in MiB or GiB."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for key, value in _leaves(figures):
        shown = _bytes(value) if key.startswith("memory") and isinstance(value, int) else _figure(value)
        table.add_row(escape(key.replace("_bytes", "").replace("_", " ").replace(".", ": ")), escape(shown))
    return table


def models_table(models: Sequence[Mapping[str, Any]]) -> Table:
    """The models that have a name."""
    table = Table()
    for heading in ("model", "parameters", "source", "on this machine"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left", overflow="fold")
    for model in models:
        there = str(model["path"] or "yes") if model["cached"] else "no"
        cells = (str(model["name"]), _figure(model["parameters"]), str(model["source"]), there)
        table.add_row(*map(escape, cells))
    return table


def _mark(number: int, total: int) -> str:
    if total > 1 and number in (0, total - 1):
        return "after" if number else "before"
    return ""


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _gain(now: float | None, before: float | None) -> str:
    return "–" if now is None or before is None else f"{100 * (now - before):+.1f}"


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bytes(count: float) -> str:
    gib = count / 2**30
    return f"{gib:,.2f} GiB" if gib >= 1 else f"{count / 2**20:,.1f} MiB"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        leaves += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return leaves
