"""Checkpoints, promises:

1. What is loaded is what was saved, bit for bit: policy or adapters, critic, Adam.
2. A damaged checkpoint is never used: an older good one is, or the error names the file.
3. An older checkpoint goes only after the newer one has verified; a full disk or a kill loses nothing.
4. Nothing is pickled.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import actfocus
from actfocus.algorithms import ALGORITHMS
from actfocus.config import Config, ModelConfig
from actfocus.distributed import Processes
from actfocus.errors import RunError
from actfocus.models.chat import Chat
from actfocus.models.critic import Critic
from actfocus.models.language_model import LanguageModel
from actfocus.models.loading import load
from actfocus.rollout.batch import Batch
from actfocus.run_directory import numbered
from actfocus.training import checkpoint as module
from actfocus.training.checkpoint import latest_checkpoint, load_policy, load_state, save_checkpoint, verify
from actfocus.training.update import Updater
from tests.training.test_update import scored

MakeConfig = Callable[..., Config]


class State:
    """All that a checkpoint holds."""

    def __init__(self, config: Config, processes: Processes) -> None:
        self.policy, self.chat = load(config.model)
        self.critic = Critic(self.policy) if config.algorithm.name == "ppo" else None
        algorithm = ALGORITHMS[config.algorithm.name](config.algorithm)
        self.updater = Updater(config, processes, algorithm, self.policy, self.critic)

    def train(self, batch: Batch) -> None:
        """One update, so that weights have moved and Adam has a state."""
        scored(batch, self.policy)
        if self.critic is not None:
            batch.values_BT = torch.zeros_like(batch.sampler_logprobs_BT)
            batch.value_targets_BT = torch.ones_like(batch.values_BT)
        self.updater.update(batch, step=1)

    def tensors(self) -> dict[str, torch.Tensor]:
        found = {f"policy.{name}": t for name, t in self.policy.model.state_dict().items()}
        if self.critic is not None:
            found |= {f"critic.{name}": t for name, t in self.critic.state_dict().items()}
        state = self.updater.optimizer.state_dict()["state"]
        return found | {f"adam.{i}.{name}": t for i, each in state.items() for name, t in each.items()}

    def save(self, folder: Path, step: int) -> Path:
        return save_checkpoint(
            folder,
            step,
            policy=self.policy,
            chat=self.chat,
            critic=self.critic,
            optimizer=self.updater.optimizer,
        )


@pytest.fixture
def state(make_config: MakeConfig, processes: Processes, batch: Batch) -> State:
    trained = State(make_config(), processes)
    trained.train(batch)
    return trained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("rank", [0, 4], ids=["all-weights", "lora"])
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_round_trip(
    algorithm: str, rank: int, make_config: MakeConfig, processes: Processes, batch: Batch, folder: Path
) -> None:
    config = make_config(algorithm={"name": algorithm}, model={"lora_rank": rank})
    old, new = State(config, processes), State(config, processes)
    old.train(batch)
    path = old.save(folder, 7)
    assert verify(path) == 7
    assert (path, 7) == latest_checkpoint(folder)
    load_policy(path, new.policy)
    load_state(path, critic=new.critic, optimizer=new.updater.optimizer)
    before, after = old.tensors(), new.tensors()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert any(name.startswith("adam.") for name in before)
    # And they go on alike.
    old.train(batch)
    new.train(batch)
    after = new.tensors()
    assert [name for name, tensor in old.tensors().items() if not torch.equal(tensor, after[name])] == []


def test_a_run_without_any_update_can_be_saved(
    make_config: MakeConfig, processes: Processes, folder: Path
) -> None:
    config = make_config(algorithm={"name": "ppo"})
    path = State(config, processes).save(folder, 0)
    fresh = State(config, processes)
    load_policy(path, fresh.policy)
    load_state(path, critic=fresh.critic, optimizer=fresh.updater.optimizer)
    assert len(fresh.updater.optimizer.state_dict()["state"]) == 0


def test_the_policy_is_a_hugging_face_folder(state: State, folder: Path) -> None:
    path = state.save(folder, 1)
    model, chat = load(ModelConfig(name=str(path / "model")))
    ids = chat.opening("Rules.", "State.")
    assert ids == state.chat.opening("Rules.", "State.")
    hidden = [m.hidden(torch.tensor([ids])) for m in (model, state.policy)]
    assert torch.equal(*hidden)


def test_a_model_of_another_shape_is_refused(
    state: State, folder: Path, loaded: tuple[LanguageModel, Chat]
) -> None:
    path = state.save(folder, 1)
    policy = loaded[0]
    policy.causal_lm.extra = torch.nn.Linear(2, 2)
    with pytest.raises(RunError, match="does not fit"):
        load_policy(path, policy)


def test_adapters_that_do_not_fit_are_refused(
    make_config: MakeConfig, processes: Processes, folder: Path
) -> None:
    state = State(make_config(model={"lora_rank": 2}), processes)
    path = state.save(folder, 1)
    file = path / "model" / "adapter_model.safetensors"
    tensors = load_file(file)
    # As after a release of transformers or peft that calls the layers otherwise.
    save_file({name.replace("q_proj", "query"): tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(RunError, match=r"does not fit: missing .*q_proj.*unexpected .*query"):
        load_policy(path, state.policy)
    some = dict(list(tensors.items())[:-1])
    save_file(some, file)
    with pytest.raises(RunError, match="does not fit: missing"):
        load_policy(path, state.policy)


def test_only_the_newest_stays(state: State, folder: Path) -> None:
    for step in (2, 10, 9):
        state.save(folder, step)
    assert names(folder) == ["step_9"]


# Damage. -----------------------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    file.write_bytes(data)


FILES = ["model/model.safetensors", "model/config.json", "model/tokenizer.json", "optimizer.safetensors"]


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_damaged_checkpoint_is_not_used(
    name: str, damage: Callable[[Path], None], state: State, folder: Path
) -> None:
    newer = state.save(folder, 4)
    damage(newer / name)
    # A bit in the manifest may also be one of another file's digest.
    named = r"step_4/[\w/]+\.\w+ is" if (name, damage) == ("manifest.json", flip_a_bit) else re.escape(name)
    with pytest.raises(RunError, match=named):
        latest_checkpoint(folder)
    shutil.move(newer, folder.parent / "newer")
    older = state.save(folder, 2)
    shutil.move(folder.parent / "newer", newer)
    assert latest_checkpoint(folder) == (older, verify(older))


def test_a_manifest_of_another_step_is_damage(state: State, folder: Path) -> None:
    path = state.save(folder, 4)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"step": 5}))
    with pytest.raises(RunError, match=r"manifest\.json"):
        latest_checkpoint(folder)


def test_no_checkpoint_is_none(folder: Path) -> None:
    (folder / "step_x").mkdir()
    (folder / ".step_3.partial").mkdir()
    assert latest_checkpoint(folder) is None


# A full disk, and kills. -------------------------------------------------------------------------------


def no_space(*_args: object, **_options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "target", ["save_file", "os.fsync", "os.replace", "fsync_folder", "verify", "json.dump"]
)
def test_a_full_disk_leaves_the_old_one(
    target: str, state: State, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = state.save(folder, 2)
    with monkeypatch.context() as patch:
        where, _, name = target.rpartition(".")
        patch.setattr(getattr(module, where) if where else module, name, no_space)
        with pytest.raises(OSError, match="No space left"):
            state.save(folder, 4)
    kept = latest_checkpoint(folder)
    assert kept == (old, 2) or (target == "fsync_folder" and kept == (folder / "step_4", 4))
    assert not list(folder.glob(".*"))
    assert (state.save(folder, 4), 4) == latest_checkpoint(folder)
    assert names(folder) == ["step_4"]


def test_the_disk_fills_while_the_weights_are_written(
    state: State, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system reports it: through a limit on the size of files."""
    resource = pytest.importorskip("resource")
    old = state.save(folder, 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(Exception, match=r"[Tt]oo large|os error 27"):
            state.save(folder, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert latest_checkpoint(folder) == (old, verify(old))
    assert names(folder) == ["step_2"]


def test_the_old_one_stands_until_the_new_one_has_verified(
    state: State, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.save(folder, 2)
    seen = []

    def spy(path: Path) -> int:
        seen.append((path.name, names(folder)))
        return verify(path)

    monkeypatch.setattr(module, "verify", spy)
    state.save(folder, 4)
    assert seen[0] == (".step_4.partial", [".step_4.partial", "step_2"])


def test_a_new_one_that_does_not_verify_is_thrown_away(
    state: State, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = state.save(folder, 2)
    write = module._write_manifest

    def damaging(path: Path, step: int) -> None:
        write(path, step)
        flip_a_bit(path / "optimizer.safetensors")

    monkeypatch.setattr(module, "_write_manifest", damaging)
    with pytest.raises(RunError, match=r"optimizer\.safetensors"):
        state.save(folder, 4)
    assert names(folder) == ["step_2"]
    assert latest_checkpoint(folder) == (old, verify(old))


def test_leftovers_of_a_killed_save_are_cleaned(state: State, folder: Path) -> None:
    for name in (".step_4.partial", ".step_3.partial", "step_3"):
        (folder / name).mkdir()
        (folder / name / "optimizer.safetensors").write_text("half")
    state.save(folder, 4)
    assert names(folder) == ["step_4"]


def test_nothing_is_pickled() -> None:
    sources = Path(actfocus.__file__).parent.rglob("*.py")
    forbidden = re.compile(
        r"\b(pickle|cloudpickle|joblib|torch\.load|torch\.save|weights_only\s*=\s*False)\b"
    )
    assert [path for path in sources if forbidden.search(path.read_text())] == []


def test_what_is_numbered_is_found_in_order(tmp_path: Path) -> None:
    for name in ("step_10", "step_9", "step_²", "step_", "step_x", ".step_3.partial", "step_8.jsonl.gz"):
        (tmp_path / name).touch()
    assert list(numbered(tmp_path).items()) == [(9, tmp_path / "step_9"), (10, tmp_path / "step_10")]
    assert numbered(tmp_path, ".jsonl.gz") == {8: tmp_path / "step_8.jsonl.gz"}
    assert numbered(tmp_path / "nowhere") == {}
