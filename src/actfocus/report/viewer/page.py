"""The page: template, style, script and data in one HTML file that needs nothing else."""

import base64
import hashlib
import html
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from actfocus.report.output import printable

SCRIPTS = (
    "text.js",
    "data.js",
    "figures.js",
    "board.js",
    "conversation.js",
    "details.js",
    "groups.js",
    "app.js",
)
"""In the order in which they need each other."""


@cache
def asset(name: str) -> str:
    """A file that the page is made of."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def script() -> str:
    """The page's script, as it stands in it."""
    return '"use strict";\n' + "\n".join(asset(name) for name in SCRIPTS)


def style() -> str:
    """The page's style, as it stands in it."""
    return asset("viewer.css")


def policy(script: str, style: str, *, live: bool = False) -> str:
    """The Content-Security-Policy of a page: its own script and style, by their hashes, and no network.

    `live`: the page may ask the server that it comes from for new steps.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "connect-src 'self'" if live else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def render_page(data: dict[str, Any], *, live: int = 0) -> str:
    """The whole page for `data` (see `data.py`).

    `live`: milliseconds between two questions for new steps, 0 for a page that asks nobody.
    """
    parts = {
        "policy": html.escape(policy(script(), style(), live=bool(live)), quote=True),
        "title": html.escape(printable(data["run"]["name"])),
        "style": style(),
        "data": embed(data | {"live": live}),
        "script": script(),
    }
    # In one pass: what is put in is never searched for more places.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], asset("template.html"))


def embed(data: Any) -> str:
    """JSON that may stand in a script element: no character in it can end the element or a line."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
