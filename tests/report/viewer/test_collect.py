"""Reading a run directory, promises: whatever is wrong is said, with the file and what to do, and what can be
read is shown; no tokenizer is ever looked for on the network.
"""

import gzip
import shutil
from pathlib import Path

import pytest

from actfocus.config import Config, ModelConfig
from actfocus.errors import RunError
from actfocus.report.viewer.collect import Follower, page_data
from tests.report.viewer.runs import small_step, write_run


@pytest.fixture
def notes() -> list[str]:
    return []


def data(path: Path, notes: list[str], **options):
    return page_data(path, note=notes.append, **options)


def test_all_steps_in_order(tmp_path, notes) -> None:
    run = write_run(tmp_path / "r", {step: small_step(step) for step in (10, 9, 2)})
    found = data(run, notes)
    assert [packed["step"] for packed in found["steps"]] == [2, 9, 10]
    assert [len(packed["episodes"]) for packed in found["steps"]] == [6, 6, 6]
    assert notes == [] and found["run"]["name"] == "r"
    assert [packed["step"] for packed in data(run, notes, step=9)["steps"]] == [9]
    with pytest.raises(RunError, match="no episodes of step 3; it has 2, 9, 10"):
        data(run, notes, step=3)


def test_a_limit_is_shared_among_the_steps(tmp_path, notes) -> None:
    run = write_run(tmp_path / "r", {step: small_step(step) for step in range(1, 6)})
    packed = data(run, notes, limit=15)["steps"]
    assert [len(each["episodes"]) for each in packed] == [3] * 5
    assert [each["recorded"] for each in packed] == [6] * 5
    assert [each["step"] for each in data(run, notes, limit=3)["steps"]] == [1, 3, 5]
    assert [each["step"] for each in data(run, notes, limit=1)["steps"]] == [5]


def test_no_run_and_no_episodes(tmp_path, notes) -> None:
    with pytest.raises(RunError, match=r"no config\.toml"):
        data(tmp_path / "none", notes)
    with pytest.raises(RunError, match="save_episodes_every is 10, so the first come with step 10"):
        data(write_run(tmp_path / "a", {}), notes)
    run = write_run(tmp_path / "b", {}, config=Config(save_episodes_every=0))
    with pytest.raises(RunError, match="--save-episodes-every 10"):
        data(run, notes)
    with pytest.raises(RunError, match="--save-episodes-every 10"):
        Follower(run)


@pytest.mark.parametrize("damage", ["truncated", "not gzip", "not UTF-8"])
def test_a_damaged_file_is_named_and_the_others_are_shown(damage, tmp_path, notes) -> None:
    run = write_run(tmp_path / "r", {1: small_step(1), 2: small_step(2)})
    path = run / "episodes" / "step_1.jsonl.gz"
    whole = path.read_bytes()
    content = {"truncated": whole[:-50], "not gzip": b"hello", "not UTF-8": gzip.compress(b"\xff\xfe\n")}[
        damage
    ]
    path.write_bytes(content)
    found = data(run, notes)
    assert [packed["step"] for packed in found["steps"]] == [2]
    assert len(notes) == 1 and str(path) in notes[0] and "damaged" in notes[0]
    assert found["notes"] == notes
    (run / "episodes" / "step_2.jsonl.gz").write_bytes(content)
    with pytest.raises(RunError, match=r"no recorded episode of .* can be read"):
        data(run, notes)


def test_a_damaged_line_is_named(tmp_path, notes) -> None:
    run = write_run(tmp_path / "r", {1: small_step(1)})
    path = run / "episodes" / "step_1.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines()
    lines[1:3] = [b'{"ids": [1', b"[3]"]
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    assert len(data(run, notes)["steps"][0]["episodes"]) == 4
    assert [note.split(" is left out")[0] for note in notes] == [f"{path}, line 2", f"{path}, line 3"]


def test_without_a_model_folder_there_is_no_tokenizer(tmp_path, notes) -> None:
    run = write_run(tmp_path / "r", {1: small_step(1)})
    shutil.rmtree(run / "checkpoints" / "step_1" / "model")
    with pytest.raises(RunError, match="step_1 has no folder model, and the tokenizer lies in it"):
        data(run, notes)


def test_before_the_first_checkpoint_the_first_model_has_the_tokenizer(tmp_path, notes) -> None:
    run = write_run(tmp_path / "r", {1: small_step(1)})
    expected = data(run, notes)
    shutil.rmtree(run / "checkpoints" / "step_1")
    assert data(run, notes) == expected
    other = Config(steps=20, model=ModelConfig(name="nobody/nothing"))
    other_run = write_run(tmp_path / "o", {1: small_step(1)}, config=other)
    shutil.rmtree(other_run / "checkpoints" / "step_1")
    with pytest.raises(RunError, match=r"cannot find the tokenizer .*nobody/nothing"):
        data(other_run, notes)


def test_following_gives_what_is_new(tmp_path, notes) -> None:
    run = write_run(tmp_path / "r", {})
    follower = Follower(run, note=notes.append)
    assert follower.data()["steps"] == []
    write_run(tmp_path / "other", {1: small_step(1), 2: small_step(2)})
    shutil.copytree(tmp_path / "other" / "episodes", run / "episodes")
    first = follower.data()
    assert [packed["step"] for packed in first["steps"]] == [1, 2]
    path = run / "episodes" / "step_3.jsonl.gz"
    path.write_bytes(b"half")
    known = len(first["pieces"])
    assert follower.data(2, known)["steps"] == []
    assert follower.data(2, known)["notes"] == notes and len(notes) == 1
    shutil.copy(run / "episodes" / "step_2.jsonl.gz", path)
    news = follower.data(2, known)
    assert [packed["step"] for packed in news["steps"]] == [3]
    assert news["pieces"] == []


def test_a_file_without_a_usable_line_is_said_once(tmp_path, notes) -> None:
    run = write_run(tmp_path / "r", {1: small_step(1)})
    (run / "episodes" / "step_2.jsonl.gz").write_bytes(gzip.compress(b"{}\n[3]\n"))
    follower = Follower(run, note=notes.append)
    for _ in range(3):
        assert [packed["step"] for packed in follower.data()["steps"]] == [1]
    assert follower.data()["notes"] == notes and len(notes) == 2


def test_following_a_run_that_goes_away_keeps_what_was_read(tmp_path, notes) -> None:
    run = write_run(tmp_path / "r", {1: small_step(1)})
    # Listed, but gone when it is looked at.
    (run / "episodes" / "step_2.jsonl.gz").symlink_to(run / "gone")
    follower = Follower(run, note=notes.append)
    assert [packed["step"] for packed in follower.data()["steps"]] == [1]
    shutil.rmtree(run)
    assert [packed["step"] for packed in follower.data()["steps"]] == [1]
    assert notes == []


def test_following_does_not_wait_for_what_never_comes(tmp_path) -> None:
    run = write_run(tmp_path / "r", {1: small_step(1)}, config=Config(steps=25))
    for step in (1, 10, 20, 25):
        Follower(run, step=step)
    for step in (0, 7, 30):
        with pytest.raises(RunError, match=f"no episodes of step {step}; it has 1"):
            Follower(run, step=step)
    untrained = write_run(tmp_path / "u", {}, config=Config(steps=0))
    with pytest.raises(RunError, match="trained no step"):
        Follower(untrained)
