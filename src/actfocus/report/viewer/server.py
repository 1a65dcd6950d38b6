"""The page of a run that goes on, for this machine alone."""

import contextlib
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from actfocus.errors import RunError
from actfocus.report.viewer.collect import Follower
from actfocus.report.viewer.page import policy, render_page, script, style

LOOPBACK = "127.0.0.1"
POLL_MILLISECONDS = 2000


def make_server(follower: Follower, port: int, *, poll: int = POLL_MILLISECONDS) -> ThreadingHTTPServer:
    """A server on loopback; `serve_forever` runs it.

    Args:
        follower: The run.
        port: 0 takes any free port.
        poll: Milliseconds between two questions of the page for new steps.

    Raises:
        RunError: If the port is taken.
    """
    page: Callable[[], str] = lambda: render_page(follower.data(), live=poll)  # noqa: E731
    handler = type("Handler", (_Handler,), {"follower": follower, "page": staticmethod(page)})
    try:
        return ThreadingHTTPServer((LOOPBACK, port), handler)
    except (OSError, OverflowError) as error:
        raise RunError(f"cannot serve on port {port} ({error}): choose another --port") from None


class _Handler(BaseHTTPRequestHandler):
    follower: Follower
    page: Callable[[], str]
    server_version, sys_version = "actfocus", ""

    def do_GET(self) -> None:
        """The page at `/`, what is new at `/steps`."""
        if not self._is_ours():
            return self._answer(403, "text/plain", "this server answers only to its own name")
        url = urlsplit(self.path)
        if url.path == "/":
            return self._answer(200, "text/html", self.page())
        if url.path != "/steps":
            return self._answer(404, "text/plain", "not found")
        try:
            query = parse_qs(url.query)
            after, pieces = (int(query[name][0]) for name in ("after", "pieces"))
        except (KeyError, ValueError):
            return self._answer(400, "text/plain", "after and pieces are whole numbers")
        news = json.dumps(self.follower.data(after, max(0, pieces)), allow_nan=False)
        return self._answer(200, "application/json", news)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the page asks every two seconds."""

    def _is_ours(self) -> bool:
        # A page from elsewhere may let its own name point here (DNS rebinding), and would read the answer.
        port = cast(ThreadingHTTPServer, self.server).server_port
        host = self.headers.get("Host", "")
        # A browser leaves out the port of http itself.
        return (host if ":" in host else f"{host}:80") in {f"{LOOPBACK}:{port}", f"localhost:{port}"}

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        rules = policy(script(), style(), live=True)
        self.send_header("Content-Security-Policy", f"{rules}; frame-ancestors 'none'")
        with contextlib.suppress(ConnectionError):  # the tab was closed in the meantime
            self.end_headers()
            self.wfile.write(body)
