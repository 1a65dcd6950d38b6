"""Small line charts as SVG, drawn with classes alone: colours come from the page's style, light or dark."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 30
MOST_POINTS = 120
"""Points of a line: more than a chart of this size can show apart."""
FEW_POINTS = 24
"""Up to so many points of a line are marked one by one."""
TICKS = 5

Point = tuple[float, float]
T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """One line, with the band around it, if it has one."""

    label: str
    look: str
    """Class that gives it colour, width and dashes: they differ together, so that no hue is needed."""
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    """Step, lower and upper end."""

    @property
    def last(self) -> float:
        """The value at the last step."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Chart:
    """What one picture shows."""

    title: str
    help: str
    lines: Sequence[Line] = field(default_factory=list)
    percent: bool = False
    whole: bool = False
    """The scale goes from 0 to 1, whatever the values are."""
    zero: bool = False
    """The scale begins at 0."""


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    """Where `low` is drawn."""
    end: float

    def __call__(self, value: float) -> str:
        share = (value - self.low) / (self.high - self.low)
        return f"{self.start + share * (self.end - self.start):.1f}"


def draw(chart: Chart, first: int, last: int) -> Markup:
    """The chart over the steps from `first` to `last`, with a description for those who do not see it."""
    lines = [_thinned(line) for line in chart.lines]
    low, high, ticks = _value_range(chart, lines)
    x = _Scale(first, max(last, first + 1), LEFT, WIDTH - RIGHT)
    y = _Scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [*_grid(chart, x, y, ticks), *(_drawn(line, x, y) for line in lines), *_hover(chart, lines, x)]
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, described(chart), Markup("").join(parts)
    )


def described(chart: Chart) -> str:
    """The chart in words: where each line begins and ends."""
    said = []
    for line in chart.lines:
        (start, before), (end, after) = line.points[0], line.points[-1]
        begins = f"{line.label}: {shown(before, chart.percent)} at step {start:g}"
        said.append(begins if start == end else f"{begins}, {shown(after, chart.percent)} at step {end:g}")
    return f"{chart.title}. {'; '.join(said)}."


def shown(value: float, percent: bool = False) -> str:
    """A value at three digits, with a true minus."""
    text = f"{100 * value:.3g} %" if percent else _digits(value)
    return text.replace("-", "−")


def _digits(value: float) -> str:
    if 0.5 < abs(value) < 2 and abs(value - round(value)) < 0.01:  # a ratio: its digits are far behind
        return f"{value:.6g}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _thinned(line: Line) -> Line:
    """At most `MOST_POINTS` points: means of neighbours, or where there is a band single ones."""
    if len(line.points) <= MOST_POINTS:
        return line
    if line.band:
        return Line(line.label, line.look, evenly(line.points, MOST_POINTS), evenly(line.band, MOST_POINTS))
    size = math.ceil(len(line.points) / MOST_POINTS)
    chunks = [line.points[start : start + size] for start in range(0, len(line.points), size)]
    return Line(line.label, line.look, [(_mean(x for x, _ in c), _mean(y for _, y in c)) for c in chunks])


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spread from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def _value_range(chart: Chart, lines: Sequence[Line]) -> tuple[float, float, list[float]]:
    values = [y for line in lines for _, y in line.points]
    values += [end for line in lines for _, *ends in line.band for end in ends]
    low, high = min(values), max(values)
    if chart.whole:
        low, high = 0.0, 1.0
    elif chart.zero and low >= 0:
        low = 0.0
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        spread = abs(high) * 0.1 or 1.0
        low, high = low - (0 if chart.zero and low == 0 else spread), high + spread
    step = _tick_step((high - low) / TICKS)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, last * step, [k * step for k in range(first, last + 1)]


def _tick_step(least: float) -> float:
    """The next of 1, 2, 5, 10, 20, … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= least * (1 - 1e-9))


def _grid(chart: Chart, x: _Scale, y: _Scale, ticks: Sequence[float]) -> list[Markup]:
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    parts = []
    for tick in ticks:
        label = _tick_label(tick, decimals, chart.percent)
        parts.append(
            Markup(
                '<path class="grid" d="M{} {}H{}"/><text class="tick" x="{}" y="{}" dy=".32em">{}</text>'
            ).format(LEFT, y(tick), WIDTH - RIGHT, LEFT - 6, y(tick), label)
        )
    for step in _step_ticks(x.low, x.high):
        parts.append(
            Markup('<text class="tick step" x="{}" y="{}">{}</text>').format(
                x(step), HEIGHT - BOTTOM + 14, step
            )
        )
    parts.append(
        Markup('<text class="tick step" x="{}" y="{}">step</text>').format(
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3
        )
    )
    return parts


def _tick_label(tick: float, decimals: int, percent: bool) -> str:
    if percent:
        text = f"{100 * tick:.{max(0, decimals - 2)}f} %"
    elif decimals > 6 or abs(tick) >= 1e6:
        text = f"{tick:.2g}"
    else:
        text = f"{tick:.{decimals}f}"
    return ("0" if tick == 0 and not percent else text).replace("-", "−")


def _step_ticks(first: float, last: float) -> list[int]:
    step = max(1, int(_tick_step((last - first) / TICKS)))
    return list(range(-(-int(first) // step) * step, int(last) + 1, step))


def _drawn(line: Line, x: _Scale, y: _Scale) -> Markup:
    path = "M" + "L".join(f"{x(step)} {y(value)}" for step, value in line.points)
    parts = []
    if line.band:
        upper = [f"{x(step)} {y(high)}" for step, _, high in line.band]
        lower = [f"{x(step)} {y(low)}" for step, low, _ in reversed(line.band)]
        parts.append(Markup('<path class="band" d="M{}Z"/>').format("L".join([*upper, *lower])))
    parts.append(Markup('<path class="line" d="{}"/>').format(path))
    if len(line.points) <= FEW_POINTS:
        dots = (Markup('<circle cx="{}" cy="{}" r="2.6"/>').format(x(s), y(v)) for s, v in line.points)
        parts.extend(dots)
    return Markup('<g class="series {}">{}</g>').format(line.look, Markup("").join(parts))


def _hover(chart: Chart, lines: Sequence[Line], x: _Scale) -> list[Markup]:
    """An unseen column per step, that names the step and its values to who points at it."""
    values: dict[float, list[str]] = {}
    for line in lines:
        bands = {step: (low, high) for step, low, high in line.band}
        for step, value in line.points:
            said = f"{line.label} {shown(value, chart.percent)}"
            if step in bands:
                low, high = (shown(end, chart.percent) for end in bands[step])
                said += f" ({low} to {high})"
            values.setdefault(step, []).append(said)
    steps = sorted(values)
    edges = [x.low, *((a + b) / 2 for a, b in pairwise(steps)), x.high]
    columns = []
    for step, left, right in zip(steps, edges[:-1], edges[1:], strict=True):
        width = max(0.0, float(x(right)) - float(x(left)))
        columns.append(
            Markup('<rect class="hit" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                x(left),
                TOP,
                f"{width:.1f}",
                HEIGHT - TOP - BOTTOM,
                escape(f"step {step:g}: {'; '.join(values[step])}"),
            )
        )
    return columns
