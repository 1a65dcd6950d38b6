"""The committed grid, promise: its report says what the committed runs say."""

import json
from pathlib import Path

from actfocus.compare.records import find_runs, read_run

GRID = Path(__file__).parents[2] / "benchmarks" / "results" / "grid"


def test_the_report_is_that_of_the_runs_beside_it():
    found = {}
    for path in find_runs([GRID / "runs"]):
        run = read_run(path)
        config = run.config
        found[config.env.name, config.algorithm.name, run.arm, config.seed] = run.points[-1].success
    reported = {
        (comparison["env"], comparison["algorithm"], name, seed): final
        for comparison in json.loads((GRID / "report.json").read_text())["comparisons"]
        for name, arm in comparison["arms"].items()
        for seed, final in zip(arm["seeds"], arm["each"]["final"], strict=True)
    }
    assert reported == found
