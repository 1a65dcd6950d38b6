"""Where fetched, imported and built things are kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$ACTFOCUS_CACHE`, by default `~/.cache/actfocus`."""
    return Path(os.environ.get("ACTFOCUS_CACHE") or Path.home() / ".cache" / "actfocus")
