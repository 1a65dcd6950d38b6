"""Following a running training, promises: loopback alone, for its own name alone; a new step appears and the
place is kept; a server that ends is said.
"""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actfocus.errors import RunError
from actfocus.report.viewer.collect import Follower
from actfocus.report.viewer.server import make_server
from actfocus.run_directory import RunDirectory
from tests.report.viewer.runs import small_step, write_run


@pytest.fixture
def server(run: Path) -> Iterator:
    with make_server(Follower(run), 0, poll=100) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path: str, host: str | None = None, method: str = "GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host is not None else {})
    response = connection.getresponse()
    return response.status, response.read().decode(), response.headers


def record(run: Path, step: int) -> None:
    RunDirectory(run).write_episodes("episodes", step, small_step(step))


def test_it_listens_on_loopback_alone(server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_other_names_are_refused(server) -> None:
    port = server.server_port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert get(server, "/", host)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        status, body, _ = get(server, "/", host)
        assert status == 403 and "tokens" not in body, host


def test_a_browser_leaves_out_the_port_of_http(server, monkeypatch) -> None:
    assert get(server, "/", "localhost")[0] == 403
    monkeypatch.setattr(server, "server_port", 80)  # only root could bind it
    port = server.server_address[1]
    for host, status in {
        "localhost": 200,
        "127.0.0.1": 200,
        "evil.example": 403,
        f"localhost:{port}": 403,
    }.items():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/", headers={"Host": host})
        assert connection.getresponse().status == status, host


def test_it_gives_the_page_and_what_is_new(server, run: Path) -> None:
    _, page, headers = get(server, "/")
    assert page.startswith("<!doctype html>") and headers["Cache-Control"] == "no-store"
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    record(run, 2)
    status, news, _ = get(server, "/steps?after=1&pieces=0")
    assert status == 200 and [step["step"] for step in json.loads(news)["steps"]] == [2]
    assert get(server, "/steps?after=x&pieces=0")[0] == 400
    assert get(server, "/steps")[0] == 400
    for path in ("/config.toml", "/../config.toml", "//etc/passwd", "/episodes/step_1.jsonl.gz"):
        assert get(server, path)[0] == 404
    assert get(server, "/", method="POST")[0] == 501


def test_a_taken_port_is_said(server, run: Path) -> None:
    with pytest.raises(RunError, match=f"port {server.server_port} .*choose another --port"):
        make_server(Follower(run), server.server_port)


def test_a_new_step_appears_and_the_place_is_kept(server, run: Path, open_viewer) -> None:
    viewer = open_viewer(f"http://127.0.0.1:{server.server_port}/", offline=False)
    viewer.shows(1, 0)
    viewer.page.click(".member >> nth=2")
    viewer.shows(1, 2)
    viewer.press("4", "a")
    place = viewer.page.evaluate("document.activeElement.dataset.i")
    record(run, 2)
    viewer.page.wait_for_selector("#newest")
    assert viewer.page.get_attribute("#trajectory", "data-shown") == "1/2"
    assert viewer.page.evaluate("document.activeElement.dataset.i") == place
    assert viewer.page.is_checked("#colours input[value=advantages]")
    assert viewer.page.get_attribute("#step", "max") == "1"
    viewer.page.click("#newest")
    viewer.shows(2, 2)
    assert viewer.page.query_selector("#news") is None
    assert {url.split("?")[0].rpartition("/")[2] for url in viewer.requests} <= {"", "steps", ","}


def test_a_run_without_steps_waits(tmp_path: Path, open_viewer) -> None:
    run = write_run(tmp_path / "young", {})
    with make_server(Follower(run), 0, poll=100) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        viewer = open_viewer(f"http://127.0.0.1:{server.server_port}/", offline=False)
        assert "Nothing is recorded yet" in viewer.page.inner_text("#notices")
        viewer.press("n", "p")  # the fixture holds that no script complains
        record(run, 3)
        viewer.shows(3, 0)
        assert viewer.page.inner_text("#notices") == ""
        server.shutdown()
        thread.join()
    viewer.page.wait_for_selector("#lost")
    assert "is actfocus view still running?" in viewer.page.inner_text("#lost")
    viewer.complaints.clear()  # the browser says that nobody answers
