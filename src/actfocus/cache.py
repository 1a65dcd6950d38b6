"""Where fetched, imported and built things are kept between runs, and how their files are told apart."""

import hashlib
import os
from pathlib import Path


def cache_folder() -> Path:
    """`$ACTFOCUS_CACHE`, by default `~/.cache/actfocus`."""
    return Path(os.environ.get("ACTFOCUS_CACHE") or Path.home() / ".cache" / "actfocus")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
