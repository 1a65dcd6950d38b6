"""What the synthetic shop promises.

1. Size and layout: WebShop's files, hundreds of products, thousands of goals, few words.
2. Every instruction has one answer, and reading tells it from its siblings, which differ in one attribute.
3. What a product has stands on its page; what it lacks does not, not even in other words that a fuzzy
   comparison takes for the same.
4. The seed alone decides, in every process.
"""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys

import pytest
from rapidfuzz import fuzz

from actfocus.envs.webshop.assortment import BRANDS, FACETS, KINDS, OPTIONS
from actfocus.envs.webshop.generator import PAGE_WORDS, TITLE_LENGTH, generate, ordinary_words

SHA256 = "c0899d9e24394fb1bb6aaa3bf2cf439d642d388be9634b35ebb38e17e5222357"
SEEDS = [0, 1, 2]


@pytest.fixture(scope="module", params=SEEDS)
def catalogue(request):
    return generate(seed=request.param)


@pytest.fixture(scope="module")
def default():
    return generate()


def canonical(catalogue):
    return json.dumps(catalogue, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def options(item):
    """Option name → values."""
    drawn = item["customization_options"] or {}
    return {name: [value["value"] for value in values] for name, values in drawn.items()}


def texts(item):
    return [item["name"], item["full_description"], *item["small_description"]]


def families(items):
    """Neighbours with the same query."""
    return [list(group) for _, group in itertools.groupby(items, key=lambda item: item["query"])]


def prices(item):
    assert re.fullmatch(r"\$\d+\.\d\d( - \$\d+\.\d\d)?", item["pricing"])
    return [float(price) for price in re.findall(r"[\d.]+", item["pricing"])]


def attribute_pool(kind):
    return [value for key in kind.facets.split() for value in FACETS[key].values]


# 1. Size and layout


def test_counts(catalogue):
    items, instructions = catalogue
    goals = sum(len(list(itertools.product(*options(item).values()))) for item in items)
    assert 330 <= len(items) <= 450
    assert 1_500 <= goals <= 4_000
    assert len({item["category"] for item in items}) >= 8
    assert len({item["query"] for item in items}) == len(KINDS) >= 36
    assert list(instructions) == [item["asin"] for item in items]


def test_layout(catalogue):
    items, instructions = catalogue
    for item in items:
        assert list(item) == [
            *("asin", "name", "full_description", "small_description", "pricing", "product_category"),
            *("category", "query", "average_rating", "customization_options", "images"),
        ]
        assert item["product_category"].count(" › ") == 2
        assert item["query"] == item["query"].lower()
        assert 3 <= item["average_rating"] <= 5
        assert item["average_rating"] == round(item["average_rating"], 1)
        assert len(item["name"]) <= TITLE_LENGTH
        assert item["name"].split()[0].lower() in BRANDS
        assert 3 <= len(item["small_description"]) <= 5
        assert all(4 <= len(bullet.split()) <= 9 for bullet in item["small_description"])
        assert 1 <= item["full_description"].count(".") <= 2
    for order in instructions.values():
        assert list(order) == ["attributes", "instruction", "instruction_attributes"]
        assert 2 <= len(order["instruction_attributes"]) <= 3


def test_instructions_name_the_type_and_the_attributes(catalogue):
    items, instructions = catalogue
    for item in items:
        order = instructions[item["asin"]]
        *before, last = order["instruction_attributes"]
        assert order["instruction"] in (
            f"Find me {', '.join([*before, last])} {item['query']}",
            f"Find me {', '.join(before)} {item['query']} with {last}",
        )
        assert order["instruction"] == "F" + order["instruction"][1:].lower()


def test_options(catalogue):
    items, _ = catalogue
    counts = {0: 0, 1: 0, 2: 0}
    for item in items:
        drawn = options(item)
        counts[len(drawn)] += 1
        assert item["customization_options"] == "" or drawn
        assert all(2 <= len(values) <= 4 for values in drawn.values())
        values = [value for values in drawn.values() for value in values]
        assert len(set(values)) == len(values)
        assert all(value == value.lower() for value in values)
    assert all(counts.values())


def test_plain_text(catalogue):
    text = canonical(catalogue).decode()
    words = json.dumps(catalogue, ensure_ascii=False)
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', words)
    assert text.replace("›", "").isascii()
    assert not any(mark in string for string in strings for mark in ("[", "]", "||"))


def test_few_words(default):
    items, instructions = default
    seen = [instructions[item["asin"]]["instruction"] for item in items]
    seen += [text for item in items for text in (*texts(item), item["product_category"], item["category"])]
    seen += [text for item in items for name, values in options(item).items() for text in (name, *values)]
    words = set(re.findall(r"[a-z0-9]+", " ".join(seen).lower()))
    assert 400 <= len(words) <= 600
    assert words <= ordinary_words()


def test_prices(catalogue):
    items, _ = catalogue
    assert all(3 <= price <= 400 for item in items for price in prices(item))
    assert all(prices(item) == sorted(prices(item)) for item in items)
    for family in families(items):
        assert len({prices(item)[0] for item in family}) == len(family)


@pytest.mark.parametrize(("count", "letters"), [(110, 4), (2_000, 6)])
def test_ids(count, letters):
    items, _ = generate(count)
    ids = [item["asin"] for item in items]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(rf"([b-z][aiou]){{{letters // 2}}}", asin) for asin in ids)
    assert letters <= 10
    assert not ordinary_words().intersection(ids)
    assert ordinary_words().issuperset(PAGE_WORDS.split())


# 2. Instructions and siblings


def test_no_other_product_has_what_an_instruction_names(catalogue):
    items, instructions = catalogue
    has = {item["asin"]: set(instructions[item["asin"]]["attributes"]) for item in items}
    for item in items:
        asked = set(instructions[item["asin"]]["instruction_attributes"])
        fitting = [
            other["asin"]
            for other in items
            if other["query"] == item["query"] and asked <= has[other["asin"]]
        ]
        assert fitting == [item["asin"]]


def test_siblings_differ_from_the_base_in_one_attribute(catalogue):
    items, instructions = catalogue
    assert len(families(items)) == 110
    for base, *siblings in families(items):
        assert 2 <= len(siblings) <= 3
        attributes = instructions[base["asin"]]["attributes"]
        for sibling in siblings:
            others = instructions[sibling["asin"]]["attributes"]
            assert sum(one != other for one, other in zip(attributes, others, strict=True)) == 1
            for key in ("full_description", "category", "query", "customization_options"):
                assert sibling[key] == base[key]


def test_beyond_the_room_of_a_type_siblings_still_differ():
    items, instructions = generate(3_000)
    assert len(families(items)) == 3_000
    for family in families(items):
        for item in family:
            asked = set(instructions[item["asin"]]["instruction_attributes"])
            assert [i for i in family if asked <= set(instructions[i["asin"]]["attributes"])] == [item]


# 3. What a page shows


def test_attributes_stand_in_the_bullets_and_the_wanted_ones_in_the_title(catalogue):
    items, instructions = catalogue
    for item in items:
        order = instructions[item["asin"]]
        assert len(set(order["attributes"])) == len(order["attributes"])
        assert set(order["instruction_attributes"]) <= set(order["attributes"])
        for attribute in order["attributes"]:
            assert sum(attribute in bullet for bullet in item["small_description"]) == 1
        for attribute in order["instruction_attributes"]:
            assert f" {attribute} " in item["name"].lower()


def test_no_page_holds_an_attribute_that_the_product_lacks(catalogue):
    items, instructions = catalogue
    pools = {kind.query: attribute_pool(kind) for kind in KINDS}
    for item in items:
        has = instructions[item["asin"]]["attributes"]
        lacking = [attribute for attribute in pools[item["query"]] if attribute not in has]
        assert not any(attribute in text.lower() for attribute in lacking for text in texts(item))


def test_no_two_attributes_of_a_type_look_alike():
    for kind in KINDS:
        for one, other in itertools.combinations(attribute_pool(kind), 2):
            assert fuzz.token_set_ratio(one, other) < 85, (kind.name, one, other)


def test_no_two_values_of_an_option_look_alike():
    for name, values in OPTIONS.values():
        for one, other in itertools.permutations(values, 2):
            assert fuzz.token_set_ratio(f"{name.lower()} {one}", other) < 85, (one, other)


def test_attributes_are_no_option_values():
    attributes = {value for facet in FACETS.values() for value in facet.values}
    assert attributes.isdisjoint(value for _, values in OPTIONS.values() for value in values)


def test_the_tables_hold_together():
    assert {key for kind in KINDS for key in kind.facets.split()} == set(FACETS)
    assert {key for kind in KINDS for key in kind.options.split()} == set(OPTIONS)
    assert all(facet.bullet.count("{}") == 1 for facet in FACETS.values())
    for kind in KINDS:
        names = [OPTIONS[key][0] for key in kind.options.split()]
        assert len(set(names)) == len(names) <= 2


# 4. Determinism


def test_the_default_catalogue_is_pinned(default):
    assert hashlib.sha256(canonical(default)).hexdigest() == SHA256


def test_another_process_makes_the_same(default):
    code = (
        "import json, sys; from actfocus.envs.webshop.generator import generate;"
        "sys.stdout.buffer.write(json.dumps(generate(), sort_keys=True, ensure_ascii=False,"
        " separators=(',', ':')).encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert made.stdout == canonical(default)


def test_the_seed_matters_and_json_keeps_all(default):
    assert generate(seed=1) != default
    assert json.loads(canonical(default)) == list(default)


def test_no_families():
    with pytest.raises(ValueError, match="families must be at least 1"):
        generate(0)
