"""Two processes, promises: they compute what one computes. Gradients of an update agree to 1e-10 in float64,
the metrics of a run to 1e-5, and both ranks hold the same figures. What stops one stops both.

The processes are real ones on the CPU, as a launcher starts them: gloo on the loopback.
"""

import gzip
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from actfocus.config import Config, to_toml
from actfocus.distributed import Processes
from actfocus.rollout.sampler import BrokenSampling
from actfocus.training.checkpoint import verify
from tests.training.one_of_two import SIZES, gradients
from tests.zygote import ROOT, zygote


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(module: str, *words: str) -> list[Any]:
    """Run a module in two processes; what each one printed last, which is JSON."""
    world = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    ranks = [
        zygote().start([module, *words], cwd=ROOT, env=world | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    ended = [rank.wait(150) for rank in ranks]
    assert [rank.returncode for rank in ended] == [0, 0], "\n".join(rank.stderr for rank in ended)
    return [json.loads(rank.stdout.splitlines()[-1]) for rank in ended]


@pytest.fixture(scope="module", params=["ppo", pytest.param("grpo", marks=pytest.mark.slow)])
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def two(
    algorithm: str,
    make_config: Callable[..., Config],
    model_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder in which two processes have run `one_of_two`."""
    out = tmp_path_factory.mktemp("two")
    (out / "config.toml").write_text(to_toml(make_config(algorithm={"name": algorithm})))
    said = launch("tests.training.one_of_two", str(out / "config.toml"), str(model_folder), str(out))
    assert said == [{"rank": rank, "count": 2, "steps": 3} for rank in range(2)]
    return out


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_those_of_one_process(
    size: int,
    two: Path,
    algorithm: str,
    make_config: Callable[..., Config],
    model_folder: Path,
    processes: Processes,
) -> None:
    one = gradients(make_config(algorithm={"name": algorithm}), model_folder, size, processes)
    for rank in range(2):
        found = load_file(two / f"gradients-{rank}-{size}.safetensors")
        assert found.keys() == one.keys()
        for name, tensor in one.items():
            assert found[name].dtype == tensor.dtype
            assert (found[name].double() - tensor.double()).abs().max() <= 1e-10, name
    assert one["gradients"].abs().max() > 1e-3


def flat(tree: Any, prefix: str = "") -> dict[str, float]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: leaf for key, branch in tree.items() for name, leaf in flat(branch, f"{prefix}.{key}").items()
    }


def test_metrics_are_those_of_one_process(two: Path, algorithm: str, finished: Callable[[str], Path]) -> None:
    runs = [two / "run", finished(algorithm)]
    of_two, of_one = ([json.loads(line) for line in (run / "metrics.jsonl").open()] for run in runs)
    assert len(of_two) == len(of_one) == 4
    for ours, theirs in zip(of_two, of_one, strict=True):
        (
            ours.pop("sampler_trainer_difference", None),
            theirs.pop("sampler_trainer_difference", None),
        )  # of rounding
        # A loss of 0.01 is the sum of terms of 1 that cancel: what float32 leaves of it is absolute.
        assert flat(ours) == pytest.approx(flat(theirs), rel=1e-5, abs=1e-6)


def test_the_run_of_two_is_whole(two: Path, algorithm: str, finished: Callable[[str], Path]) -> None:
    names = [{path.name for path in run.iterdir()} for run in (two / "run", finished(algorithm))]
    assert names[0] == names[1]
    assert verify(two / "run" / "checkpoints" / "step_3") == 3
    environment = json.loads((two / "run" / "environment.json").read_text())
    assert environment["processes"] == 2


def test_what_stops_one_stops_both(make_config: Callable[..., Config], tmp_path: Path) -> None:
    """Either rank may be the one that fails; both say the same, and no one waits for the other."""
    (tmp_path / "config.toml").write_text(to_toml(make_config()))
    first, second = launch("tests.training.one_of_two_fails", str(tmp_path))
    assert first == second
    kinds, messages = zip(*first, strict=True)
    assert kinds == ("GameError", "NonFiniteError", "RunError", "RunError", "RunError")
    parts = (
        "new_level raised ZeroDivisionError",
        "while sampling",
        "exists already",
        "no longer",
        "trained by",
    )
    for part, message in zip(parts, messages, strict=True):
        assert part in message
    # What both ranks sampled before one of them broke.
    failed = gzip.decompress((tmp_path / "broken" / "failed" / "step_1.jsonl.gz").read_bytes())
    assert len(failed.splitlines()) == 8
    assert not (tmp_path / "game").exists()  # a run that never began


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by Linux's /proc")
def test_no_thread_of_the_group_outlives_python() -> None:
    """One that does can abort a process whose work is done. That is a race, so threads are counted here."""
    said = launch("tests.training.one_of_two_ends")
    for during, after in said:
        assert any("gloo" in name for name in during)
        assert not any("gloo" in name for name in after)


def test_one_process_does_nothing_together(processes: Processes) -> None:
    assert (processes.rank, processes.count, processes.is_main) == (0, 1, True)
    assert processes.share(range(5)) == processes.gather([0, 1, 2, 3, 4]) == [0, 1, 2, 3, 4]
    assert processes.sum_figures({"a": 1.5}) == {"a": 1.5}
    tensor = torch.ones(3)
    assert processes.sum(tensor) is tensor
    processes.wait()
    records: list[Any] = [object()]
    with pytest.raises(BrokenSampling, match="broken") as caught, processes.together():
        raise BrokenSampling("broken", records)
    assert isinstance(caught.value.__cause__, BrokenSampling) and caught.value.__cause__.records == records
    with pytest.raises(ZeroDivisionError), processes.together():  # a bug
        raise ZeroDivisionError
