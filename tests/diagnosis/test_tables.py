"""Tables and picture, promises: every figure stands in the row or panel of its own signal, scope and role."""

import io
import itertools
import xml.etree.ElementTree as ElementTree

from rich.console import Console

from actfocus.diagnosis.picture import correlation_words, draw_bottleneck
from actfocus.diagnosis.tables import correlation_table, gradient_table
from actfocus.focus.bottleneck import GroupMeans, RankCorrelation

SCOPES = ("all", "reasoning", "action")
ROLES = ("reasoning", "action", "other", "all")


def rows(table):
    """The cells of every row, as a terminal shows them."""
    terminal = io.StringIO()
    Console(file=terminal, width=200).print(table)
    lines = [line for line in terminal.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_correlations():
    number = itertools.count(1)
    correlations = {
        signal: {
            scope: {
                "rho": (n := next(number)) / 100,
                "low": -n / 50,
                "high": n / 20,
                "p": n / 1e3,
                "groups": 60 + n,
            }
            for scope in SCOPES
        }
        for signal in ("energy", "entropy")
    }
    correlations["entropy"]["action"] |= {"rho": None, "low": None, "high": None, "p": None}
    result = {
        "correlations": correlations,
        "tested": {"signal": "energy", "scope": "action"},
        "bootstrap": {"resamples": 5000},
    }
    assert rows(correlation_table(result)) == [
        ["energy", "all", "+0.01", "-0.02 to +0.05", "0.001", "61", "explored"],
        ["energy", "reasoning", "+0.02", "-0.04 to +0.10", "0.002", "62", "explored"],
        ["energy", "action", "+0.03", "-0.06 to +0.15", "0.003", "63", "the test"],
        ["entropy", "all", "+0.04", "-0.08 to +0.20", "0.004", "64", "explored"],
        ["entropy", "reasoning", "+0.05", "-0.10 to +0.25", "0.005", "65", "explored"],
        ["entropy", "action", "–", "–", "–", "66", "explored"],
    ]


def test_gradients():
    def part(n):
        share = None if n % 10 == 4 else n / 100
        return {"tokens": 100 * n, "total": n, "per_token": n / 10, "share": share, "signal_to_noise": n / 5}

    gradient = {
        "groups": 7,
        "focus": {"alpha": 0.1, "beta": 0.5, "signal": "energy", "other_weight": None},
        "before": {role: part(10 + n) for n, role in enumerate(ROLES, start=1)},
        "after": {role: part(20 + n) for n, role in enumerate(ROLES, start=1)},
    }
    assert rows(gradient_table(gradient)) == [
        ["reasoning", "before", "1,100", "11", "1.1", "11.0", "2.2"],
        ["", "after", "", "21", "2.1", "21.0", "4.2"],
        ["action", "before", "1,200", "12", "1.2", "12.0", "2.4"],
        ["", "after", "", "22", "2.2", "22.0", "4.4"],
        ["other", "before", "1,300", "13", "1.3", "13.0", "2.6"],
        ["", "after", "", "23", "2.3", "23.0", "4.6"],
        ["all", "before", "1,400", "14", "1.4", "", "2.8"],
        ["", "after", "", "24", "2.4", "", "4.8"],
    ]


def test_panels(tmp_path):
    """Beside each other: all, reasoning, action tokens, each over its own ρ and its own points."""
    found = {
        scope: RankCorrelation((n + 1) / 10, 0.5, n / 10, (n + 2) / 10, 50 + n, 5000)
        for n, scope in enumerate(SCOPES)
    }
    tables = {
        scope: GroupMeans(tuple(range(2 + n)), (0.5,) * (2 + n), tuple(-float(k) for k in range(2 + n)))
        for n, scope in enumerate(SCOPES)
    }
    draw_bottleneck(tables, found, "title", tmp_path)
    root = ElementTree.parse(tmp_path / "bottleneck.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    panels = [group for group in root.iter(f"{svg}g") if group.get("id", "").startswith("axes_")]
    assert len(panels) == 3
    for n, (scope, panel) in enumerate(zip(SCOPES, panels, strict=True)):
        said = "\n".join(text.strip() for text in panel.itertext() if text.strip())
        assert (
            correlation_words(found[scope]) in said
            and (scope in said)
            and not set(SCOPES[n + 1 :]) & set(said.split())
        )
        points = [each for each in panel.iter(f"{svg}g") if each.get("id", "").startswith("PathCollection")]
        assert sum(len(list(each.iter(f"{svg}use"))) for each in points) == 2 + n
