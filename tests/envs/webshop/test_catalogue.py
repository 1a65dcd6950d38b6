"""Catalogues, promises.

1. What is imported is what is loaded, from plain files and packed ones, and equal imports are equal files.
2. What is missing or malformed is named by file, record and field; broken records can be left out.
3. An import that fails leaves the earlier one as it was, and nothing beside it.
4. A kept file that is damaged is an error with a way out.
"""

import errno
import gzip
import json
import os
import subprocess
import sys

import pytest

from actfocus.envs.webshop.catalogue import (
    SHIPPED,
    catalogue_path,
    import_catalogue,
    imported_names,
    load_catalogue,
    shipped_catalogue,
)
from actfocus.envs.webshop.goals import Goals
from actfocus.envs.webshop.products import read_product
from actfocus.envs.webshop.shop import open_shop
from actfocus.errors import ConfigError
from tests.envs.webshop.records import item, order, write_files

HUMAN = {
    "B1": [{"instruction": "i want.", "instruction_attributes": ["legs"], "instruction_options": ["red"]}]
}
ITEMS = [item("B1"), item("B2", name="Table", customization_options=""), item("B3", pricing="$5 - $9")]
GOALS = {"B1": order(), "B2": order(), "B3": {"attributes": ["soft"]}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / "cache"))
    load_catalogue.cache_clear()
    yield tmp_path / "cache" / "webshop"
    load_catalogue.cache_clear()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "files"


def refused(folder, name="mine", **options):
    with pytest.raises(ConfigError) as caught:
        import_catalogue(folder, name, **options)
    return str(caught.value)


# 1. In and out


@pytest.mark.parametrize("gz", [False, True])
def test_what_is_imported_is_what_is_loaded(folder, gz):
    report = import_catalogue(write_files(folder, ITEMS, GOALS, HUMAN, gz=gz), "mine")
    loaded = load_catalogue("mine")
    expected = tuple(read_product(r, GOALS[r["asin"]], HUMAN.get(r["asin"])) for r in ITEMS)
    assert loaded.products == expected
    assert loaded.name == "mine"
    assert (report.products, report.goals, report.human_goals) == (3, 6 + 1, 1)
    assert (report.skipped, report.broken, report.path) == ({}, [], str(catalogue_path("mine")))
    assert imported_names() == ["mine"]
    assert list(Goals(loaded.products, "human")) == list(Goals(expected, "human"))


def test_human_file_alone_can_hold_the_goals(folder):
    report = import_catalogue(write_files(folder, ITEMS, {}, HUMAN), "mine")
    assert (report.goals, report.human_goals) == (0, 1)


def test_the_digest_names_exactly_these_products(folder):
    def digest(name, items):
        import_catalogue(write_files(folder, items, GOALS), name)
        return load_catalogue(name).digest

    first = digest("one", ITEMS)
    assert digest("two", ITEMS) == first
    assert digest("three", ITEMS[::-1]) != first
    assert digest("four", [ITEMS[0], ITEMS[1], item("B3", pricing="$5 - $9.01")]) != first


def test_equal_imports_are_equal_files_in_every_process(folder, own_cache):
    write_files(folder, ITEMS, GOALS, HUMAN)
    import_catalogue(folder, "mine")
    here = catalogue_path("mine").read_bytes()
    code = (
        "import sys; from pathlib import Path; from actfocus.envs.webshop.catalogue import *;"
        "import_catalogue(Path(sys.argv[1]), 'mine', replace=True);"
        "print(load_catalogue('mine').digest, shipped_catalogue(8).digest)"
    )
    for seed in ("1", "2"):
        catalogue_path("mine").unlink()
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert catalogue_path("mine").read_bytes() == here
        assert done.stdout.split() == [load_catalogue("mine").digest, shipped_catalogue(8).digest]


def test_the_shipped_catalogue_is_large_enough():
    shipped = load_catalogue(SHIPPED)
    assert len(shipped.products) >= 300
    assert len(Goals(shipped.products, "synthetic")) >= 1_000
    assert len({product.id for product in shipped.products}) == len(shipped.products)
    assert all(len(product.id) <= 10 for product in shipped.products)


def test_importing_again_needs_replace(folder):
    import_catalogue(write_files(folder, ITEMS, GOALS), "mine")
    before = load_catalogue("mine")
    write_files(folder, ITEMS[:1], GOALS)
    assert "there is a catalogue 'mine' already" in refused(folder)
    assert load_catalogue("mine") is before
    import_catalogue(folder, "mine", replace=True)
    assert load_catalogue("mine").products == before.products[:1], "not the one that was loaded before"
    assert imported_names() == ["mine"]


def test_a_catalogue_that_is_replaced_opens_another_shop(folder):
    import_catalogue(write_files(folder, ITEMS, GOALS), "mine")
    assert len(open_shop("mine").catalogue.products) == len(load_catalogue("mine").products) > 1
    assert open_shop("mine") is open_shop("mine")
    write_files(folder, ITEMS[:1], GOALS)
    import_catalogue(folder, "mine", replace=True)
    assert len(open_shop("mine").catalogue.products) == 1


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/x", "-x", ".x", "A", "a b", "é", "a\n", "a\0", "x" * 65, "shipped"],
)
def test_names_that_are_not_allowed(folder, own_cache, name):
    write_files(folder, ITEMS, GOALS)
    assert "cannot name an imported catalogue" in refused(folder, name)
    if name != SHIPPED:
        with pytest.raises(ConfigError, match="cannot name an imported catalogue"):
            load_catalogue(name)
    assert not own_cache.exists()


@pytest.mark.parametrize("name", ["a", "0", "a..b", "web-shop_1.0", "x" * 64])
def test_names_that_are_allowed(folder, name):
    import_catalogue(write_files(folder, ITEMS, GOALS), name)
    assert load_catalogue(name).name == name
    assert imported_names() == [name]


def test_an_unknown_name_says_which_there_are(folder):
    import_catalogue(write_files(folder, ITEMS, GOALS), "thousand")
    with pytest.raises(ConfigError, match=r"did you mean 'thousand'.*there are: shipped, thousand; another"):
        load_catalogue("thousnd")


def test_what_else_lies_in_the_cache_is_no_catalogue(folder, own_cache):
    import_catalogue(write_files(folder, ITEMS, GOALS), "mine")
    for name in ("shipped.json.gz", "My Own.json.gz", ".json.gz", "notes.txt"):
        (own_cache / name).write_bytes(b"")
    (own_cache / "a-folder.json.gz").mkdir()
    assert imported_names() == ["mine"]


# 2. What is wrong


def test_no_folder(folder):
    assert refused(folder) == f"there is no folder {folder}"


@pytest.mark.parametrize("file", ["items_shuffle", "items_ins_v2"])
@pytest.mark.parametrize("gz", [False, True])
def test_missing_files(folder, file, gz):
    write_files(folder, ITEMS, GOALS, HUMAN, gz=gz)
    next(folder.glob(f"{file}*")).unlink()
    assert refused(folder) == f"{folder} holds no file {file}*.json or {file}*.json.gz"


def test_several_files(folder):
    write_files(folder, ITEMS, GOALS)
    (folder / "items_shuffle_1000.json.gz").write_bytes(b"")
    said = refused(folder)
    assert "several files items_shuffle*.json (items_shuffle.json, items_shuffle_1000.json.gz)" in said


FILES = ["items_shuffle.json", "items_ins_v2.json", "items_human_ins.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[: len(data) // 2], "is truncated or damaged"),
        (lambda data: data[:-1], "is truncated or damaged"),
        (lambda data: data[:3], "is truncated or damaged"),
        (lambda data: b"<html>", "is truncated or damaged (Not a gzipped file"),
        (lambda data: data[:40] + b"\xff" * 9 + data[49:], "is truncated or damaged"),
        (lambda data: data[:-8] + bytes(4) + data[-4:], "is truncated or damaged (CRC check failed"),
        (lambda data: gzip.compress(b""), "is not valid JSON"),
        (lambda data: gzip.compress(b"\xff\xfe"), "is not valid JSON"),
    ],
)
def test_damaged_archives(folder, file, damage, said):
    write_files(folder, ITEMS, GOALS, HUMAN, gz=True)
    path = folder / f"{file}.gz"
    path.write_bytes(damage(path.read_bytes()))
    message = refused(folder)
    assert said in message and str(path) in message


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "text",
    [b"", b"[", b'[{"asin": "B1",', b"{'a': 1}", b"\xff", b"[" * 100_000, b"[" + b"9" * 5_000 + b"]", b"\0"],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_json(folder, file, text):
    write_files(folder, ITEMS, GOALS, HUMAN)
    (folder / file).write_bytes(text)
    assert f"{folder / file} is not valid JSON" in refused(folder)


@pytest.mark.parametrize(
    ("file", "wrong", "word"),
    [
        ("items_shuffle.json", {"B1": item()}, "a list of products, it holds dict"),
        ("items_shuffle.json", None, "a list of products, it holds NoneType"),
        ("items_ins_v2.json", [order()], "an object of goals by asin, it holds list"),
        ("items_human_ins.json", "x", "an object of instructions by asin, it holds str"),
    ],
)
def test_wrong_top_level(folder, file, wrong, word):
    write_files(folder, ITEMS, GOALS, HUMAN)
    (folder / file).write_text(json.dumps(wrong))
    assert refused(folder) == f"{folder / file} should hold {word}"


def test_a_file_that_is_a_folder(folder):
    write_files(folder, ITEMS, GOALS)
    (folder / "items_human_ins.json").mkdir()
    assert "cannot read" in refused(folder)


@pytest.mark.parametrize("items", [[], [item("nan")], ITEMS[2:]])
def test_nothing_to_ask_for(folder, items):
    assert "has an instruction in" in refused(write_files(folder, items, GOALS))


def test_records_that_webshop_passes_over_are_counted(folder):
    items = [
        item("nan"),
        item("B12345678901"),
        item("B1", name="first"),
        item("B1", name="second"),
        item("b1"),
    ]
    items += [item("x" * 100_000), item("B2")]
    report = import_catalogue(write_files(folder, items), "mine")
    assert report.skipped == {"its id is not an ASIN": 3, "its id occurred before": 2}
    assert [product.title for product in load_catalogue("mine").products] == ["first", "Solid Wood Chair"]


BROKEN = [
    item("B1"),
    item("B2", name=None),
    item("B3", pricing="free"),
    {"name": "x"},
    5,
    item("B4", customization_options={"Size": [5]}),
    item("B5", query=7),
    item("B6"),
]


def test_broken_records_are_named(folder):
    goals = {"B1": order(), "B6": order(instruction_attributes=None)}
    said = refused(write_files(folder, BROKEN, goals))
    for part in (
        "items_shuffle.json: record 1 (asin B2): name: should be a text, got None; ",
        "items_shuffle.json: record 2 (asin B3): pricing: should be a text such as '$12.99', got 'free'; ",
        "record 3 (asin none): asin: should be a text, got None; ",
        "record 4 (asin none): is no object but int; ",
        "record 5 (asin B4): customization_options.Size: should be a list of objects with a value, got [5]",
        " (and 2 more); mend the file, or leave such records out with --skip-broken",
    ):
        assert part in said
    assert imported_names() == []


def test_broken_records_can_be_left_out(folder):
    report = import_catalogue(write_files(folder, BROKEN, {"B1": order()}), "mine", skip_broken=True)
    assert (report.products, len(report.broken)) == (2, 6)
    assert report.broken[5] == "items_shuffle.json: record 6 (asin B5): query: should be a text, got 7"
    assert [product.id for product in load_catalogue("mine").products] == ["b1", "b6"]


def test_a_broken_record_does_not_hide_a_whole_one_of_the_same_id(folder):
    items = [item("B1", name=None), item("B1", name="whole")]
    report = import_catalogue(write_files(folder, items), "mine", skip_broken=True)
    assert (report.products, len(report.broken), report.skipped) == (1, 1, {})


def test_messages_hold_no_terminal_codes_and_are_not_endless(folder):
    bad = "\x1b]0;own\x07\u202e" + "x" * 100_000
    items = [
        item("B1", name=[bad]),
        item("B\x1b[31m2", pricing=bad),
        item("B3", customization_options={bad: [bad]}),
        {"asin": [bad]},
        item("B4"),
    ]
    said = refused(write_files(folder, items, {}))
    assert said.isprintable() and len(said) < 1_500
    report = import_catalogue(write_files(folder, items, {"B4": order()}), "mine", skip_broken=True)
    assert len(report.broken) == 4
    assert all(line.isprintable() and len(line) < 300 for line in report.broken)


# 3. Failing writes


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["os.replace", "pathlib.Path.write_bytes", "tempfile.mkdtemp"])
def test_a_full_disk_leaves_the_earlier_catalogue(folder, own_cache, monkeypatch, step):
    import_catalogue(write_files(folder, ITEMS, GOALS), "mine")
    before = catalogue_path("mine").read_bytes()
    write_files(folder, ITEMS[:1], GOALS)
    with monkeypatch.context() as patch:
        patch.setattr(step, full)
        said = refused(folder, replace=True)
    assert "No space left on device" in said and str(catalogue_path("mine")) in said
    assert [path.name for path in own_cache.iterdir()] == ["mine.json.gz"]
    assert catalogue_path("mine").read_bytes() == before
    assert len(load_catalogue("mine").products) == 3


def test_a_cache_that_cannot_be_made(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / "file"))
    assert "cannot write" in refused(write_files(folder, ITEMS, GOALS))
    assert imported_names() == []


def test_wrong_files_leave_the_earlier_catalogue(folder, own_cache):
    import_catalogue(write_files(folder, ITEMS, GOALS), "mine")
    before = catalogue_path("mine").read_bytes()
    refused(write_files(folder, BROKEN, GOALS), replace=True)
    assert [path.read_bytes() for path in own_cache.iterdir()] == [before]


# 4. Damage to what is kept


def packed(value):
    return gzip.compress(json.dumps(value).encode())


def test_a_catalogue_of_another_version(folder):
    import_catalogue(write_files(folder, ITEMS, GOALS), "mine")
    stored = json.loads(gzip.decompress(catalogue_path("mine").read_bytes()))
    catalogue_path("mine").write_bytes(packed(stored | {"format": 0}))
    with pytest.raises(
        ConfigError, match="made by another version: import the catalogue again with --replace"
    ):
        load_catalogue("mine")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:100],
        lambda data: b"x" + data[1:],
        lambda data: data[:-8] + bytes(8),
        lambda data: packed([]),
        lambda data: packed(5),
        lambda data: packed({}),
        lambda data: packed({"format": 1, "digest": "x"}),
        lambda data: packed({"format": 1, "digest": "x", "products": 5}),
        lambda data: packed({"format": 1, "digest": "x", "products": [5]}),
        lambda data: packed({"format": 1, "digest": "x", "products": [[]]}),
        lambda data: packed({"format": 1, "digest": "x", "products": [{"id": "x"}]}),
        lambda data: gzip.compress(gzip.decompress(data).replace(b'"options":{', b'"options":5,"x":{')),
    ],
)
def test_a_damaged_catalogue_is_refused_and_can_be_replaced(folder, damage):
    import_catalogue(write_files(folder, ITEMS, GOALS), "mine")
    path = catalogue_path("mine")
    path.write_bytes(damage(path.read_bytes()))
    load_catalogue.cache_clear()
    with pytest.raises(ConfigError) as caught:
        load_catalogue("mine")
    assert str(path) in str(caught.value)
    assert "import the catalogue again with --replace" in str(caught.value)
    import_catalogue(folder, "mine", replace=True)
    assert len(load_catalogue("mine").products) == 3
