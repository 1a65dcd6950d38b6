"""What leaves the program: text that cannot command a terminal, values that JSON has."""

import math
from pathlib import Path
from typing import Any


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with its control characters escaped; `lines` keeps newlines."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else ascii(c)[1:-1] for c in text)


def jsonable(value: Any) -> Any:
    """The value in JSON's types. JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
