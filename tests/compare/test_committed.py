"""Committed comparisons, promise: the report says what the committed runs say."""

import json
from pathlib import Path

import pytest

from actfocus.compare.records import find_runs, read_run

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize("name", ["grid", "sweep"])
def test_the_report_is_that_of_the_runs_beside_it(name):
    folder = RESULTS / name
    found = {}
    for path in find_runs([folder / "runs"]):
        run = read_run(path)
        config = run.config
        found[config.env.name, config.algorithm.name, run.arm, config.seed] = run.points[-1].success
    reported = {
        (comparison["env"], comparison["algorithm"], name, seed): final
        for comparison in json.loads((folder / "report.json").read_text())["comparisons"]
        for name, arm in comparison["arms"].items()
        for seed, final in zip(arm["seeds"], arm["each"]["final"], strict=True)
    }
    assert reported == found != {}
