"""The report of a run, promises:

1. It says what came of the run, and whether it finished, goes on, or broke.
2. Curves are of the figures that the metrics hold; what a run lacks is left out.
3. What it cost is added up from the times of the steps.
"""

import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from actfocus.config import Config
from actfocus.report.summary.chart import MOST_POINTS, Chart, Line, draw
from actfocus.report.summary.cost import cost
from actfocus.report.summary.curves import curves
from actfocus.report.summary.headline import arm_words, headline
from actfocus.report.summary.page import write_report
from actfocus.report.summary.record import read_record
from tests.report.summary.runs import make, metrics_of, page, write_lines
from tests.report.viewer.runs import write_run

# What came of it. ----------------------------------------------------------------------------------------


def test_the_headline_is_that_of_the_metrics(tmp_path: Path) -> None:
    found = headline(read_record(make(tmp_path / "r")))
    assert [found[name]["step"] for name in ("before", "peak", "final")] == [0, 2, 4]
    assert [found[name]["success"] for name in ("before", "peak", "final")] == [0.25, 0.75, 0.5]
    assert (found["final"]["low"], found["final"]["high"]) == (0.4, 0.6)
    assert (found["gain"], found["steps"], found["seconds"]) == (0.25, 4, 32.0)
    assert found["state"] == "finished" and found["warnings"] == []


@pytest.mark.parametrize(
    ("focus", "words"),
    [
        ({}, "ActFocus: α 0.1, β 0.5, signal energy"),
        ({"alpha": 1.0, "beta": 0.0}, "Uniform: α 1, β 0"),
        ({"alpha": 0.3, "signal": "nll", "other_weight": 1.0}, "α 0.3, β 0.5, signal nll, other 1"),
    ],
)
def test_the_arm_in_words(focus: dict[str, Any], words: str) -> None:
    assert arm_words(Config.model_validate({"focus": focus}).focus) == words


def test_an_unfinished_run_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    run = make(tmp_path / "r", metrics=metrics_of(4)[:4])
    text = page(run)
    assert "Unfinished: 3 of 4 steps are recorded." in text and "actfocus train --resume RUN" in text
    assert "Success so far, step 2" in text and "3 of 4" in text


def test_a_run_that_broke_says_where_its_batch_is(tmp_path: Path) -> None:
    run = make(tmp_path / "r", metrics=metrics_of(4)[:3])
    (run / "failed").mkdir()
    (run / "failed" / "step_3.jsonl.gz").write_bytes(gzip.compress(b""))
    text = page(run)
    assert "Stopped in step 3 of 4: a figure was not finite" in text and "failed/step_3.jsonl.gz" in text
    # A run that got past it since goes on, or is finished.
    write_lines(run, "metrics.jsonl", metrics_of(4)[:4])
    assert headline(read_record(run))["state"] == "unfinished"
    write_lines(run, "metrics.jsonl", metrics_of(4))
    assert headline(read_record(run))["state"] == "finished"


def test_a_run_without_a_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {}, config=Config(steps=4))
    summary = write_report(run)
    assert (summary["state"], summary["steps"], summary["trajectories"]) == ("unfinished", 0, [])
    text = (run / "report.html").read_text()
    for words in ("nothing is recorded yet of 4 steps", "No step is recorded yet", "No step was timed"):
        assert words in text


def test_what_went_wrong_without_stopping_the_run_is_a_warning(tmp_path: Path) -> None:
    lines = metrics_of(4)
    lines[1] |= {"skipped_updates": 2.0, "cut_by_context": 3}
    lines[2] |= {"skipped_updates": 1.0, "cut_by_context": float("nan")}
    warnings = headline(read_record(make(tmp_path / "r", metrics=lines)))["warnings"]
    assert warnings[0].startswith("3 updates were skipped")
    assert warnings[1].startswith("3 training episodes ended because the context was full")


# Curves. -------------------------------------------------------------------------------------------------


def charts(run: Path) -> dict[str, Chart]:
    return {chart.title: chart for chart in curves(read_record(run))}


def test_curves_hold_the_figures_of_the_metrics(tmp_path: Path) -> None:
    found = charts(make(tmp_path / "r"))
    training, evaluated = found["Success"].lines
    assert training.points == [(1, 0.3), (2, 0.3), (3, 0.3), (4, 0.3)]
    assert evaluated.points == [(0, 0.25), (2, 0.75), (4, 0.5)]
    assert evaluated.band == [(0, 0.15, 0.35), (2, 0.65, 0.85), (4, 0.4, 0.6)]
    assert [line.points[-1] for line in found["Share of tokens"].lines] == [(4, 0.75), (4, 0.125), (4, 0.125)]
    # What an older or uniform run lacks is left out.
    assert list(found) == ["Success", "Return", "Policy loss", "Entropy", "Share of tokens", "Faulty replies"]


def test_curves_per_role(tmp_path: Path) -> None:
    lines = metrics_of(4)
    roles = ("reasoning", "action", "other")
    for line in lines[1:]:
        for key in ("clip_fraction", "ratio", "energy"):
            line |= {f"{key}_{role}": place + line["step"] for place, role in enumerate(roles)}
        line |= {"clip_fraction": 0.5, "ratio": 1.0, "weight_entropy": 0.9, "kl_loss": 0.1, "value_loss": 1.0}
        line |= {"grad_norm": 1.0, "critic_grad_norm": 2.0, "reply_tokens": 50.0, "problem_share": 0.1}
    shares = {"before": dict.fromkeys(roles, 0.25) | {"action": 0.5}, "after": {"action": 1.0}}
    lines[2]["gradient_share"] = {"groups": 4} | shares
    lines[3]["gradient_share"] = "nonsense"
    found = charts(make(tmp_path / "r", metrics=lines))
    assert [line.label for line in found["Clip fraction"].lines] == ["all", *roles]
    assert [line.label for line in found["Ratio"].lines] == ["all", *roles]
    assert {line.label: line.points[0] for line in found["Energy"].lines} == {
        "reasoning": (1, 1), "action": (1, 2), "other": (1, 3),
    }  # fmt: skip
    before, after = (found[f"Share of the gradient, {when} weighting"] for when in ("before", "after"))
    assert {line.label: line.points for line in before.lines} == {
        "reasoning": [(2, 0.25)], "action": [(2, 0.5)], "other": [(2, 0.25)],
    }  # fmt: skip
    assert {line.label: line.points for line in after.lines} == {"action": [(2, 1.0)]}
    assert len(found) == 16
    for chart in found.values():
        for line in chart.lines:
            assert line.label not in roles or line.look == line.label, "a role looks the same in every chart"


def test_a_chart_draws_values_where_they_belong() -> None:
    drawn = draw(Chart("T", "", [Line("a", "all", [(0, 0.0), (5, 1.0), (10, 0.5)])], whole=True), 0, 10)
    path = re.search(r'class="line" d="M([^"]*)"', drawn)
    assert path is not None
    points = [tuple(map(float, point.split())) for point in path[1].split("L")]
    assert points == [(52, 160), (200, 10), (348, 85)]
    assert re.findall(r"<title>([^<]*)</title>", drawn) == ["step 0: a 0", "step 5: a 1", "step 10: a 0.5"]
    assert 'aria-label="T. a: 0 at step 0, 0.5 at step 10."' in drawn
    assert "style=" not in drawn, "the Content-Security-Policy would drop it"


@pytest.mark.parametrize(
    "values", [[0.0], [5.0], [-3.0] * 3, [1e-9, 2e-9], [1e12, -1e12], [1.0, 1.0 + 1e-15]]
)
def test_a_chart_of_any_values_is_finite(values: list[float]) -> None:
    for settings in ({}, {"zero": True}, {"percent": True}):
        drawn = draw(
            Chart("T", "", [Line("a", "all", list(enumerate(values)))], **settings), 0, len(values) - 1
        )
        assert "nan" not in drawn and "inf" not in drawn
        assert 2 <= drawn.count('class="grid"') <= 9


def test_a_huge_step_takes_no_time() -> None:
    line = Line("a", "all", [(0, 0.0), (9 * 10**15, 1.0)])
    assert draw(Chart("T", "", [line]), 0, 9 * 10**15).count("<text") < 20


def test_long_lines_are_thinned() -> None:
    points = [(step, float(step % 2)) for step in range(10_000)]
    drawn = draw(
        Chart("T", "", [Line("a", "all", points), Line("b", "all", points, [(s, 0, 1) for s, _ in points])]),
        0,
        9999,
    )
    for path in re.findall(r'class="line" d="M([^"]*)"', drawn):
        assert len(path.split("L")) <= MOST_POINTS
    assert len(drawn) < 60_000


# Cost. ---------------------------------------------------------------------------------------------------


def test_cost(tmp_path: Path) -> None:
    found = cost(read_record(make(tmp_path / "r")))
    rows = {row["part"]: (row["mean"], row["share"], row["seconds"]) for row in found["parts"]}
    assert rows == {
        "rollout": (4, 0.5, 16),
        "score": (1, 0.125, 4),
        "update": (2, 0.25, 8),
        "the rest": (1, 0.125, 4),
    }
    assert (found["seconds"], found["sampled_tokens"]) == (32, 4000)
    assert (found["tokens_per_second"], found["tokens_per_rollout_second"]) == (125, 250)
    assert found["peak_memory_bytes"] == 3 * 2**30
