"""TensorBoard, trackio and wandb themselves, promises:

1. Read back with the package's own reader, a run that was killed and resumed has every step once, as one run.
2. Nothing leaves the machine, and nothing is asked, unless the user has logged in; no secret is written.
"""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actfocus.config import Config
from actfocus.report import trackers as module
from actfocus.report.trackers import tracking
from actfocus.run_directory import RunDirectory
from actfocus.training.run import resume
from tests.report.tracked import (
    Notes,
    expected,
    killed,
    read_tensorboard,
    read_trackio,
    read_wandb,
    wandb_rows,
)
from tests.training.conftest import equal_in_equal_runs, finished, make_config, model_folder

__all__ = ["finished", "make_config", "model_folder"]

MakeConfig = Callable[..., Config]
Finished = Callable[[str], Path]
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def quick_picture(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    finished("grpo")  # tests elsewhere share it, and look for its picture
    monkeypatch.setattr("actfocus.training.run._draw", lambda run, progress: None)


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the packages keep what is not in the run directory. They look only once in a process."""
    folder = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "WANDB_PROJECT", "WANDB_RUN_ID"):
            patch.delenv(name, raising=False)
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        for name in ("CONFIG", "CACHE", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(folder / "wandb"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("HF_TOKEN", f"hf_{KEY[:34]}")
        yield folder


def test_tensorboard(finished: Finished, make_config: MakeConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    run, progress = tmp_path / "run", Notes()
    killed(run, make_config(), ["tensorboard"], 3)
    # As if the last of the queue had been lost, and one step were there that the resumed run will not have.
    with tracking(RunDirectory(run), ["tensorboard"]) as trackers:
        trackers.log({"step": 9, "return": 9.0, "ghost": 1.0})
    resume(run, progress=progress)
    assert progress.warnings == []
    found = read_tensorboard(run)
    assert found.keys() == {0, 1, 2, 3}
    for step, figures in expected(run).items():
        assert found[step] == pytest.approx(figures, rel=1e-6)
    assert equal_in_equal_runs(run) == equal_in_equal_runs(finished("grpo"))


def test_the_configuration_is_in_tensorboards_table(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    run = RunDirectory.create(tmp_path / "run", Config(seed=7))
    with tracking(run, ["tensorboard"]):
        pass
    events = EventAccumulator(str(run.path))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    table = HParamsPluginData.FromString(content).session_start_info.hparams
    assert table["seed"].number_value == 7
    assert table["env.name"].string_value == "frozen-lake"
    assert [path.name for path in run.path.iterdir() if path.is_dir()] == ["checkpoints"]


def test_trackio(
    finished: Finished, make_config: MakeConfig, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    monkeypatch.setattr(module, "PROJECT", "one")
    run, progress = tmp_path / "run", Notes()
    killed(run, make_config(), ["trackio"], 3)
    resume(run, progress=progress)
    rows = read_trackio(places)
    assert [(name, step) for _, name, step, _ in rows] == [("run", step) for step in range(4)]
    assert len({identity for identity, *_ in rows}) == 1
    # What was sent before the kill is kept: the metrics are equal, the seconds are those of then.
    for _, _, step, figures in rows:
        for name, value in expected(run)[step].items():
            assert name in figures
            assert figures[name] == value or name.startswith(("seconds/", "peak_memory"))
    assert progress.warnings == []
    assert asked == []
    assert equal_in_equal_runs(run) == equal_in_equal_runs(finished("grpo"))


def test_runs_of_one_name_stay_apart_in_trackio(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.setattr(module, "PROJECT", "two")
    runs = [RunDirectory.create(tmp_path / folder / "run", Config()) for folder in "ab"]
    for number, run in enumerate([*runs, runs[0]]):
        step = len(run.lines())
        with tracking(run, ["trackio"]) as trackers:
            run.append("metrics.jsonl", {"step": step, "return": float(number)})
            trackers.log({"step": step, "return": float(number)})
    ids = [json.loads((run.path / module.STATE).read_text())["ids"]["trackio"] for run in runs]
    rows = read_trackio(places)
    found = [[(step, row["return"]) for run, _, step, row in rows if run == identity] for identity in ids]
    assert found == [[(0, 0.0), (1, 2.0)], [(0, 1.0)]]


def test_wandb_offline(finished: Finished, make_config: MakeConfig, places: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    run, progress = tmp_path / "run", Notes()
    killed(run, make_config(), ["wandb"], 3)
    resume(run, progress=progress)
    assert progress.warnings == []
    parts = sorted((run / "wandb").glob("offline-run-*"))
    assert len({part.name.rpartition("-")[2] for part in parts}) == 1 and len(parts) == 2  # one id
    records = read_wandb(parts[1])
    assert wandb_rows(records) == expected(run)  # the newest part is the whole run
    (header,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    settings = {item.key: json.loads(item.value_json) for item in header.config.update}
    assert (header.project, header.display_name, settings["rollout.group"]) == ("actfocus", "run", 4)
    assert equal_in_equal_runs(run) == equal_in_equal_runs(finished("grpo"))
    secrets = (KEY.encode(), b"hf_0123")
    for path in [*run.rglob("*"), *places.rglob("*")]:
        assert not path.is_file() or not any(secret in path.read_bytes() for secret in secrets), path


@pytest.mark.parametrize(
    ("settings", "login", "mode"),
    [
        ({}, "", "offline"),
        ({}, "machine api.wandb.ai login user password x", "online"),
        ({}, "machine elsewhere.org login user password x", "offline"),
        ({}, "machine api.wandb.ai login", "offline"),
        ({"api_key": KEY}, "", "online"),
        ({"mode": "offline", "api_key": KEY}, "", "offline"),
        ({"mode": "disabled"}, "", "disabled"),
    ],
)
def test_wandb_is_online_only_for_who_is_logged_in(
    settings: dict[str, str], login: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if login:
        (tmp_path / "netrc").write_text(login)
    given = {
        "mode": "online",
        "api_key": None,
        "identity_token_file": None,
        "base_url": "https://api.wandb.ai",
    }
    assert module._wandb_mode(SimpleNamespace(**(given | settings))) == mode
