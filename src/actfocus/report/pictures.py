"""Figures as files, PNG and SVG: equal input gives equal bytes, and a file is there whole or not at all."""

import io
from pathlib import Path
from typing import Any

from actfocus.run_directory import write_whole

STABLE: dict[Any, Any] = {"svg.hashsalt": "actfocus", "svg.fonttype": "none"}
"""Matplotlib's settings without which an SVG differs from run to run."""


def save_picture(figure: Any, path: Path) -> list[Path]:
    """Write a matplotlib figure, drawn under `STABLE`, as `path` with the endings png and svg."""
    written = []
    kinds: dict[str, dict[str, Any]] = {"png": {"dpi": 150}, "svg": {"metadata": {"Date": None}}}
    for ending, options in kinds.items():
        drawn = io.BytesIO()
        figure.savefig(drawn, format=ending, **options)
        written.append(path.with_suffix(f".{ending}"))
        write_whole(written[-1], drawn.getvalue())
        figure.set_layout_engine("none")  # as it has just been laid out: that takes half of the time
    return written
