"""The picture, after the paper's second figure: variance of the return against mean energy, by scope."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actfocus.focus.bottleneck import GroupMeans, RankCorrelation
from actfocus.report.output import printable
from actfocus.report.pictures import STABLE, save_picture

_WIDTH = 110
"""Characters of a title that fit above the panels."""
_COLOURS = {"all": "#4d4d4d", "reasoning": "#0b5fa5", "action": "#c44e00"}
_TITLES = {"all": "all sampled tokens", "reasoning": "reasoning tokens", "action": "action tokens"}


def draw_bottleneck(
    tables: Mapping[str, GroupMeans],
    correlations: Mapping[str, RankCorrelation],
    title: str,
    folder: Path,
) -> list[Path]:
    """Write `bottleneck.png` and `bottleneck.svg`; returns their paths.

    Each point is a group; hollow ones have returns that do not vary. The same input gives the same bytes.

    Args:
        tables: Per scope the groups' variances and mean energies.
        correlations: Per scope ρ with its interval.
        title: Stands above the panels.
        folder: Where they go.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STABLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for axes, (scope, table) in zip(figure.subplots(1, 3), tables.items(), strict=True):
            _panel(axes, table, correlations[scope], scope)
        figure.axes[0].set_ylabel("mean energy of the group's tokens, nats")
        figure.suptitle(_drawable(title), fontsize=11, parse_math=False)
        return save_picture(figure, folder / "bottleneck")


def _drawable(title: str) -> str:
    """The title without what XML forbids, and cut in the middle to the width of the picture."""
    shown = printable(title)
    return shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH // 2]}…{shown[-_WIDTH // 2 :]}"


def _panel(axes: Any, table: GroupMeans, correlation: RankCorrelation, scope: str) -> None:
    for varies in (False, True):
        points = [(v, m) for v, m in zip(table.variances, table.means, strict=True) if (v > 0) == varies]
        if points:
            axes.scatter(
                *zip(*points, strict=True),
                s=22,
                facecolors=_COLOURS[scope] if varies else "none",
                edgecolors=_COLOURS[scope],
                alpha=0.75,
                linewidths=1,
            )
    axes.set_title(f"{_TITLES[scope]}\n{correlation_words(correlation)}", fontsize=10)
    axes.set_xlabel("variance of the return in the group")
    axes.locator_params(axis="x", nbins=5)
    axes.grid(alpha=0.3)
    if not table.means:
        axes.text(0.5, 0.5, "no such tokens", ha="center", transform=axes.transAxes)


def correlation_words(correlation: RankCorrelation) -> str:
    """ρ with its interval and the number of groups, short."""
    if math.isnan(correlation.rho):
        return f"ρ not defined, {correlation.groups} groups"
    interval = "" if math.isnan(correlation.low) else f" [{correlation.low:+.2f}, {correlation.high:+.2f}]"
    return f"ρ = {correlation.rho:+.2f}{interval}, {correlation.groups} groups"
