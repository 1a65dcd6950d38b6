"""Cost, promises: what is left is counted; seconds come from runs whose settings cost the same, else from
what is declared, else they are unknown and said to be; memory limits the processes."""

import pytest

from actfocus.compare.estimate import (
    PROCESS_BYTES,
    START_SECONDS,
    cost,
    evaluations_left,
    free_memory,
    jobs_that_fit,
    memory_of_a_run,
)
from actfocus.compare.grid import Cell
from actfocus.compare.records import read_run
from tests.compare.by_hand import UNIFORM, make_run, settings

SECONDS = [{"step": 3.0, "evaluation": 1.0}, {"step": 3.0, "evaluation": 1.0}]


def test_what_is_left_is_counted(directory, cells):
    make_run(directory.run_path(cells[0]), cells[0].config, [0.1, 0.2, 0.3], seconds=SECONDS)
    begun = make_run(directory.run_path(cells[1]), cells[1].config, [0.1, 0.2], seconds=SECONDS)
    (begun / "checkpoints" / "step_1").mkdir(parents=True)
    records = {cell.name: read_run(directory.run_path(cell), cell.arm) for cell in cells[:2]}
    found = cost(directory, cells, records, jobs=2)
    assert {key: found[key] for key in ("runs", "done", "to_resume", "to_start", "steps_left")} == {
        "runs": 4, "done": 1, "to_resume": 1, "to_start": 2, "steps_left": 5,
    }  # fmt: skip
    # A step takes 2 seconds, an evaluation 1: one of each, then twice two steps and three evaluations.
    each = [START_SECONDS + 3, START_SECONDS + 7, START_SECONDS + 7]
    assert found["seconds_of_processes"] == pytest.approx(sum(each))
    assert found["seconds"] == pytest.approx(each[0] + each[2])  # as soon as the first is done
    assert found["seconds_from"] == ["this directory's runs"] and not found["seconds_unknown_for"]
    # A run goes on from its checkpoint, not from its last line.
    (begun / "checkpoints" / "step_1").rmdir()
    anew = cost(directory, cells, records, jobs=2)
    assert (anew["to_resume"], anew["steps_left"]) == (1, 6)
    assert anew["seconds_of_processes"] == pytest.approx(3 * (START_SECONDS + 7))


def test_a_damaged_run_is_one_to_start(directory, cells):
    broken = make_run(directory.run_path(cells[0]), cells[0].config, [0.1, 0.2, 0.3])
    (broken / "metrics.jsonl").write_text("{\n")
    assert cost(directory, cells, {}, jobs=2)["to_start"] == 4


def test_what_is_not_known_is_said(cells, tmp_path):
    found = cost(None, cells, {}, jobs=2)
    assert found["seconds"] is None and found["seconds_unknown_for"] == ["frozen-lake, grpo"]
    declared = cost(None, cells, {}, jobs=1, step_seconds=5)
    assert declared["seconds"] == pytest.approx(4 * (START_SECONDS + 10))
    assert declared["seconds_from"] == ["--step-seconds"]
    other = read_run(make_run(tmp_path / "other", settings(), [0.1, 0.2, 0.3]))
    assert (
        cost(None, cells, {}, jobs=1, others=[other])["seconds"] is None
    )  # its settings cost something else
    same = read_run(make_run(tmp_path / "same", cells[0].config, [0.1, 0.2, 0.3], seconds=SECONDS))
    assert cost(None, cells, {}, jobs=1, others=[same])["seconds_from"] == ["the runs of --timing"]


@pytest.mark.parametrize(("after", "left"), [(-1, 4), (0, 3), (4, 2), (5, 2), (8, 1), (10, 0)])
def test_evaluations_left(after, left):
    assert evaluations_left(settings(steps=10, evaluation={"every": 4}), after) == left


def test_memory(directory, cells):
    assert memory_of_a_run(cells, [], lambda config: 100) == (100 + PROCESS_BYTES, "estimated")
    need, why = memory_of_a_run(cells, [], lambda config: None)
    assert need is None and "not at hand" in why
    # Uniform needs no reference, and what has not trained has not held what training holds.
    plain, focused = Cell("u", "uniform", settings(UNIFORM)), Cell("f", "actfocus", settings())
    known = [read_run(make_run(directory.run_path(plain), plain.config, [0.1] * 3, memory=7))]
    known.append(read_run(make_run(directory.path / "begun", settings(seed=1), [0.1], memory=5)))
    found = memory_of_a_run([plain, focused], known, lambda config: 100)
    assert found == (100 + PROCESS_BYTES, "estimated and measured")
    known.append(read_run(make_run(directory.run_path(focused), focused.config, [0.1] * 3, memory=9)))
    assert memory_of_a_run([plain, focused], known, lambda config: 1 / 0) == (9, "measured")


def test_jobs_that_fit(tmp_path):
    assert [jobs_that_fit(need, 10, 4) for need in (1, 3, 5, 11)] == [4, 3, 2, 1]
    assert jobs_that_fit(None, 10, 4) == jobs_that_fit(3, None, 4) == 4
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   3 kB\n")
    assert free_memory(tmp_path / "meminfo") == 3072
    assert free_memory(tmp_path / "missing") is None
