"""Records with a fault that shows late, promises.

1. The message names the file that holds the fault, and `--skip-broken` leaves out what has it.
"""

import pytest

from actfocus.envs.webshop.catalogue import import_catalogue, load_catalogue
from actfocus.errors import ConfigError
from tests.envs.webshop.records import item, order, write_files

WISH = {"instruction": "i want.", "instruction_attributes": ["solid wood"], "instruction_options": ["red"]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / "cache"))
    load_catalogue.cache_clear()
    yield
    load_catalogue.cache_clear()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "files"


def refused(folder):
    with pytest.raises(ConfigError) as caught:
        import_catalogue(folder, "mine")
    return str(caught.value)


@pytest.mark.parametrize(
    ("goals", "human", "said"),
    [
        (7, None, "items_ins_v2.json: entry B1: its goal is no object but 7"),
        (
            order(instruction_attributes="x"),
            None,
            "items_ins_v2.json: entry B1: instruction_attributes: should be a list of texts, got 'x'",
        ),
        (order(), 7, "items_human_ins.json: entry B1: its instructions should be a list of objects, got 7"),
        (
            order(),
            [WISH | {"instruction": 3}],
            "items_human_ins.json: entry B1: instruction: should be a text, got 3",
        ),
    ],
)
def test_the_file_that_holds_the_fault_is_named(folder, goals, human, said):
    write_files(folder, [item("B1"), item("B2")], {"B2": order()} | {"B1": goals}, {"B1": human})
    assert refused(folder).partition(";")[0] == said
    report = import_catalogue(folder, "mine", skip_broken=True)
    assert report.broken == [said]
    assert "b1" not in [product.id for product in load_catalogue("mine").products]
