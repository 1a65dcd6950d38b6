"""Records and groups, promises: a run directory is read as it is, torn ends and damage included; runs compare
only if nothing but seed and weights differs, and the keys that differ are named."""

import json

import pytest

from actfocus.compare.records import arms_of, find_runs, group_runs, read_run
from actfocus.config import FocusConfig
from actfocus.errors import RunError
from tests.compare.by_hand import ENVIRONMENT, UNIFORM, make_run, settings


def test_figures_of_a_run(tmp_path):
    seconds = [{"step": 5.0, "evaluation": 2.0}, {"step": 4.0, "evaluation": 1.5}]
    run = read_run(make_run(tmp_path / "r", settings(seed=3), [0.25, 0.75, 0.5], seconds=seconds, memory=7))
    assert (run.arm, run.config.seed, run.episodes) == ("actfocus", 3, 64)
    assert (run.before, run.final, run.peak, run.finished) == (0.25, 0.5, 0.75, True)
    assert (run.seconds, run.step_seconds, run.evaluation_seconds, run.peak_memory) == (9.0, 2.75, 1.75, 7)
    assert run.environment == ENVIRONMENT


def test_an_unfinished_run_and_a_torn_line(tmp_path):
    path = make_run(tmp_path / "r", settings(), [0.25, 0.5])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "evaluation": {"succ')
    run = read_run(path)
    assert (run.step, run.last_step, run.finished) == (1, 1, False)
    empty = read_run(make_run(tmp_path / "e", settings(), []))
    assert (empty.step, empty.before, empty.finished, empty.step_seconds) == (-1, None, False, None)


@pytest.mark.parametrize(
    "evaluation",
    [
        {},
        {"success": None},
        {"success": 1.5},
        {"success": True},
        {"success": float("nan")},
        {"success": 1},
        3,
    ],
)
def test_damage_is_named(tmp_path, evaluation):
    path = make_run(tmp_path / "r", settings(), [0.25])
    (path / "metrics.jsonl").write_text(json.dumps({"step": 4, "evaluation": evaluation}) + "\n")
    with pytest.raises(RunError, match=r"metrics.jsonl is damaged: step 4"):
        read_run(path)


def test_what_a_run_went_on_with_is_a_part_of_it(tmp_path):
    later = [{"torch": "2.14.0", "python": "3.12.0"}, {"torch": "2.15.0", "numpy": "2.4"}]
    path = make_run(tmp_path / "r", settings(), [0.25], environment=ENVIRONMENT | {"resumed": later})
    expected = {"torch": "2.13.0, then 2.14.0, then 2.15.0", "python": "3.11.7, then 3.12.0"}
    expected["numpy"] = "unknown, then 2.4"  # a version that began to record it
    assert read_run(path).environment == ENVIRONMENT | expected


def test_other_damage(tmp_path):
    path = make_run(tmp_path / "r", settings(), [0.25])
    (path / "environment.json").write_text("{")
    with pytest.raises(RunError, match=r"environment.json is damaged"):
        read_run(path)
    (path / "config.toml").write_text("steps = 'x'")
    with pytest.raises(RunError, match=r"config.toml is damaged"):
        read_run(path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("metrics.jsonl", b"[]\n", "a line has no step"),
        ("metrics.jsonl", b'{"step": "x"}\n', "a line has no step"),
        ("metrics.jsonl", b"\xff\xfe\n", "metrics.jsonl is damaged"),
        ("timing.jsonl", b'{"step": 1, "seconds": {"step": NaN}}\n', "step of step 1 is nan"),
        ("timing.jsonl", b'{"step": 1, "peak_memory_bytes": "x"}\n', "peak_memory_bytes of step 1 is 'x'"),
    ],
)
def test_damaged_lines(tmp_path, name, text, said):
    path = make_run(tmp_path / "r", settings(), [0.25])
    (path / name).write_bytes(text)
    with pytest.raises(RunError, match=f"{name} is damaged") as error:
        read_run(path)
    assert said in str(error.value)


def test_lost_evaluations_are_named(tmp_path):
    path = make_run(tmp_path / "r", settings(), [0.25, 0.75, 0.5])
    first, _, last = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text(first + last)  # its peak would be that of fewer evaluations
    with pytest.raises(RunError, match=r"metrics.jsonl is damaged: evaluations should be of steps 0, 1, 2"):
        read_run(path)


def test_runs_are_found_in_folders(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / "table" / name, settings(), [0.5])
    (tmp_path / "table" / "a.log").write_text("")
    make_run(tmp_path / "compared" / "runs" / "c", settings(), [0.5])
    for folder in ("table", "compared/runs"):  # killed while it was made
        make_run(tmp_path / folder / ".d.123.partial", settings(), [])
    found = find_runs([tmp_path / "table" / "b", tmp_path / "table", tmp_path / "compared"])
    assert [path.name for path in found] == ["b", "a", "c"]
    for wrong in ("missing", "table/a.log"):
        with pytest.raises(RunError, match="there is no run directory"):
            find_runs([tmp_path / wrong])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds none"):
        find_runs([tmp_path / "empty"])


def read(tmp_path, **configs):
    return [
        read_run(make_run(tmp_path / name, config, [0.5] * (config.steps + 1)))
        for name, config in configs.items()
    ]


def test_groups(tmp_path):
    records = read(
        tmp_path,
        a=settings(UNIFORM),
        b=settings(UNIFORM, 1),
        c=settings(),
        d=settings(env={"name": "sokoban"}),
        e=settings(FocusConfig(alpha=0.3, signal="nll")),
    )
    lake, sokoban = group_runs(records)
    assert {arm: list(runs) for arm, runs in lake.runs.items()} == {
        "uniform": [0, 1], "actfocus": [0], "alpha0.3-nll": [0],
    }  # fmt: skip
    assert (sokoban.env, sokoban.algorithm, list(sokoban.runs)) == ("sokoban", "grpo", ["actfocus"])


def test_uniform_comes_first_whatever_its_name(tmp_path):
    records = [read_run(make_run(tmp_path / "a", settings(), [0.5] * 3))]
    records.append(read_run(make_run(tmp_path / "b", settings(UNIFORM), [0.5] * 3), "plain"))
    assert [arm.name for arm in arms_of(group_runs(records))] == ["plain", "actfocus"]


def test_mixed_settings_are_refused_by_key(tmp_path):
    records = read(tmp_path, a=settings(UNIFORM), b=settings(rollout={"group": 4}, steps=3))
    with pytest.raises(RunError, match=r"a and .*b do not compare: they differ in rollout.group, steps"):
        group_runs(records)


def test_other_starting_weights_are_refused(tmp_path):
    make_run(tmp_path / "a", settings(UNIFORM), [0.5] * 3)
    make_run(tmp_path / "b", settings(), [0.5] * 3, environment=ENVIRONMENT | {"initial_weights": "other"})
    with pytest.raises(RunError, match="different weights of tiny"):
        group_runs([read_run(tmp_path / name) for name in "ab"])


def test_the_same_seed_twice_is_refused(tmp_path):
    records = read(tmp_path, a=settings(), b=settings(FocusConfig(other_weight=0.1)))
    with pytest.raises(RunError, match=r"same arm \(actfocus\) and seed"):
        group_runs(records)


def test_learning_rates_must_be_in_every_arm(tmp_path):
    slow, fast = {"lr": 1e-4}, {"lr": 1e-3}
    uneven = read(tmp_path, a=settings(UNIFORM, optimizer=slow), b=settings(optimizer=fast))
    with pytest.raises(RunError, match=r"they differ in optimizer.lr"):
        group_runs(uneven)
    assert len(group_runs(uneven, lr_varies=True)) == 2  # half of a sweep of ours, by plan
    even = uneven + read(tmp_path, c=settings(UNIFORM, optimizer=fast), d=settings(optimizer=slow))
    assert [(group.lr, sorted(group.runs)) for group in group_runs(even)] == [
        (1e-4, ["actfocus", "uniform"]),
        (1e-3, ["actfocus", "uniform"]),
    ]
