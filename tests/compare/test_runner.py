"""Processes of a grid, promises: finished runs are skipped, unfinished ones resumed, failed ones named while
the rest goes on; no more run at once than may; an end of the comparison, whichever, ends every run and frees
its lock. What trains is played by `stand_in.py`; the real thing is in tests/cli/test_compare.py.
"""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from actfocus.compare.directory import Grid, is_busy
from actfocus.compare.grid import Cell
from actfocus.compare.runner import Runner, child_environment, last_words
from actfocus.report.progress import SilentProgress
from tests.compare.by_hand import make_run
from tests.compare.conftest import STAND_IN as STAND_IN_PATH

NAMES = [
    "frozen-lake-grpo-uniform-0", "frozen-lake-grpo-actfocus-0",
    "frozen-lake-grpo-uniform-1", "frozen-lake-grpo-actfocus-1",
]  # fmt: skip


class Notes(SilentProgress):
    def __init__(self):
        self.notes, self.advanced = [], 0

    def advance(self, figures):
        self.advanced += 1

    def note(self, text):
        self.notes.append(text)


def run(directory, cells, jobs=2):
    progress = Notes()
    return Runner(directory, jobs, progress).run(cells), progress


def pids(directory, cells):
    logs = [directory.log_path(cell) for cell in cells]
    return [int(log.read_text().split()[0]) for log in logs if log.exists() and log.read_text().strip()]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_all_are_run_once(stand_in, directory, cells):
    results, progress = run(directory, cells)
    assert (sorted(results.done), results.skipped, results.failed) == (sorted(NAMES), [], {})
    assert progress.advanced == 4 and f"started {NAMES[0]}" in progress.notes
    log = directory.log_path(cells[0]).read_text()
    assert f"--config {directory.config_path(cells[0])} --out {directory.run_path(cells[0])}" in log
    assert "threads 1" in log
    before = directory.run_path(cells[0]).joinpath("metrics.jsonl").read_bytes()
    results, progress = run(directory, cells)
    assert (results.done, results.skipped, progress.notes) == ([], NAMES, [])
    assert directory.run_path(cells[0]).joinpath("metrics.jsonl").read_bytes() == before


def test_an_unfinished_run_is_resumed(stand_in, directory, cells):
    make_run(directory.run_path(cells[1]), cells[1].config, [0.1, 0.2])
    # Its last evaluation is there, its last checkpoint is not.
    make_run(directory.run_path(cells[2]), cells[2].config, [0.1, 0.2, 0.3], checkpoint=False)
    (directory.run_path(cells[2]) / "checkpoints").mkdir()
    (directory.run_path(cells[1]) / "checkpoints").mkdir()
    results, progress = run(directory, cells)
    assert len(results.done) == 4 and not results.failed
    assert f"resumed {NAMES[1]}" in progress.notes and f"resumed {NAMES[2]}" in progress.notes
    assert directory.record(cells[1]).points[1].success == 0.2


def test_a_failing_run_is_named_and_the_rest_goes_on(stand_in, directory, cells):
    stand_in.setenv("STAND_IN_FAILS", "actfocus-0")
    results, progress = run(directory, cells, jobs=1)
    assert len(results.done) == 3
    assert results.failed == {NAMES[1]: "step 1 stopped before the update: the loss is not finite"}
    assert any(note.startswith(f"FAILED {NAMES[1]}") and ".log" in note for note in progress.notes)
    # Given again it is tried again, from where it was.
    stand_in.delenv("STAND_IN_FAILS")
    results, _ = run(directory, cells)
    assert (results.done, len(results.skipped)) == ([NAMES[1]], 3)


def test_a_run_with_other_settings_fails_alone(stand_in, directory, cells):
    other = cells[0].config.model_copy(update={"steps": 7})
    make_run(directory.run_path(cells[0]), other, [0.1])
    results, _ = run(directory, cells)
    assert len(results.done) == 3 and "other settings than the grid: steps" in results.failed[NAMES[0]]


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_at_once_than_may(stand_in, directory, cells, jobs):
    stand_in.setenv("STAND_IN_PACE", "0.3")
    seen = []
    runner = Runner(directory, jobs, SilentProgress())
    start = runner._start
    stand_in.setattr(runner, "_start", lambda cell: (start(cell), seen.append(len(runner._running))))
    assert len(runner.run(cells).done) == 4
    assert max(seen) == jobs


def test_control_c_ends_every_run(stand_in, directory, cells):
    stand_in.setenv("STAND_IN_PACE", "60")

    def interrupt():
        wait_until(lambda: len(pids(directory, cells)) == 2)
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(directory, cells)
    thread.join()
    assert time.monotonic() - began < 40
    assert "Traceback" not in directory.log_path(cells[0]).read_text()
    assert not any(map(alive, pids(directory, cells)))
    assert not any(is_busy(directory.run_path(cell)) for cell in cells)
    stand_in.setenv("STAND_IN_PACE", "0")
    assert len(run(directory, cells)[0].done) == 4


def test_a_kill_of_the_comparison_ends_every_run(stand_in, directory, cells):
    script = f"""
import sys
from pathlib import Path
from actfocus.compare import runner
from actfocus.compare.directory import CompareDirectory
from actfocus.report.progress import SilentProgress
runner.child_command = lambda words: [sys.executable, {str(STAND_IN_PATH)!r}, *words]
directory = CompareDirectory(Path({str(directory.path)!r}))
runner.Runner(directory, 2, SilentProgress()).run(directory.load().cells)
"""
    environment = os.environ | {"STAND_IN_PACE": "60"}
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment)
    wait_until(lambda: len(pids(directory, cells)) == 2)
    wait_until(lambda: any(is_busy(directory.run_path(cell)) for cell in cells))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    # At once: what the killed comparison left may still be ending.
    results, _ = run(directory, cells)
    assert len(results.done) == 4 and not results.failed


def test_a_lock_that_stays_is_reported(directory, cells, monkeypatch, stand_in):
    from actfocus.compare import runner
    from actfocus.run_directory import RunDirectory

    monkeypatch.setattr(runner, "BUSY_PATIENCE", 0.1)
    held = RunDirectory(make_run(directory.run_path(cells[0]), cells[0].config, [0.1]))
    with held.locked():
        results, progress = run(directory, cells)
    assert len(results.done) == 3 and list(results.failed) == [NAMES[0]]
    assert "being trained by another process" in results.failed[NAMES[0]]
    assert "waiting for runs that another process is ending" in progress.notes


def test_words_of_a_failure(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("old: actfocus: no\nactfocus: before\n")
    start = log.stat().st_size
    with log.open("a") as file:
        file.write("note\nactfocus: the model is gone\n\n")
    assert last_words(log, start, 2) == "the model is gone"
    assert last_words(log, 0, 2) == "the model is gone"
    log.write_text("Traceback\nValueError: x\n")
    assert last_words(log, 0, 1) == "exit code 1: ValueError: x"
    log.write_text("")
    assert last_words(log, 0, -9) == "killed by signal 9 (9 may mean out of memory)"


def test_words_of_a_failure_do_not_command_the_terminal(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("\x1b[2J\x1b]0;gone\x07 ValueError\n")
    assert last_words(log, 0, 1) == r"exit code 1: \x1b[2J\x1b]0;gone\x07 ValueError"


def test_a_run_whose_figures_are_lost_says_what_to_do(stand_in, directory, cells):
    assert len(run(directory, cells[:1])[0].done) == 1
    metrics = directory.run_path(cells[0]) / "metrics.jsonl"
    metrics.write_text("[]\n")
    said = run(directory, cells[:1])[0].failed[NAMES[0]]
    assert "metrics.jsonl is damaged" in said and f"move {directory.run_path(cells[0])} away" in said


def test_gpus_are_shared_in_turn(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert child_environment(2, ["4", "5"])["CUDA_VISIBLE_DEVICES"] == "4"
    assert child_environment(0, [])["CUDA_VISIBLE_DEVICES"] == "7"
    assert child_environment(0, [])["OMP_NUM_THREADS"] == "1"


def test_a_real_process_that_cannot_begin_is_named(directory, cells):
    gone = cells[0].config.model_copy(
        update={"model": cells[0].config.model.model_copy(update={"name": "./nowhere"})}
    )
    cell = Cell("gone", "uniform", gone)
    directory.save(Grid([cell], [], False, None))
    results, _ = run(directory, [cell], jobs=1)
    assert "nowhere" in results.failed["gone"] and "Traceback" not in results.failed["gone"]
    assert not directory.run_path(cell).exists()
