"""The pictures of a comparison, each as PNG and SVG. They show what `report.json` holds and nothing else."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actfocus.compare.report import heading
from actfocus.compare.sweeps import SYMBOLS, Sweep, find_sweeps
from actfocus.report.pictures import STABLE, save_picture

Data = Mapping[str, Any]

# Okabe and Ito's colours, which colour-blind people tell apart; marker and dashes differ as well.
_COLOURS = [
    "#5a5a5a",
    "#0b5fa5",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8c6d1f",
    "#7a3db8",
    "#000000",
]
_MARKERS = ["s", "o", "^", "D", "v", "P", "X", "*", "p", "h"]
_DASHES = ["--", "-", "-.", ":"]
_CROWD = 4
"""Arms beyond which single seeds and bands would only cover each other."""
_LOOK = STABLE | {"font.size": 9.5, "axes.titlesize": 10}


def draw_all(report: Data, folder: Path) -> dict[str, str]:
    """Draw every picture that the report has figures for; returns file name (without ending) → caption."""
    drawn: dict[str, str] = {}
    pictures: list[tuple[str, Callable[[Data], Figure | None], str]] = [
        ("difference", _draw_differences, _difference_caption(report)),
        (
            "final",
            _draw_final,
            "Success after the last step: every seed (small), the mean and its bootstrap interval",
        ),
        ("learning_curves", _draw_curves, _curve_caption(report)),
        ("sweep_alpha", lambda data: _draw_sweep(data, "alpha"), _sweep_caption("α", "reasoning tokens")),
        ("sweep_beta", lambda data: _draw_sweep(data, "beta"), _sweep_caption("β", "the signal")),
        (
            "learning_rate",
            _draw_rates,
            "Final success by learning rate, in every arm, with bootstrap intervals",
        ),
    ]
    with matplotlib.rc_context(_LOOK):
        for name, draw, caption in pictures:
            figure = draw(report)
            if figure is not None:
                save_picture(figure, folder / name)
                drawn[name] = caption
    return drawn


def _style(report: Data, arm: str) -> dict[str, Any]:
    number = [each["name"] for each in report["arms"]].index(arm)
    # The first one is Uniform's alone.
    place = 1 + (number - 1) % (len(_COLOURS) - 1) if number else 0
    return {
        "color": _COLOURS[place],
        "marker": _MARKERS[place],
        "linestyle": _DASHES[number % len(_DASHES)],
    }


def _panels(report: Data, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """One panel a comparison: at most three beside each other, or as many as an environment has."""
    comparisons = report["comparisons"]
    per_env = max(sum(c["env"] == e for c in comparisons) for e in {c["env"] for c in comparisons})
    columns = min(per_env, 4) if len({c["env"] for c in comparisons}) > 1 else min(len(comparisons), 3)
    rows = math.ceil(len(comparisons) / columns)
    figure = Figure(figsize=(max(4.6, width * columns), height * rows + 0.5), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for empty in panels[len(comparisons) :]:
        empty.set_axis_off()
    return figure, panels[: len(comparisons)]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), int(figure.get_figwidth() / 1.5)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3)


def _curve_caption(report: Data) -> str:
    if _is_crowded(report):
        return "Success while training: mean over seeds"
    return "Success while training: every seed thin, the mean thick, its bootstrap interval as a band"


def _is_crowded(report: Data) -> bool:
    return any(len(comparison["curves"]) > _CROWD for comparison in report["comparisons"])


def _draw_curves(report: Data) -> Figure:
    figure, panels = _panels(report, 3.7, 2.9)
    widest = panels[0]
    crowd = _is_crowded(report)
    for axes, comparison in zip(panels, report["comparisons"], strict=True):
        for arm, curve in comparison["curves"].items():
            style = _style(report, arm)
            steps = curve["steps"]
            for each in () if crowd else curve["each"]:
                axes.plot(steps, _percent(each), color=style["color"], linewidth=0.7, alpha=0.4)
            axes.plot(steps, _percent(curve["mean"]), linewidth=2, markersize=4.5, label=arm, **style)
            if not crowd:
                # A step without an interval (all seeds equal, as before training) has its mean on both sides.
                low = [m if x is None else x for x, m in zip(curve["low"], curve["mean"], strict=True)]
                high = [m if x is None else x for x, m in zip(curve["high"], curve["mean"], strict=True)]
                if any(x is not None for x in curve["low"]):
                    axes.fill_between(
                        steps, _percent(low), _percent(high), color=style["color"], alpha=0.15, linewidth=0
                    )
        axes.set(title=heading(comparison), xlabel="step", ylabel="success, %")
        _room(axes)
        if len(comparison["curves"]) == len(report["arms"]):
            widest = axes
    _legend(figure, widest)
    return figure


def _room(axes: Axes) -> None:
    """Of 0 to 100 as much as is needed, but at least 20 points: noise must not look like a cliff."""
    axes.margins(y=0.08)
    low, high = axes.get_ylim()
    missing = max(0.0, 20 - (high - low)) / 2
    low, high = low - missing, high + missing
    low, high = (max(-2.0, low), max(high, 18.0)) if low < 0 else (low, high)
    low, high = (min(low, 82.0), min(102.0, high)) if high > 100 else (low, high)
    axes.set_ylim(low, high)
    axes.grid(alpha=0.3)


def _draw_final(report: Data) -> Figure:
    arms = max(len(comparison["arms"]) for comparison in report["comparisons"])
    figure, panels = _panels(report, 3.9, 0.9 + 0.42 * arms)
    for axes, comparison in zip(panels, report["comparisons"], strict=True):
        names = list(comparison["arms"])
        for row, name in enumerate(names):
            arm, style = comparison["arms"][name], _style(report, name)
            each, mean = _percent(arm["each"]["final"]), arm["final_mean"]
            axes.plot(each, [row + 0.22] * len(each), "o", color=style["color"], markersize=3.5, alpha=0.6)
            _bar(axes, mean, row, style)
        axes.set(title=heading(comparison), xlabel="final success, %", yticks=range(len(names)))
        axes.set_yticklabels(names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(axis="x", alpha=0.3)
    return figure


def _bar(axes: Axes, figure: Data, row: float, style: Mapping[str, Any]) -> None:
    """A mean with its interval, lying."""
    point = {"color": style["color"], "marker": style["marker"], "markersize": 7}
    if figure["low"] is not None:
        axes.plot(_percent([figure["low"], figure["high"]]), [row, row], color=style["color"], linewidth=2.2)
    axes.plot(_percent([figure["value"]]), [row], linestyle="none", **point)


def _difference_caption(report: Data) -> str:
    return (
        f"Final success against {report['base']}, seed by seed: mean, bootstrap interval (thick) and the"
        " interval of the verdict (thin); filled where the verdict is a difference"
    )


def _draw_differences(report: Data) -> Figure | None:
    rows: list[tuple[str, str, Data]] = []
    for comparison in report["comparisons"]:
        rows += [(heading(comparison), arm, row) for arm, row in comparison["against_base"].items()]
    for family in report["together"]:
        rows += [(family["name"], arm, row) for arm, row in family["against_base"].items()]
    rows = [row for row in rows if row[2]["final_difference"]["bootstrap"]["value"] is not None]
    if not rows:
        return None
    figure = Figure(figsize=(7.4, 1.1 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    several = len({arm for _, arm, _ in rows}) > 1
    for number, (_, arm, row) in enumerate(rows):
        style, difference, said = _style(report, arm), row["final_difference"]["bootstrap"], row["verdict"]
        if said["low"] is not None:
            axes.plot(_percent([said["low"], said["high"]]), [number] * 2, color=style["color"], linewidth=1)
        if difference["low"] is not None:
            bounds = _percent([difference["low"], difference["high"]])
            axes.plot(bounds, [number] * 2, color=style["color"], linewidth=3.5, solid_capstyle="butt")
        inside = style["color"] if said["claim"] in ("higher", "lower") else "white"
        axes.plot(
            _percent([difference["value"]]), [number], style["marker"], color=style["color"],
            markerfacecolor=inside, markersize=7.5, markeredgewidth=1.5,
        )  # fmt: skip
    axes.axvline(0, color="black", linewidth=1)
    axes.set(xlabel=f"final success minus {report['base']}, points", yticks=range(len(rows)))
    axes.set_yticklabels([f"{where}: {arm}" if several else where for where, arm, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.06)
    axes.grid(axis="x", alpha=0.3)
    if not several:
        axes.set_title(f"{rows[0][1]} against {report['base']}")
    return figure


def _sweep_caption(symbol: str, what: str) -> str:
    return (
        f"Final success by {symbol} (weight of {what}), the other settings held: mean over seeds with its"
        " bootstrap interval, every seed small; the values stand at equal distances"
    )


def _draw_sweep(report: Data, key: str) -> Figure | None:
    found = [(c, find_sweeps(c["arms"], key)) for c in report["comparisons"]]
    found = [(comparison, sweeps) for comparison, sweeps in found if sweeps]
    if not found:
        return None
    figure, panels = _panels({"comparisons": [comparison for comparison, _ in found]}, 3.9, 3.1)
    for axes, (comparison, sweeps) in zip(panels, found, strict=True):
        values = sorted({value for sweep in sweeps for value in sweep.arms})
        for number, sweep in enumerate(sweeps):
            _sweep_line(axes, comparison, sweep, values, number)
        base = comparison["arms"].get(report["base"])
        if base is not None:
            colour = _COLOURS[0]
            level = 100 * base["final_mean"]["value"]
            axes.axhline(level, color=colour, linestyle="--", linewidth=1.4, label=report["base"])
            if base["final_mean"]["low"] is not None:
                low, high = _percent([base["final_mean"]["low"], base["final_mean"]["high"]])
                axes.axhspan(low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(
            title=heading(comparison),
            xlabel=SYMBOLS[key],
            ylabel="final success, %",
            xticks=range(len(values)),
        )
        axes.set_xticklabels([f"{value:g}" for value in values])
        axes.set_xlim(-0.4, len(values) - 0.6)
        _room(axes)
        axes.legend(frameon=False, fontsize=8.5)
    return figure


def _sweep_line(axes: Axes, comparison: Data, sweep: Sweep, values: Sequence[float], number: int) -> None:
    colour, marker = _COLOURS[1 + number % 9], _MARKERS[1 + number % 9]
    places = [values.index(value) for value in sweep.arms]
    arms = [comparison["arms"][name] for name in sweep.arms.values()]
    axes.plot(
        places, _percent([arm["final_mean"]["value"] for arm in arms]), color=colour, marker=marker,
        linewidth=2, label=sweep.held,
    )  # fmt: skip
    for place, arm in zip(places, arms, strict=True):
        each, mean = _percent(arm["each"]["final"]), arm["final_mean"]
        axes.plot([place + 0.1] * len(each), each, "o", color=colour, markersize=3, alpha=0.5)
        if mean["low"] is not None:
            axes.plot([place, place], _percent([mean["low"], mean["high"]]), color=colour, linewidth=1.6)


def _draw_rates(report: Data) -> Figure | None:
    swept: dict[tuple[str, str], list[Data]] = {}
    for comparison in report["comparisons"]:
        if comparison["lr_varies"]:
            swept.setdefault((comparison["env"], comparison["algorithm"]), []).append(comparison)
    if not swept:
        return None
    titles = [{"env": env, "algorithm": algorithm, "lr_varies": False} for env, algorithm in swept]
    figure, panels = _panels({"comparisons": titles}, 3.9, 3.1)
    for axes, title, members in zip(panels, titles, swept.values(), strict=True):
        members = sorted(members, key=lambda member: float(member["lr"]))
        for number, arm in enumerate(each["name"] for each in report["arms"]):
            having = [member for member in members if arm in member["arms"]]
            means = [member["arms"][arm]["final_mean"] for member in having]
            # Beside each other, so that one arm's interval does not hide the other's.
            rates = [member["lr"] * 1.03 ** (number - (len(report["arms"]) - 1) / 2) for member in having]
            style = _style(report, arm)
            axes.plot(rates, _percent([mean["value"] for mean in means]), linewidth=2, label=arm, **style)
            for rate, mean in zip(rates, means, strict=True):
                if mean["low"] is not None:
                    bounds = _percent([mean["low"], mean["high"]])
                    axes.plot([rate, rate], bounds, color=style["color"], linewidth=1.6)
        axes.set_xscale("log")
        axes.set_xticks([member["lr"] for member in members], [f"{member['lr']:g}" for member in members])
        axes.minorticks_off()
        axes.set(title=heading(title), xlabel="learning rate", ylabel="final success, %")
        _room(axes)
    _legend(figure, panels[0])
    return figure


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]


__all__ = ["draw_all"]
