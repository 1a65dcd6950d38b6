"""Goals that nobody could reach, promises.

1. What `check_goal` refuses cannot be won, and it names the field; what is just possible passes and is won.
2. An import names the goal by file and entry; with `--skip-broken` the product goes, or of people's
   requests the one that cannot be met.
3. WebShop's own thousand products and the shipped ones all pass.
"""

import pytest

from actfocus.envs.webshop.catalogue import import_catalogue, load_catalogue
from actfocus.envs.webshop.environment import WebShop
from actfocus.envs.webshop.products import BrokenRecord
from actfocus.envs.webshop.visit import BACK, BUY, DETAILS, NEXT, PREVIOUS
from actfocus.envs.webshop.winnable import MAX_WISHES, check_goal, check_product
from actfocus.errors import ConfigError
from tests.envs.webshop.hand_made import play, product, shop_of
from tests.envs.webshop.records import item, order, write_files


def asked(**changes):
    """What a person asked for."""
    entry = {"instruction": "a mug", "instruction_attributes": ["matte"], "instruction_options": []}
    return [entry | changes]


def wins(found, kind="synthetic"):
    """Whether one who knows the product buys it within the budget."""
    env = WebShop(shop=shop_of(found, kind=kind))
    env.reset(seed=0)
    plan = env.expert_actions()
    if len(plan) > env.turns:
        return False
    play(env, plan)
    return env.success


MANY = {f"option {number}": [f"value {number}"] for number in range(MAX_WISHES + 1)}
JUST = dict(list(MANY.items())[:MAX_WISHES])

# 1. One product. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [*DETAILS, BUY, PREVIOUS, NEXT, BACK])
@pytest.mark.parametrize("spelt", [str, str.title])
def test_a_value_is_no_button_of_the_shop(label, spelt):
    found = product(options={"Extra": ["none", spelt(str(label))]})
    with pytest.raises(
        BrokenRecord, match=r"^customization_options\.extra: the value '.*' is a button"
    ) as caught:
        check_product(found)
    assert caught.value.file == "items" and f"{label!s}" in str(caught.value)


@pytest.mark.parametrize("label", [NEXT, PREVIOUS, "Features"])
def test_nor_is_an_id(label):
    with pytest.raises(BrokenRecord, match=r"^asin: '.*' is a button of the shop$"):
        check_product(product(label))


def test_a_product_that_is_asked_for_has_a_title():
    for title in ("", "<b></b>", "!?"):
        with pytest.raises(BrokenRecord, match=r"^name: has no word, but the product is asked for"):
            check_product(product(name=title))
    check_product(product(name="<br>", instruction=None))
    check_product(product(name="7"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wanted": ["matte", "gold"]}, "instruction_attributes: the product lacks 'gold'"),
        ({"options": MANY}, f"instruction: asks for {MAX_WISHES + 1} options, more than the turns allow"),
    ],
)
def test_what_cannot_be_won_is_refused(changes, said):
    found = product(**changes)
    assert not wins(found)
    with pytest.raises(BrokenRecord) as caught:
        check_goal(found, found.instruction, "goals")
    assert (caught.value.file, str(caught.value).startswith(said)) == ("goals", True)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        (
            {"instruction_options": ["red", "gold"]},
            {"Color": ["red", "teal"]},
            "instruction_options: nothing that the product offers is like 'gold'",
        ),
        (
            {"instruction_options": {"Size": "gold"}},
            {"Color": ["red", "teal"]},
            "instruction_options: nothing that the product offers is like 'gold'",
        ),
        ({"instruction_attributes": ["gold"]}, {}, "instruction_attributes: the product lacks 'gold'"),
        (
            {"instruction_options": [value for (value,) in MANY.values()]},
            MANY,
            f"instruction: asks for {MAX_WISHES + 1} options",
        ),
    ],
)
def test_nor_may_people_ask_for_it(changes, options, said):
    found = product(options=options, human=asked(**changes))
    assert not wins(found, "human")
    with pytest.raises(BrokenRecord) as caught:
        check_goal(found, found.human[0], "human")
    assert (caught.value.file, str(caught.value).startswith(said)) == ("human", True)


@pytest.mark.parametrize(
    "changes",
    [
        {"options": JUST},
        {"name": "7"},
        {"wanted": ["mat"], "full_description": "a mat"},
        {"wanted": ["Matte Black"], "attributes": ["black matte"]},
    ],
)
def test_what_is_just_possible_passes(changes):
    found = product(**changes)
    check_product(found)
    check_goal(found, found.instruction, "goals")
    assert wins(found)


def test_so_do_people_who_ask_for_what_is_like_a_value():
    """By WebShop's rule "large" also hits "x-large"."""
    wish = asked(instruction_options=["large", "teal blue"])
    found = product(options={"Size": ["x-large"], "Color": ["blue", "red"]}, human=wish)
    check_goal(found, found.human[0], "human")
    assert wins(found, "human")


# 2. An import. -----------------------------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / "cache"))
    load_catalogue.cache_clear()
    yield
    load_catalogue.cache_clear()


def test_an_import_names_what_cannot_be_won(tmp_path, own_cache):
    items = [
        item("B1"),
        item("B2", customization_options={"Extra": [{"value": "Buy Now"}]}),
        item("B3"),
        item("B4", name="<br>"),
        item("B5", name="<br>"),
    ]
    goals = {"B1": order(), "B3": order(instruction_attributes=["gold"]), "B4": order()}
    wood = asked(instruction_attributes=["solid wood"])
    human = {"B1": [*wood, *asked(instruction_attributes=["gold"])]}
    folder = write_files(tmp_path / "files", items, goals, human)
    said = [
        "items_human_ins.json: entry B1: instruction_attributes: the product lacks 'gold'",
        "items_shuffle.json: record 1 (asin B2): customization_options.extra: the value 'buy now' is a button"
        " of the shop",
        "items_ins_v2.json: entry B3: instruction_attributes: the product lacks 'gold'",
        "items_shuffle.json: record 3 (asin B4): name: has no word, but the product is asked for",
    ]
    with pytest.raises(ConfigError) as caught:
        import_catalogue(folder, "mine")
    assert str(caught.value).startswith("; ".join(said))
    report = import_catalogue(folder, "mine", skip_broken=True)
    assert report.broken == said
    assert (report.products, report.goals, report.human_goals) == (2, 6, 1)
    assert [each.id for each in load_catalogue("mine").products] == ["b1", "b5"]


# 3. What there is. -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shipped", "real"])
def test_all_that_there_is_can_be_won(request, name):
    for each in request.getfixturevalue(name).catalogue.products:
        check_product(each)
        if each.instruction:
            check_goal(each, each.instruction, "goals")
