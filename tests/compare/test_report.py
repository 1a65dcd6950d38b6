"""Reports, promises: known runs give known figures and words; a verdict claims a difference only if its
interval lies on one side of zero; one or two seeds get no interval; pictures are there and valid."""

import json
import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from actfocus.compare import statistics
from actfocus.compare.arms import canonical, label
from actfocus.compare.publish import publish
from actfocus.compare.records import read_run
from actfocus.compare.sweeps import find_sweeps
from actfocus.compare.verdict import points, verdict
from actfocus.config import FocusConfig
from actfocus.errors import RunError
from tests.compare import oracle
from tests.compare.by_hand import UNIFORM, make_run, settings

# Success after each evaluation, seeds 0 to 4.
LAKE = {
    "uniform": [[0.25, 0.5, 0.5], [0.25, 0.75, 0.625], [0.25] * 3, [0.25, 0.5, 0.375], [0.25, 0.5, 0.5]],
    "actfocus": [[0.25, 0.5, 0.75], [0.25, 1, 0.875], [0.25, 0.5, 0.625], [0.25, 0.5, 0.5], [0.25, 1, 0.75]],
}  # fmt: skip
FOCUS = {"uniform": UNIFORM, "actfocus": FocusConfig()}


def make(folder, table, focuses=FOCUS, **changes):
    records = {}
    for arm, seeds in table.items():
        for seed, success in enumerate(seeds):
            config = settings(focuses[arm], seed, **changes)
            name = f"{config.env.name}-{config.algorithm.name}-{config.optimizer.lr}-{arm}-{seed}"
            records[name] = read_run(make_run(folder / "runs" / name, config, success), arm)
    return records


def report_of(folder, records, **options):
    given = {"commands": ["actfocus compare --out x"], "failed": {}} | options
    return publish(folder, records, **given)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake")
    return folder, report_of(folder, make(folder, LAKE), failed={"gone-7": "loss is | not finite"}, jobs=2)


def test_known_figures(lake):
    (comparison,) = lake[1]["comparisons"]
    uniform, actfocus = comparison["arms"]["uniform"], comparison["arms"]["actfocus"]
    assert uniform["final_mean"]["value"] == pytest.approx(0.45)
    assert uniform["final_iqm"]["value"] == pytest.approx((0.375 + 0.5 + 0.5) / 3)
    assert uniform["peak_mean"]["value"] == pytest.approx(0.5)
    assert uniform["drop_mean"]["value"] == pytest.approx(0.05)
    assert (uniform["before"], uniform["seeds"]) == (0.25, [0, 1, 2, 3, 4])
    assert (actfocus["seconds_per_run"], actfocus["seconds_per_step"]) == (6.0, 2.0)
    assert actfocus["peak_memory_bytes"] == 2**30
    row = comparison["against_base"]["actfocus"]
    assert row["final_difference"]["each"] == [[0.25, 0.25, 0.375, 0.125, 0.25]]
    assert row["pairs"] == [5]
    assert row["final_improvement"]["value"] == pytest.approx(22.5 / 25)
    assert comparison["curves"]["uniform"]["steps"] == [0, 1, 2]
    assert comparison["curves"]["uniform"]["mean"] == pytest.approx([0.25, 0.5, 0.45])
    assert comparison["curves"]["uniform"]["low"][0] is None  # all seeds start alike


def test_intervals_are_the_oracles(lake):
    (comparison,) = lake[1]["comparisons"]
    stream = "frozen-lake grpo 1e-06"
    indices = [statistics.resample_indices(5, stream).tolist()]
    for arm, seeds in LAKE.items():
        final = [[success[-1] for success in seeds]]
        for key, statistic in [
            ("final_mean", oracle.mean_of_strata),
            ("final_iqm", oracle.interquartile_mean),
        ]:
            found = comparison["arms"][arm][key]
            expected = oracle.bootstrap(final, indices, statistic)
            assert (found["low"], found["high"]) == pytest.approx(expected, abs=1e-9)
    difference = comparison["against_base"]["actfocus"]["final_difference"]
    each = [[0.25, 0.25, 0.375, 0.125, 0.25]]
    assert (difference["bootstrap"]["low"], difference["bootstrap"]["high"]) == pytest.approx(
        oracle.bootstrap(each, indices, oracle.mean_of_strata), abs=1e-9
    )
    assert (difference["student"]["low"], difference["student"]["high"]) == pytest.approx(
        oracle.student(each), abs=1e-9
    )


def test_the_words(lake):
    folder, report = lake
    text = (folder / "report.md").read_text()
    # 0.25 ± 2.776445 · 0.0883883 / √5
    said = "higher by 25.0 points: interval +14.0 to +36.0 points, 5 pairs"
    assert f"frozen-lake, grpo: actfocus against uniform: {said}" in text
    assert "| uniform | 5 | 25.0 | 45.0 [" in text
    assert "gone-7: loss is \\| not finite" in text
    assert "10,000 times from bootstrap seed 2021" in text and "actfocus compare --out x" in text
    assert "torch 2.13.0" in text and "2 runs at once" in text and "Seeds: 0, 1, 2, 3, 4" in text
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))
    assert "nan" not in text.lower()


def test_pictures_are_valid(lake):
    folder, report = lake
    assert set(report["pictures"]) == {"difference", "final", "learning_curves"}
    for name in report["pictures"]:
        png = (folder / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert png[:8] == b"\x89PNG\r\n\x1a\n" and png.rstrip(b"\x00")[-8:-4] == b"IEND"
        assert width > 400 and height > 200
        root = ElementTree.fromstring((folder / f"{name}.svg").read_text())
        assert root.tag.endswith("svg")
        assert "actfocus" in "".join(root.itertext())
        assert f"({name}.png)" in (folder / "report.md").read_text()


def test_the_same_runs_give_the_same_bytes(lake):
    folder, _ = lake
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    records = {path.name: read_run(path) for path in (folder / "runs").iterdir()}
    # In any order: here the last seeds come first.
    order = sorted(records, key=lambda name: (records[name].arm != "uniform", -records[name].config.seed))
    again = {name: records[name] for name in order}
    report_of(folder, again, failed={"gone-7": "loss is | not finite"}, jobs=2)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert before == after


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_seeds(tmp_path, count):
    table = {arm: seeds[:count] for arm, seeds in LAKE.items()}
    report = report_of(tmp_path, make(tmp_path, table))
    (comparison,) = report["comparisons"]
    row = comparison["against_base"]["actfocus"]
    assert row["verdict"]["claim"] == "unknown" and row["verdict"]["low"] is None
    assert f"{count} pair" in row["verdict"]["text"] and "needs 3" in row["verdict"]["text"]
    assert comparison["arms"]["uniform"]["final_mean"]["low"] is None
    text = (tmp_path / "report.md").read_text()
    assert "no verdict" in text and "[" not in text.split("| success")[1].split("## How")[0]


def test_pairs_are_equal_seeds_only(tmp_path):
    records = make(tmp_path, LAKE)
    records = {name: run for name, run in records.items() if not name.endswith("uniform-1")}
    row = report_of(tmp_path, records)["comparisons"][0]["against_base"]["actfocus"]
    assert (row["pairs"], row["seeds"]) == ([4], [[0, 2, 3, 4]])
    assert row["final_difference"]["each"] == [[0.25, 0.375, 0.125, 0.25]]


def test_without_uniform_nothing_is_compared(tmp_path):
    report = report_of(tmp_path, make(tmp_path, {"actfocus": LAKE["actfocus"]}))
    assert report["base"] is None
    assert "no arm has the weights of Uniform" in (tmp_path / "report.md").read_text()


def test_unfinished_runs_are_named_and_left_out(tmp_path):
    records = make(tmp_path, LAKE)
    short = make_run(tmp_path / "runs" / "short", settings(seed=9), [0.25, 0.5])
    report = report_of(tmp_path, records | {"short": read_run(short)})
    assert report["unfinished"] == {"short": "step 1 of 2"} and report["runs"] == 10
    assert "- short: step 1 of 2" in (tmp_path / "report.md").read_text()
    with pytest.raises(RunError, match=r"no run is finished.*short: step 1 of 2"):
        report_of(tmp_path, {"short": read_run(short)})


def test_a_failed_run_is_in_no_figure(tmp_path):
    records = make(tmp_path, LAKE)
    name = next(name for name in records if name.endswith("uniform-1"))
    report = report_of(tmp_path, records, failed={name: "no checkpoint"})
    assert report["runs"] == 9
    assert report["comparisons"][0]["arms"]["uniform"]["seeds"] == [0, 2, 3, 4]


def test_runs_that_have_not_begun_are_named(tmp_path):
    report = report_of(tmp_path, make(tmp_path, LAKE), missing=["a-7", "gone-7"], failed={"gone-7": "x"})
    assert report["unfinished"] == {"a-7": "not begun"}
    assert "- a-7: not begun" in (tmp_path / "report.md").read_text()


def test_runs_that_were_not_made_alike_are_said_to_be(tmp_path):
    records = make(tmp_path, LAKE)
    assert report_of(tmp_path, records)["not_alike"] == {}
    for name, run in records.items():
        if run.arm == "actfocus":
            records[name] = replace(run, environment=run.environment | {"torch": "2.14.0", "threads": 1})
    report = report_of(tmp_path, records)
    assert report["not_alike"] == {
        "torch": {"2.13.0": ["uniform"], "2.14.0": ["actfocus"]},
        "threads": {"1": ["actfocus"], "unknown": ["uniform"]},
    }
    text = (tmp_path / "report.md").read_text()
    assert "**The runs were not made alike.**" in text
    assert "- torch: 2.13.0 (uniform); 2.14.0 (actfocus)" in text


def test_hostile_names_stay_words(tmp_path):
    name = "r\n# title\x1b[2J|<img src=x>"
    run = read_run(make_run(tmp_path / "runs" / "short", settings(seed=9), [0.25, 0.5]))
    report_of(tmp_path, make(tmp_path, LAKE) | {name: run}, failed={f"{name} 2": "\x1b]0;x"})
    text = (tmp_path / "report.md").read_text()
    assert "- r # title\\x1b[2J\\|&lt;img src=x>: step 1 of 2" in text
    assert "\x1b" not in text and "<img" not in text and "\n# title" not in text


def test_the_words_on_cost(lake):
    text = (lake[0] / "report.md").read_text()
    assert "Seconds a run: all training steps and the evaluations after them" in text
    assert "evaluation before training, checkpoints" in text and "Peak memory: the largest" in text


def test_strata_together(tmp_path):
    sokoban = {arm: [[share / 2 for share in run] for run in seeds[:3]] for arm, seeds in LAKE.items()}
    records = make(tmp_path, LAKE) | make(tmp_path, sokoban, env={"name": "sokoban"})
    (family,) = report_of(tmp_path, records)["together"]
    assert family["name"] == "grpo, 2 environments"
    final = [[s[-1] for s in LAKE["uniform"]], [s[-1] for s in sokoban["uniform"]]]
    arm = family["arms"]["uniform"]
    assert arm["runs"] == [5, 3]
    assert arm["final_mean"]["value"] == pytest.approx(oracle.mean_of_strata(final))
    assert arm["final_iqm"]["value"] == pytest.approx(oracle.interquartile_mean(final))
    indices = [
        statistics.resample_indices(n, f"{env} grpo 1e-06").tolist()
        for env, n in [("frozen-lake", 5), ("sokoban", 3)]
    ]
    low, high = oracle.bootstrap(final, indices, oracle.interquartile_mean)
    assert (arm["final_iqm"]["low"], arm["final_iqm"]["high"]) == pytest.approx((low, high), abs=1e-9)
    row = family["against_base"]["actfocus"]
    each = [[0.25, 0.25, 0.375, 0.125, 0.25], [0.125, 0.125, 0.1875]]
    student = row["final_difference"]["student"]
    assert (student["low"], student["high"]) == pytest.approx(oracle.student(each), abs=1e-9)
    assert "5 + 3 pairs" in row["verdict"]["text"]
    assert "Of 3 comparisons without any true difference, 0.15 or" in (tmp_path / "report.md").read_text()


def test_a_verdict_that_claims_nothing_is_no_comparison_of_many(tmp_path):
    # One interval, of FrozenLake: two seeds of Sokoban give none, nor do both together.
    sokoban = {arm: seeds[:2] for arm, seeds in LAKE.items()}
    report_of(tmp_path, make(tmp_path, LAKE) | make(tmp_path, sokoban, env={"name": "sokoban"}))
    text = (tmp_path / "report.md").read_text()
    assert text.count("an interval needs 3") > 1 and "without any true difference" not in text


def test_sweeps_are_found_and_drawn(tmp_path):
    focuses = FOCUS | {f"alpha{a:g}": FocusConfig(alpha=a) for a in (0, 0.3, 1)}
    focuses |= {f"beta{b:g}": FocusConfig(beta=b) for b in (0, 2)}
    report = report_of(tmp_path, make(tmp_path, {arm: LAKE["uniform"][:3] for arm in focuses}, focuses))
    arms = report["comparisons"][0]["arms"]
    (alpha,), (beta,) = find_sweeps(arms, "alpha"), find_sweeps(arms, "beta")
    assert alpha.arms == {0: "alpha0", 0.1: "actfocus", 0.3: "alpha0.3", 1: "alpha1"}
    assert beta.arms == {0: "beta0", 0.5: "actfocus", 2: "beta2"}
    assert (alpha.held, beta.held) == ("β = 0.5", "α = 0.1")
    assert {"sweep_alpha", "sweep_beta"} <= set(report["pictures"])
    # Equal runs: every pair differs by nothing, which is no proof of equality.
    assert "no verdict" in report["comparisons"][0]["against_base"]["alpha0"]["verdict"]["text"]


def test_a_sweep_of_alpha_goes_through_the_other_weight_that_it_holds():
    held = [FocusConfig(alpha=a, other_weight=1.0) for a in (0.1, 0.5)]
    arms = {label(focus): {"focus": canonical(focus).model_dump()} for focus in [*held, FocusConfig(alpha=1)]}
    (sweep,) = find_sweeps(arms, "alpha")
    assert sweep.arms == {0.1: "other1", 0.5: "alpha0.5-other1", 1: "alpha1"}
    assert sweep.held == "β = 0.5, other weight 1"


def test_a_run_without_times_is_in_no_mean_of_seconds(tmp_path):
    records = make(tmp_path, LAKE)
    records = {
        name: replace(run, seconds=0.0, step_seconds=None) if name.endswith("-0") else run
        for name, run in records.items()
    }
    (comparison,) = report_of(tmp_path, records)["comparisons"]
    assert comparison["arms"]["uniform"]["seconds_per_run"] == 6.0


def test_learning_rates(tmp_path):
    worse = {arm: [[share / 2 for share in run] for run in seeds] for arm, seeds in LAKE.items()}
    records = make(tmp_path, LAKE, optimizer={"lr": 1e-4})
    records |= make(tmp_path, worse, optimizer={"lr": 1e-3})
    report = report_of(tmp_path, records)
    (row,) = report["rates"]
    assert row["best"] == {"uniform": 1e-4, "actfocus": 1e-4}
    assert row["against_base"]["actfocus"]["verdict"]["claim"] == "unknown"
    assert [family["name"] for family in report["together"]] == []
    text = (tmp_path / "report.md").read_text()
    assert "## frozen-lake, grpo, learning rate 0.001" in text and "learning_rate" in report["pictures"]


def difference(values):
    arrays = [np.array(values)]
    return {
        "bootstrap": statistics.estimate(arrays, statistics.mean_of_strata, ["x"]).to_json(),
        "student": statistics.student(arrays).to_json(),
    }


@given(st.lists(st.integers(-64, 64).map(lambda n: n / 64), min_size=1, max_size=8))
@hypothesis_settings(deadline=None, max_examples=60)
def test_a_verdict_claims_no_more_than_both_intervals(values):
    found = difference(values)
    said = verdict(found, [len(values)])
    mirrored = verdict(difference([-value for value in values]), [len(values)])
    assert {said["claim"], mirrored["claim"]} in ({"higher", "lower"}, {"none"}, {"unknown"})
    if said["claim"] == "unknown":
        assert said["text"].startswith("no verdict") and said["low"] is None
        return
    low = min(found["bootstrap"]["low"], found["student"]["low"])
    high = max(found["bootstrap"]["high"], found["student"]["high"])
    assert (said["low"], said["high"]) == (low, high)
    assert said["claim"] == ("higher" if low > 0 else "lower" if high < 0 else "none")
    assert f"interval {points(low)} to {points(high)} points" in said["text"]
    assert ("no difference shown" in said["text"]) == (low <= 0 <= high)


def test_points_never_round_a_side_of_zero_away():
    assert [points(x) for x in (0.0, 0.05, -0.031, 0.0002, -0.00004, 1e-9)] == [
        "0.0", "+5.0", "−3.1", "+0.02", "−0.004", "0.0",
    ]  # fmt: skip
