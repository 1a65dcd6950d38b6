"""Products, promises.

1. A record in WebShop's layout becomes the product that it describes; what may be missing has a default.
2. Whatever stands in a record, the outcome is a clean product, or an error that names the field.
3. Prices are read as people write them; none that is absurd gets through.
4. People's instructions are read in both layouts.
"""

import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.envs.webshop.products import (
    MAX_COMBINATIONS,
    MAX_PRICE,
    MAX_VALUE_LENGTH,
    MAX_VALUES,
    BrokenRecord,
    Instruction,
    Product,
    read_product,
    skipped,
)
from actfocus.envs.webshop.text import clean
from tests.envs.webshop.records import item, order

HOSTILE = "\x1b[31m<b>Evil</b>\u202e [buy now] || <think>"


def read(goal_entry=None, human=None, **changes) -> Product:
    return read_product(item(**changes), goal_entry, human)


def values(*texts):
    return [{"value": text, "image": None} for text in texts]


def texts_of(product: Product) -> list[str]:
    found = [product.id, product.title, product.description, product.query, *product.bullets, *product.levels]
    found += [text for name, contents in product.options.items() for text in (name, *contents)]
    asked = [*product.human, *([product.instruction] if product.instruction else [])]
    for each in asked:
        found += [each.text, *each.attributes]
        found += [*each.options, *each.options.values()] if isinstance(each.options, dict) else each.options
    return [*found, *product.attributes]


# 1. What a record becomes


def test_a_whole_record():
    product = read(order(), [{"instruction": "i want it.", "instruction_attributes": ["solid wood"]}])
    assert product == Product(
        id="b000000001",
        title="Solid Wood Chair",
        description="A chair that stays.",
        bullets=("made of solid wood", "has four legs"),
        price=12.99,
        price_range=(12.99, 12.99),
        levels=("Home & Kitchen", "Furniture", "Chairs"),
        query="chairs",
        options={"color": ("red", "black | white"), "size": ("small", "large", "x-large")},
        attributes=("solid wood", "easy clean"),
        rating=4.5,
        instruction=Instruction("Find me solid wood chairs", ("solid wood",)),
        human=(Instruction("i want it.", ("solid wood",)),),
    )


@pytest.mark.parametrize("nothing", [..., None])
@pytest.mark.parametrize(
    ("field", "attribute", "default"),
    [
        ("full_description", "description", ""),
        ("small_description", "bullets", ()),
        ("pricing", "price", 100.0),
        ("pricing", "price_range", (100.0, 100.0)),
        ("product_category", "levels", ()),
        ("customization_options", "options", {}),
        ("average_rating", "rating", None),
    ],
)
def test_what_may_be_missing(field, attribute, default, nothing):
    assert getattr(read(**{field: nothing}), attribute) == default


@pytest.mark.parametrize("nothing", [..., None])
@pytest.mark.parametrize("field", ["asin", "name", "query"])
def test_what_must_not_be_missing(field, nothing):
    with pytest.raises(BrokenRecord, match=f"^{field}: should be a text, got None"):
        read(**{field: nothing})


def test_without_a_goal():
    product = read(None, None)
    assert (product.attributes, product.instruction, product.human) == ((), None, ())


def test_a_goal_without_instruction_gives_attributes():
    product = read({"attributes": ["Tea Tree"]})
    assert (product.attributes, product.instruction) == (("tea tree",), None)


def test_one_text_instead_of_bullets():
    assert read(small_description="all in one").bullets == ("all in one",)


def test_what_is_empty_after_cleaning_goes():
    assert read(small_description=["", "<br>", " ok "]).bullets == ("ok",)
    assert read(product_category=" › A › <b></b> › B").levels == ("A", "B")
    assert read(customization_options={"a": values("", "x", "\u200b"), "b": values("")}).options == {
        "a": ("x",)
    }
    assert read(order(attributes=["", "soft", "<i>"])).attributes == ("soft",)


@pytest.mark.parametrize(
    ("options", "read_as"),
    [
        ("", {}),
        ({}, {}),
        ({"Size": None}, {}),
        ({"Size": []}, {}),
        ({"Size": None, "color": values("Red")}, {"color": ("red",)}),
        ({" SIZE ": values("X/L", "a / b")}, {"size": ("x | l", "a | b")}),
        ({"size": values("a//b")}, {"size": ("a | | b",)}),
        ({"size": values("S", "s", "S")}, {"size": ("s", "s", "s")}),  # WebShop counts each as a goal
        ({"": values("x")}, {}),
    ],
)
def test_options(options, read_as):
    assert read(customization_options=options).options == read_as


def test_a_long_option_value_is_cut():
    (value,) = read(customization_options={"size": values("word " * 1000)}).options["size"]
    assert len(value) <= MAX_VALUE_LENGTH and value.startswith("word word") and value.endswith("…")


def test_a_long_option_name_is_cut():
    (name,) = read(customization_options={"word " * 1000: values("x")}).options
    assert len(name) <= MAX_VALUE_LENGTH and name.startswith("word word") and name.endswith("…")


def test_limits_of_options():
    many = values(*map(str, range(MAX_VALUES)))
    assert len(read(customization_options={"a": many}).options["a"]) == MAX_VALUES
    assert len(read(customization_options={"a": many, "b": many}).options) == 2
    with pytest.raises(BrokenRecord, match=r"^customization_options\.a: 1,001 values, at most 1,000$"):
        read(customization_options={"a": [*many, *values("x")]})
    assert MAX_COMBINATIONS == MAX_VALUES**2
    with pytest.raises(BrokenRecord, match=r"^customization_options: 2,000,000 combinations, at most"):
        read(customization_options={"a": many, "b": many, "c": values("x", "y")})


@pytest.mark.parametrize(
    ("rating", "read_as"),
    [
        *((4.5, 4.5), (5, 5.0), (0.1, 0.1), (0, None), (-1, None), (5.1, None), (10**400, None)),
        *(("", None), ("4", None), (True, None), (math.nan, None), (math.inf, None), ([], None)),
    ],
)
def test_ratings(rating, read_as):
    assert read(average_rating=rating).rating == read_as


# 2. Whatever stands there

WRONG = [
    5,
    1.5,
    True,
    ["x", 5],
    {"x": 5},
    [[]],
    math.nan,
    HOSTILE,
    "",
    [],
    {},
    "x" * 100_000,
    [None],
    "\ud800",
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:20])
@pytest.mark.parametrize("field", [key for key in item() if key not in ("category", "images")])
def test_a_wrong_field_is_named_or_made_clean(field, wrong):
    try:
        product = read(order(), **{field: wrong})
    except BrokenRecord as error:
        assert str(error).startswith(field)
        assert str(error).isprintable() and len(str(error)) < 250
    else:
        for text in texts_of(product):
            assert text == clean(text)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:20])
@pytest.mark.parametrize("field", ["attributes", "instruction", "instruction_attributes"])
def test_a_wrong_field_of_the_goal_is_named_or_made_clean(field, wrong):
    try:
        product = read(order(**{field: wrong}))
    except BrokenRecord as error:
        assert str(error).startswith(field)
        assert str(error).isprintable() and len(str(error)) < 250
    else:
        assert product.instruction.attributes
        for text in texts_of(product):
            assert text == clean(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def changed(whole):
    """The record with some fields replaced by anything, or gone."""
    return st.dictionaries(st.sampled_from(sorted(whole)), st.just(...) | json_values, max_size=3).map(
        lambda changes: {key: value for key, value in (whole | changes).items() if value is not ...}
    )


HUMAN = {"instruction": "I want it", "instruction_attributes": ["soft"], "instruction_options": ["red"]}
FIELDS = {*item(), *order(), *HUMAN}


@settings(max_examples=200)
@given(
    json_values | changed(item()),
    st.none() | json_values | changed(order()),
    st.none() | json_values | st.lists(changed(HUMAN), max_size=2),
)
def test_any_record_gives_a_clean_product_or_a_named_field(record, goal_entry, human):
    try:
        product = read_product(record, goal_entry, human)
    except BrokenRecord as error:
        message = str(error)
        assert message.isprintable() and len(message) < 250
        first = message.partition(":")[0].partition(".")[0]
        assert first in FIELDS or message.startswith(("is no object", "its goal", "its instructions"))
    else:
        assert product.id
        low, high = product.price_range
        assert 0 <= low <= product.price <= high <= MAX_PRICE
        for text in texts_of(product):
            assert text == clean(text)


def test_a_broken_option_is_named_without_its_terminal_codes():
    with pytest.raises(BrokenRecord) as caught:
        read(customization_options={HOSTILE + "x" * 100_000: [5]})
    message = str(caught.value)
    assert message.startswith("customization_options.") and "Evil" in message
    assert message.isprintable() and len(message) < 250


@pytest.mark.parametrize(
    ("asin", "reason"),
    [
        *(("B000000001", None), ("", None), (5, None), ("b000000002", "before"), ("B000000002", "before")),
        *(("nan", "not an ASIN"), ("B0000000012", "not an ASIN"), ("B000000002\u200b", "not an ASIN")),
    ],
)
def test_which_records_are_passed_over(asin, reason):
    found = skipped(item(asin), {"b000000002"})
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize("asin", ["", " ", "\u200b", "<b>"])
def test_an_id_of_nothing_is_refused(asin):
    with pytest.raises(BrokenRecord, match=r"^asin: is empty"):
        read(asin=asin)


# 3. Prices


@pytest.mark.parametrize(
    ("pricing", "low", "high"),
    [
        ("$12.99", 12.99, 12.99),
        ("$10.0 - $19.5", 10, 19.5),
        ("$19.5 - $10.0", 10, 19.5),
        ("$10-$19.5", 10, 19.5),
        ("$10 -$19.5", 10, 19.5),
        ("$1,299.00", 1299, 1299),
        ("$1,299.00 - $2,000", 1299, 2000),
        (" $ 5 ", 5, 5),
        ("US$5", 5, 5),
        ("$.5", 0.5, 0.5),
        ("$0", 0, 0),
        ("$0.00 - $3", 0, 3),
        ("$1,000,000", MAX_PRICE, MAX_PRICE),
        ("", 100, 100),
    ],
)
def test_prices(pricing, low, high):
    product = read(pricing=pricing)
    assert product.price_range == (low, high)
    assert low <= product.price <= high


@pytest.mark.parametrize(
    "pricing",
    [
        *("free", "nan", "$nan", "$inf", "12.99", "$", "$,", "$-", "$²", "-", "<b>", "\x1b[31m", " ", "5 $"),
        *("-$5", "$-5", "- $5", "-$5 - $10", "$5 - $-3", "$1,000,001", "$" + "9" * 5_000, "$5 - $9999999"),
        *(12.99, 0, -1, True, False, [], {}, ["$5"], math.nan),
    ],
)
def test_what_is_no_price_is_refused(pricing):
    with pytest.raises(BrokenRecord, match=r"^pricing: ") as caught:
        read(pricing=pricing)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


@pytest.mark.parametrize("unit", [" ", "-", "$", "$ ", "- ", "$,", ",", ".", "$.", "9", "$-", "\u2003"])
@pytest.mark.parametrize("before", ["", "$", "$9"])
def test_long_prices_are_fast(before, unit):
    begin = time.process_time()
    try:
        read(pricing=before + unit * (100_000 // len(unit)))
    except BrokenRecord as error:
        assert str(error).startswith("pricing: ")
    assert time.process_time() - begin < 1


@given(st.integers(0, 10**6), st.integers(-50, 50), st.integers(0, 4))
def test_the_price_of_a_range_lies_in_it(number, step, places):
    one, other = number / 10**places, abs(number + step) % 10**6 / 10**places
    product = read(pricing=f"${one:.{places}f} - ${other:.{places}f}")
    assert product.price_range == (min(one, other), max(one, other))
    assert min(one, other) <= product.price <= max(one, other)
    assert product == read(pricing=f"${one:.{places}f} - ${other:.{places}f}")


def test_prices_of_ranges_differ_from_product_to_product_and_cover_the_range():
    state = random.getstate()
    prices = [read(asin=f"B{n}", pricing="$10 - $20").price for n in range(300)]
    assert len(set(prices)) > 200
    assert min(prices) < 10.5 and max(prices) > 19.5 and 14 < sum(prices) / 300 < 16
    assert all(price == round(price, 2) for price in prices)
    assert random.getstate() == state, "no global random state"


# 4. People's instructions


@pytest.mark.parametrize(
    ("options", "read_as"),
    [
        (["Red", "x-large"], ("red", "x-large")),
        ({"Color": "Red", "size": "x-large"}, {"color": "red", "size": "x-large"}),
        ([], ()),
        ({}, ()),
        (None, ()),
        (["", "red", "<b>"], ("red",)),
        ({"size": "\u200b", "color": "Red"}, {"color": "red"}),
    ],
)
def test_options_of_people(options, read_as):
    (asked,) = read(None, [HUMAN | {"instruction_options": options}]).human
    assert asked == Instruction("I want it", ("soft",), read_as)


def test_an_instruction_that_asks_for_nothing_is_left_out():
    entries = [HUMAN | {"instruction_attributes": []}, HUMAN | {"instruction_attributes": ["<b>"]}, HUMAN]
    assert len(read(None, entries).human) == 1


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (5, "its instructions should be a list of objects"),
        ({}, "its instructions should be a list of objects"),
        (["x"], "its instructions should be a list of objects"),
        ([{}], "instruction_attributes: should be a list of texts, got None"),
        ([HUMAN | {"instruction": None}], "instruction: should be a text, got None"),
        ([HUMAN | {"instruction_options": [5]}], "instruction_options: should be a list of texts"),
        ([HUMAN | {"instruction_options": {"size": 5}}], "instruction_options: should be a list of texts"),
        (
            [HUMAN | {"instruction_options": "red"}],
            "instruction_options: should be a list of texts, got 'red'",
        ),
    ],
)
def test_broken_instructions_of_people(entries, said):
    with pytest.raises(BrokenRecord) as caught:
        read(None, entries)
    assert str(caught.value).startswith(said)
