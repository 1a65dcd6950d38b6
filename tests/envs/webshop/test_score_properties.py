"""What the score promises of all purchases.

1. It is what an oracle computes that was written from the published rules, in plain loops.
2. The goal's product with the right options scores exactly 1, for every goal; no score leaves 0 to 1.
3. One more hit never lowers it: an option, an attribute, a lower price.
4. It does not depend on the order of options, attributes, bullets and words, nor on letter case.
"""

import string
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz, utils

from actfocus.envs.webshop.goals import NO_LIMIT
from actfocus.envs.webshop.score import COLOURS, score
from actfocus.envs.webshop.shop import open_shop

MATCHES = ["fuzzy", "equal"]

# 1. The oracle. ----------------------------------------------------------------------------------------

FUNCTION_WORDS = {"in", "up", "over"}
"""Those that occur in the titles of the shipped catalogue."""


def words(title):
    found, word = set(), ""
    for character in title.lower() + " ":
        if character in string.ascii_lowercase:
            word += character
        else:
            found.add(word)
            word = ""
    return {word for word in found if len(word) > 1} - FUNCTION_WORDS


def alike(one, other):
    return fuzz.token_set_ratio(one, other, processor=utils.default_process) > 85


def oracle(product, chosen, goal, wanted, match):
    own, asked = words(product.title), words(wanted.title)
    shared = 0
    for word in asked:
        shared += word in own
    if shared == 0:
        factor = 0.0
    elif 10 * shared < len(asked):
        factor = 0.1
    else:
        levels = 0
        for level in set(product.levels):
            levels += level in wanted.levels
        factor = 1.0 if product.query == wanted.query or levels >= 2 or 5 * shared > len(asked) else 0.5

    attributes = 0
    for attribute in goal.attributes:
        hit = False
        for each in product.attributes:
            hit = hit or alike(each, attribute)
        for text in [product.title, product.description, " ".join(product.bullets)]:
            hit = hit or attribute in text.lower()
        attributes += hit

    options = 0
    for name, value in goal.options.items():
        hit = False
        for key, own_value in chosen.items():
            if match == "equal":
                hit = hit or (key == name and own_value == value)
                continue
            short = own_value
            for colour in COLOURS:
                if colour in own_value:
                    short = colour
                    break
            hit = hit or own_value == value or alike(short, f"{name} {value}")
        options += hit

    price = not product.price > goal.limit
    share = (attributes + options + price) / (len(goal.attributes) + len(goal.options) + 1)
    return factor * share, factor, attributes, options, price


def purchase(rng, shop):
    """A random product, some choices, and a goal that is often one for a product like it."""
    products = shop.catalogue.products
    goal = shop.goals[rng.integers(len(shop.goals))]
    near = goal.product + int(rng.integers(-3, 4))
    index = near % len(products) if rng.random() < 0.5 else int(rng.integers(len(products)))
    source = products[index if rng.random() < 0.7 else int(rng.integers(len(products)))]
    chosen = {name: str(rng.choice(values)) for name, values in source.options.items() if rng.random() < 0.8}
    for name in [name for name in chosen if rng.random() < 0.2]:
        chosen[name] = str(rng.choice(["x-", "dark ", "two ", "big red "])) + chosen[name]
    return products[index], chosen, goal, products[goal.product]


def test_the_score_is_the_oracles(shipped):
    rng, seen = np.random.default_rng(0), [Counter() for _ in range(4)]
    for _ in range(4_000):
        case = purchase(rng, shipped)
        for match in MATCHES:
            expected = oracle(*case, match)
            found = score(*case, option_match=match)
            assert (found.type, found.attributes, found.options, found.price) == expected[1:]
            assert found.total == pytest.approx(expected[0])
            assert 0 <= found.total <= 1
            for counter, part in zip(seen, expected[1:], strict=True):
                counter[part] += 1
    # Else the oracle would have had nothing to say.
    assert [sorted(counter) for counter in seen] == [[0, 0.1, 0.5, 1], [0, 1, 2, 3], [0, 1, 2], [False, True]]
    assert all(count >= 10 for counter in seen for count in counter.values())


# 2. The right purchase. --------------------------------------------------------------------------------


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("catalogue", ["shipped", "real"])
def test_the_goal_product_with_the_right_options_scores_one_for_every_goal(catalogue, match, request):
    shop = request.getfixturevalue(catalogue)
    products = shop.catalogue.products
    for goal in shop.goals:
        wanted = products[goal.product]
        right = score(wanted, goal.options, goal, wanted, option_match=match)
        assert right.total == 1, (wanted.id, goal)
        assert (right.attributes, right.options) == (len(goal.attributes), len(goal.options))
    if catalogue == "real":
        assert len(shop.goals) == 6_910


def test_a_purchase_that_lacks_anything_scores_less_than_one(shipped):
    products, lacking = shipped.catalogue.products, Counter()
    for goal in shipped.goals:
        wanted = products[goal.product]
        for name, value in goal.options.items():
            others = {key: chosen for key, chosen in goal.options.items() if key != name}
            wrong = [others] + [others | {name: other} for other in wanted.options[name] if other != value]
            for chosen in wrong:
                assert score(wanted, chosen, goal, wanted, option_match="equal").total < 1
                lacking[score(wanted, chosen, goal, wanted).total < 1] += 1
        assert score(replace(wanted, price=goal.limit + 0.01), goal.options, goal, wanted).total < 1
    assert set(lacking) == {True}  # no two values of the shipped catalogue are alike


def test_no_sibling_that_lacks_an_attribute_scores_one(shipped):
    products = shipped.catalogue.products
    for index in range(0, len(shipped.goals), 5):
        goal = shipped.goals[index]
        wanted = products[goal.product]
        for other in products:
            if other.query == wanted.query and other is not wanted:
                assert score(other, goal.options, goal, wanted).total < 1


# 3. and 4. What changes a score, and what does not. ----------------------------------------------------


@st.composite
def purchases(draw):
    shop = open_shop("shipped")
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return *purchase(rng, shop), draw(st.sampled_from(MATCHES))


def total(product, chosen, goal, wanted, match):
    return score(product, chosen, goal, wanted, option_match=match).total


@settings(max_examples=150, deadline=None)
@given(purchases(), st.data())
def test_one_more_hit_never_lowers_the_score(case, data):
    product, chosen, goal, wanted, match = case
    before = total(*case)
    for name, value in goal.options.items():
        if name not in chosen:
            assert total(product, chosen | {name: value}, goal, wanted, match) >= before
            single = replace(goal, options={name: value})
            assert score(product, chosen | {name: value}, single, wanted, option_match=match).options == 1
    extra = data.draw(st.sampled_from([*goal.attributes, *wanted.attributes, "something new"]))
    for richer in [
        replace(product, attributes=(*product.attributes, extra)),
        replace(product, bullets=(*product.bullets, f"Very {extra}, really")),
        replace(product, description=f"{product.description} {extra}"),
    ]:
        assert total(richer, chosen, goal, wanted, match) >= before
        if extra in goal.attributes:
            assert score(richer, chosen, replace(goal, attributes=(extra,)), wanted).attributes == 1
    cheaper = data.draw(st.floats(0, product.price))
    assert total(replace(product, price=cheaper), chosen, goal, wanted, match) >= before
    for limit in (goal.limit + 10, NO_LIMIT):
        assert total(product, chosen, replace(goal, limit=limit), wanted, match) >= before


@settings(max_examples=150, deadline=None)
@given(purchases(), st.data())
def test_order_does_not_matter(case, data):
    product, chosen, goal, wanted, match = case

    def shuffled(items):
        return tuple(data.draw(st.permutations(list(items))))

    other = replace(
        product,
        attributes=shuffled(product.attributes),
        bullets=shuffled(product.bullets),
        levels=shuffled(product.levels),
        options={name: shuffled(values) for name, values in shuffled(product.options.items())},
    )
    asked = replace(goal, attributes=shuffled(goal.attributes), options=dict(shuffled(goal.options.items())))
    titled = replace(wanted, title=" ".join(shuffled(wanted.title.split())))
    swapped = score(other, dict(shuffled(chosen.items())), asked, titled, option_match=match)
    assert swapped == score(product, chosen, goal, wanted, option_match=match)


CASES = st.sampled_from([str.upper, str.lower, str.title, str.swapcase])


@settings(max_examples=150, deadline=None)
@given(purchases(), st.data())
def test_letter_case_does_not_matter(case, data):
    product, chosen, goal, wanted, match = case

    def recased(value):
        if isinstance(value, str):
            return data.draw(CASES)(value)
        if isinstance(value, dict):
            return {name: recased(each) for name, each in value.items()}
        return tuple(map(recased, value))

    texts = ["title", "description", "bullets", "query", "attributes", "levels"]
    other = replace(product, **{name: recased(getattr(product, name)) for name in texts})
    asked = replace(goal, attributes=recased(goal.attributes), options=recased(goal.options))
    titled = replace(wanted, title=recased(wanted.title))
    swapped = score(other, recased(chosen), asked, titled, option_match=match)
    assert swapped == score(product, chosen, goal, wanted, option_match=match)
