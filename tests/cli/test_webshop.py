"""`actfocus webshop`, promises: it lists and imports catalogues; what is wrong is one line and code 2, at
once; nothing of a hostile file reaches the terminal; the user's cache is not touched.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actfocus.envs.webshop.catalogue import load_catalogue
from tests.cli.conftest import Result
from tests.envs.webshop.records import item, order, write_files

Call = Callable[..., Result]

ITEMS = [item("B1"), item("B2", customization_options=""), item("nan")]
HOSTILE = "\x1b]0;own\x07\x1b[31m\u202eevil\x9b1m"
BROKEN = [
    item("B1", name=f"{HOSTILE} chair"),
    item("B\x1b[31m2", pricing=HOSTILE),
    item("B3", customization_options={HOSTILE: [HOSTILE]}),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    load_catalogue.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_files(tmp_path / "files", ITEMS, {"B1": order(), "B2": order()})


def test_list_without_imports(actfocus: Call, cache: Path) -> None:
    for words in (["webshop"], ["webshop", "list"]):
        assert actfocus(*words) == Result(0, "shipped: comes with actfocus\n", "")
    assert not cache.exists()


def test_import_and_list(actfocus: Call, files: Path, cache: Path) -> None:
    result = actfocus("webshop", "import", str(files), "--name", "thousand")
    assert (result.code, result.err) == (0, "")
    assert "Next: actfocus play webshop --catalogue thousand\n" in result.out
    kept = cache / "webshop" / "thousand.json.gz"
    assert kept.is_file()
    assert actfocus("webshop").out == f"shipped: comes with actfocus\nthousand: {kept}\n"


def test_json(actfocus: Call, files: Path, cache: Path) -> None:
    result = actfocus("webshop", "import", str(files), "--json")
    path = str(cache / "webshop" / "webshop.json.gz")
    assert json.loads(result.out) == {
        "name": "webshop",
        "path": path,
        "products": 2,
        "goals": 7,
        "human_goals": 0,
        "skipped": {"its id is not an ASIN": 1},
        "broken": [],
    }
    listed = json.loads(actfocus("webshop", "list", "--json").out)
    assert listed == {"catalogues": {"shipped": "comes with actfocus", "webshop": path}}


def test_a_catalogue_is_replaced_only_if_asked(actfocus: Call, files: Path) -> None:
    assert actfocus("webshop", "import", str(files)).code == 0
    again = actfocus("webshop", "import", str(files))
    assert (again.code, again.out) == (2, "")
    assert again.err.startswith("actfocus: there is a catalogue 'webshop' already")
    assert actfocus("webshop", "import", str(files), "--replace").code == 0


def test_what_was_left_out_is_named(actfocus: Call, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "files", [*ITEMS, *(item(f"C{n}", name=None) for n in range(30))])
    result = actfocus("webshop", "import", str(folder), "--skip-broken")
    assert result.code == 0
    lines = [line for line in result.out.splitlines() if line.startswith("left out: ")]
    assert lines[0] == "left out: items_shuffle.json: record 3 (asin C0): name: should be a text, got None"
    assert len(lines) == 20, "no endless list"
    found = json.loads(actfocus("webshop", "import", str(folder), "--skip-broken", "--replace", "--json").out)
    assert len(found["broken"]) == 30


@pytest.mark.parametrize("options", [[], ["--skip-broken"], ["--skip-broken", "--json"]])
def test_nothing_hostile_reaches_the_terminal(actfocus: Call, tmp_path: Path, options: list[str]) -> None:
    folder = write_files(tmp_path / "files", BROKEN, {"B1": order()})
    result = actfocus("webshop", "import", str(folder), *options)
    assert result.code == (0 if options else 2)
    for line in (result.out + result.err).splitlines():
        assert line.isprintable()
    assert "record 1" in result.out + result.err and "record 2" in result.out + result.err


@pytest.mark.parametrize("options", [[], ["--skip-broken"], ["--skip-broken", "--json"]])
def test_nor_does_a_hostile_name_of_a_file(actfocus: Call, files: Path, options: list[str]) -> None:
    (files / "items_shuffle.json").write_text(json.dumps([*ITEMS, item("B3", pricing="free")]))
    (files / "items_shuffle.json").rename(files / "items_shuffle\x1b]0;own\x07\udce9.json")
    result = actfocus("webshop", "import", str(files), *options)
    assert result.code == (0 if options else 2)
    assert all(line.isprintable() for line in (result.out + result.err).splitlines())
    if options == ["--skip-broken"]:
        assert r"left out: items_shuffle\x1b]0;own\x07\udce9.json: record 3 (asin B3): pricing" in result.out


def test_nor_does_a_hostile_name_of_the_cache(
    actfocus: Call, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / "\x1b]0;own\x07"))
    for words in (["import", str(files)], ["list"]):
        result = actfocus("webshop", *words)
        assert result.code == 0
        assert all(line.isprintable() for line in result.out.splitlines())


def test_a_full_disk_is_one_line_and_the_earlier_catalogue_stays(files: Path, cache: Path) -> None:
    # No file may grow beyond a block: what a quota or a full disk does, without one.
    code = (
        "import resource, sys; from actfocus.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)) if sys.argv[1] == 'full' else None;"
        "sys.exit(main(['webshop', 'import', 'files', '--replace']))"
    )
    kept = cache / "webshop" / "webshop.json.gz"
    contents = []
    for how in ("ample", "full"):
        done = subprocess.run(
            [sys.executable, "-c", code, how], capture_output=True, text=True, cwd=files.parent, timeout=60
        )
        contents.append(kept.read_bytes())
        assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert contents[0] == contents[1]
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"actfocus: cannot write {kept}: File too large\n"


# What is wrong: the words after `actfocus webshop`, and what the line must say.
CASES = [
    ("import", ["which folder? actfocus webshop import DIR"]),
    ("import missing", ["there is no folder missing"]),
    ("import a-file", ["there is no folder a-file"]),
    ("import empty", ["empty holds no file items_shuffle*.json"]),
    ("import one", ["one holds no file items_ins_v2*.json"]),
    ("import two", ["two holds several files items_shuffle*.json"]),
    ("import truncated", ["items_shuffle.json.gz is truncated or damaged"]),
    ("import no-json", ["no-json/items_shuffle.json is not valid JSON"]),
    ("import an-object", ["items_shuffle.json should hold a list of products, it holds dict"]),
    ("import broken", ["record 1 (asin B 2): pricing", "(asin B3): customization_options.", "--skip-broken"]),
    ("import no-goals", ["no product of", "has an instruction"]),
    ("import good --name Shipped", ["'Shipped' cannot name an imported catalogue"]),
    ("import good --name shipped", ["'shipped' is the one that comes with actfocus"]),
    ("import good --name ../up", ["'../up' cannot name"]),
    ("import good --nmae x", ["did you mean '--name'"]),
    ("import good good", ["unexpected argument 'good'"]),
    ("list good", ["unexpected argument 'good'", "actfocus webshop import DIR"]),
    ("lsit", ["'list', 'import'", "got 'lsit'"]),
]


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    goals = {"B1": order()}
    write_files(tmp_path / "good", ITEMS, goals)
    write_files(tmp_path / "one", ITEMS, goals)
    (tmp_path / "one" / "items_ins_v2.json").unlink()
    write_files(tmp_path / "two", ITEMS, goals)
    write_files(tmp_path / "two", ITEMS, goals, gz=True)
    write_files(tmp_path / "truncated", ITEMS, goals, gz=True)
    packed = tmp_path / "truncated" / "items_shuffle.json.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    write_files(tmp_path / "no-json", b"<html>", goals)
    write_files(tmp_path / "an-object", {}, goals)
    write_files(tmp_path / "broken", BROKEN, goals)
    write_files(tmp_path / "no-goals", ITEMS, {})
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").write_text("")
    return tmp_path


@pytest.mark.parametrize(("case", "said"), CASES, ids=[case for case, _ in CASES])
def test_is_refused_in_one_line(actfocus: Call, wrong: Path, cache: Path, case: str, said: list[str]) -> None:
    begin = time.perf_counter()
    result = actfocus("webshop", *case.split(" "))
    assert time.perf_counter() - begin < 2
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("actfocus: ") and result.err.endswith("\n")
    assert result.err[:-1].isprintable()
    for words in said:
        assert words in result.err
    assert not cache.exists()


def test_a_cache_in_a_file_is_one_line(
    actfocus: Call, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / "taken"))
    result = actfocus("webshop", "import", str(files))
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "cannot write" in result.err and str(tmp_path / "taken") in result.err


def test_from_the_shell_without_torch(wrong: Path) -> None:
    code = (
        "import sys; from actfocus.cli import main;"
        "code = main(sys.argv[1:]); sys.exit(9 if 'torch' in sys.modules else code)"
    )
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "webshop", "import", "truncated"],
        capture_output=True,
        text=True,
        cwd=wrong,
        timeout=60,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "Traceback" not in done.stderr
    # The user's limit is three seconds; twice that where all cores are busy.
    assert time.perf_counter() - begin < 6


def test_an_imported_catalogue_is_named_where_one_is_wanted(actfocus: Call, files: Path) -> None:
    assert actfocus("webshop", "import", str(files), "--name", "mine").code == 0
    result = actfocus("play", "webshop", "--catalogue", "mien")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "no catalogue 'mien'; did you mean 'mine'" in result.err


def test_check_env_passes_on_an_imported_catalogue(actfocus: Call, tmp_path: Path) -> None:
    kinds = ["Chair", "Table", "Shelf", "Stool", "Bench"]
    items = [item(f"B{number}", name=f"Solid Wood {kind}", query=kind) for number, kind in enumerate(kinds)]
    items.append(item("B9", name="Iron Lamp", query="lamps"))
    goals = {record["asin"]: order() for record in items[:-1]}
    human = {"B1": [order(instruction_options=["x-large", "black/white"])]}
    files = write_files(tmp_path / "files", items, goals, human)
    assert actfocus("webshop", "import", str(files), "--name", "mine").code == 0
    for kind in ("synthetic", "human"):
        words = ["--catalogue", "mine", "--goals", kind, "--seeds", "6", "--fuzz", "200", "--json"]
        result = actfocus("check-env", "webshop", *words)
        report = json.loads(result.out)
        assert (result.code, report["problems"], report["seeds"]) == (0, [], 6), result.err
        # A search, a product, two options, the purchase.
        assert report["expert_moves_most"] == 5
