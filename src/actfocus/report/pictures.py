"""Figures as files, PNG and SVG: equal input gives equal bytes, and a file is there whole or not at all."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actfocus.run_directory import write_whole

STABLE: dict[Any, Any] = {"svg.hashsalt": "actfocus", "svg.fonttype": "none"}
"""Matplotlib's settings without which an SVG differs from run to run."""


_OPTIONS: dict[str, dict[str, Any]] = {"png": {"dpi": 150}, "svg": {"metadata": {"Date": None}}}


def save_picture(figure: Any, path: Path, endings: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a matplotlib figure, drawn under `STABLE`, as `path` with each of the endings."""
    written = []
    for ending in endings:
        drawn = io.BytesIO()
        figure.savefig(drawn, format=ending, **_OPTIONS[ending])
        written.append(path.with_suffix(f".{ending}"))
        write_whole(written[-1], drawn.getvalue())
        figure.set_layout_engine("none")  # as it has just been laid out: that takes half of the time
    return written
