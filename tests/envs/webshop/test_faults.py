"""Records with a fault that shows late, promises.

1. The message names the file that holds the fault, and `--skip-broken` leaves out what has it.
2. Options are read in one way wherever they stand; a page can offer whatever is read.
3. A price that is not the whole field is no price.
"""

import pytest

from actfocus.envs.webshop.catalogue import import_catalogue, load_catalogue
from actfocus.envs.webshop.environment import WebShop
from actfocus.envs.webshop.products import MAX_INSTRUCTION_LENGTH, MAX_OPTIONS, BrokenRecord
from actfocus.errors import ConfigError
from tests.envs.webshop.hand_made import play, product, reply, shop_of
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


# 1. Files


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


# 2. Options


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("<b>Red</b>", "red"),
        ("<br/>Red", "red"),
        ("<b>5</b>/<b>8</b>", "5 | 8"),
        ("X&#47;L", "x | l"),
        ("a//b", "a | | b"),
        ("</", "< |"),
    ],
)
def test_markup_goes_before_the_slash_is_replaced(value, read_as):
    assert product(options={"Size": [value]}).options == {"size": (read_as,)}


@pytest.mark.parametrize("kind", [list, dict])
def test_values_of_people_are_read_like_those_of_products(kind):
    values = ["5/8", "<b>Red</b>", "word " * 100]
    names = ["Size", "Color", "name " * 100]
    asked = values if kind is list else dict(zip(names, values, strict=True))
    human = [{"instruction": "a mug", "instruction_attributes": ["matte"], "instruction_options": asked}]
    found = product(options={name: [value] for name, value in zip(names, values, strict=True)}, human=human)
    (wish,) = found.human
    offered = {name: value for name, (value,) in found.options.items()}
    assert wish.options == (tuple(offered.values()) if kind is list else offered)
    env = WebShop(shop=shop_of(found, kind="human"), option_match="equal")
    env.reset(seed=0)
    play(env, env.expert_actions())
    assert env.success


LONG = "word " * 30


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"Size": ["s"], "size ": ["m"]}, "customization_options.size: a second option 'size'"),
        ({"<b>Size</b>": ["s"], "Size": ["s"]}, "customization_options.Size: a second option 'size'"),
        ({f"{LONG}1": ["s"], f"{LONG}2": ["s"]}, "a second option 'word word "),
        ({"Size": [f"{LONG}1", f"{LONG}2"]}, "customization_options.Size: two values begin with 'word word "),
        (
            {f"o{number}": ["x"] for number in range(MAX_OPTIONS + 1)},
            "customization_options: 21 options, at most 20",
        ),
        (
            {
                "a": [f"{number:090}" for number in range(600)],
                "b": [f"{number:090}" for number in range(600)],
            },
            "customization_options: 108,002 characters of names and values, at most 100,000",
        ),
    ],
)
def test_options_that_a_page_cannot_offer(options, said):
    with pytest.raises(BrokenRecord) as caught:
        product(options=options)
    assert said in str(caught.value)
    assert str(caught.value).startswith("customization_options") and len(str(caught.value)) < 250


def test_people_ask_for_one_value_of_an_option():
    with pytest.raises(BrokenRecord, match=r"^instruction_options: a second option 'size'$") as caught:
        product(human=[WISH | {"instruction_options": {"Size": "s", "<b>size</b>": "m"}}])
    assert caught.value.file == "human"


def test_options_that_a_page_can_just_offer():
    assert len(product(options={f"o{number}": ["x"] for number in range(MAX_OPTIONS)}).options) == MAX_OPTIONS
    assert product(options={"Size": [LONG, LONG, "s", "S"]}), (
        "equal values are goals of their own, as published"
    )
    assert product(options={"Size": ["s"], "size": []}).options == {"size": ("s",)}


def test_the_largest_page_that_can_be_imported_is_an_observation():
    values = [f"{number:099}" for number in range(1_000)]
    found = product(
        "b" * 10,
        LONG * 100,
        options={f"{number:099}": ["x"] for number in range(MAX_OPTIONS - 1)} | {"a": values[:950]},
        instruction="Find me mugs " + "x" * (MAX_INSTRUCTION_LENGTH - 13),
    )
    env = WebShop(shop=shop_of(found))
    env.reset(seed=0)
    for action in env.expert_actions()[:-1]:
        assert env.step(reply(action))[0] in env.observation_space
        if env.turn > 8:
            break
    assert len(env.visit.text()) > 90_000


def test_an_instruction_can_be_too_long():
    human = [WISH | {"instruction": "x" * (MAX_INSTRUCTION_LENGTH + 1)}]
    for fields in ({"instruction": "x" * (MAX_INSTRUCTION_LENGTH + 1)}, {"human": human}):
        with pytest.raises(BrokenRecord, match=r"^instruction: 2,001 characters, at most 2,000$"):
            product(**fields)


# 3. Prices


@pytest.mark.parametrize(
    "pricing",
    [
        *("$1e9", "$1.299,00", "\u2212$5", "-5 $7", "$10.0 - 19.5", "$12.99.99", "$12.99 each", "from $5"),
        *("$5 - $6 - $7", "$5 $6", "$1,29", "$12,99", "$,5", "$5.", "$\u0665", "$5 - ", "$5 \u2212 $9"),
    ],
)
def test_a_price_is_the_whole_field(pricing):
    with pytest.raises(BrokenRecord, match=r"^pricing: "):
        product(pricing=pricing)


@pytest.mark.parametrize("dash", ["-", " - ", "\u2013", " \u2014 "])
def test_ranges(dash):
    assert product(pricing=f"$1,299.00{dash}$12,000.50").price_range == (1299, 12000.5)
