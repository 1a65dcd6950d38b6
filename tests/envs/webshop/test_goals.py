"""Goals, promises.

1. One synthetic goal for each combination of a product's option values, in a fixed order.
2. Price limits as published: the larger of two of the next four multiples of 10 above the price.
3. The split by product: training and evaluation share no product, and adding products moves none.
4. The split by goal is WebShop's own.
5. A draw is uniform over products, then over their goals.
6. People's instructions make goals of their own.
"""

import itertools
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from actfocus.envs.webshop.goals import NO_LIMIT, Goals, Pool, price_limit
from actfocus.envs.webshop.products import Instruction, Product, read_product
from actfocus.envs.webshop.shop import make_shop
from actfocus.errors import ConfigError
from tests.envs.webshop.records import item, order

SOME = Instruction("Find me mugs", ("matte",))


def made(asin="b1", options=None, price=12.99, instruction=SOME, human=()) -> Product:
    options = {name: tuple(values) for name, values in (options or {}).items()}
    read = read_product(item(asin), order(), None)
    return replace(read, options=options, price=price, instruction=instruction, human=human)


def numbers(count):
    """So many option values."""
    return [f"v{number}" for number in range(count)]


option_sets = st.dictionaries(
    st.sampled_from(["color", "size", "style", "a", "z"]),
    st.lists(st.sampled_from("sml"), min_size=1, max_size=4),
    max_size=3,
)


# 1. Combinations


@given(st.lists(option_sets, max_size=5))
def test_one_goal_for_each_combination(catalogue):
    products = [made(f"b{number}", options) for number, options in enumerate(catalogue)]
    goals = Goals(products, "synthetic")
    expected = []
    for index, options in enumerate(catalogue):
        names = sorted(options)
        for combination in itertools.product(*(options[name] for name in names)):
            expected.append((index, dict(zip(names, combination, strict=True))))
    assert len(goals) == len(expected)
    assert [(goal.product, goal.options) for goal in goals] == expected
    assert all(list(goal.options) == sorted(goal.options) for goal in goals)


def test_texts():
    products = [made("b1", {"size": ["s", "xl"], "color": ["red", "black | white"]}), made("b2", price=985.0)]
    texts = [goal.text.partition(", and price lower than ") for goal in Goals(products, "synthetic")]
    assert [text for text, _, _ in texts] == [
        "Find me mugs with color: red, and size: s",
        "Find me mugs with color: red, and size: xl",
        "Find me mugs with color: black | white, and size: s",
        "Find me mugs with color: black | white, and size: xl",
        "Find me mugs",
    ]
    assert all(price.endswith(".00 dollars") for _, _, price in texts[:4])
    assert texts[4] == ("Find me mugs", "", ""), "no limit, so no word of one"


def test_the_text_names_the_limit():
    for goal in Goals([made(options={"size": numbers(20)})], "synthetic"):
        assert goal.text.endswith(f", and price lower than {goal.limit:.2f} dollars")
        assert goal.attributes == ("matte",)


def test_products_without_instruction_have_no_goals():
    products = [made("b1", instruction=None), made("b2"), made("b3", {"s": ["1", "2"]}, instruction=None)]
    goals = Goals(products, "synthetic")
    assert [goal.product for goal in goals] == [1]
    assert (goals.owners, list(goals.of_owner(0))) == ([1], [0])


@pytest.mark.parametrize("index", [-1, 6, 10**9])
def test_beyond_the_goals(index):
    goals = Goals([made(options={"size": numbers(6)})], "synthetic")
    with pytest.raises(IndexError):
        goals[index]


def test_a_million_goals_need_no_list():
    goals = Goals([made(options={"a": numbers(1_000), "b": numbers(1_000)}), made("b2")], "synthetic")
    assert len(goals) == 1_000_001
    assert goals[999_999].options == {"a": "v999", "b": "v999"}
    assert goals[1_000].options == {"a": "v1", "b": "v0"}
    assert goals[1_000_000].product == 1


def test_without_products():
    assert list(Goals([], "synthetic")) == []


# 2. Limits


@given(st.floats(0, 1_000_000), st.text(max_size=8))
def test_limits(price, key):
    limit = price_limit(price, key)
    following = [ten for ten in range(10, 1_000, 10) if ten > price][:4]
    if len(following) < 2:
        assert limit == NO_LIMIT
    else:
        assert limit in following[1:]  # the larger of two is never the first
        assert limit > price


@pytest.mark.parametrize("price", [0, 9.99, 10, 20, 29.999999999999996, 30, 949.99, 950, 959.99, 960, 969.99])
def test_the_larger_of_two_draws(price):
    following = [ten for ten in range(10, 1_000, 10) if ten > price][:4]
    pairs = Counter(max(pair) for pair in itertools.combinations(following, 2))
    found = Counter(price_limit(price, f"key {number}") for number in range(3_000))
    assert set(found) == set(pairs)
    if len(pairs) > 1:
        share = 3_000 / sum(pairs.values())
        limits = sorted(pairs)
        assert chisquare([found[x] for x in limits], [pairs[x] * share for x in limits]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("price", "limited"), [(979.99, True), (980, False), (990, False), (999.5, False), (1e6, False)]
)
def test_high_prices_have_no_limit(price, limited):
    assert (price_limit(price, "x") < NO_LIMIT) == limited


def test_limits_are_the_same_everywhere_and_use_no_global_state():
    state = random.getstate()
    found = [price_limit(12.99, f"b1 {number}") for number in range(12)]
    assert found == [50, 40, 50, 50, 40, 30, 50, 50, 50, 30, 30, 50]
    assert random.getstate() == state


def test_the_limit_belongs_to_the_product_and_its_goal_not_to_its_place():
    one, other = made("b1", {"size": numbers(30)}), made("b2", {"size": numbers(30)})
    limits = {}
    for products in ([one], [other, one], [one, other]):
        goals = Goals(products, "synthetic")
        own = [goal.limit for goal in goals if products[goal.product].id == "b1"]
        assert limits.setdefault("b1", own) == own
    assert len(set(limits["b1"])) > 1
    assert [goal.limit for goal in Goals([other], "synthetic")] != limits["b1"]


# 3. The split by product


@pytest.fixture(scope="module")
def many():
    return [replace(made(), id=f"b{number:09}") for number in range(4_000)]


def sides(products, split="product", kind="synthetic"):
    goals = Goals(products, kind)
    pools = [Pool(goals, products, split, evaluation=evaluation) for evaluation in (False, True)]
    return goals, *pools


def products_of(goals, pool):
    return {goals[index].product for index in pool.goals()}


def test_the_sides_share_no_product_and_leave_none_out(shipped):
    products = shipped.catalogue.products
    goals, training, evaluation = sides(products)
    for own, other in [(training, evaluation), (evaluation, training)]:
        assert products_of(goals, own).isdisjoint(products_of(goals, other))
        assert len(own) == len(products_of(goals, own))
    assert products_of(goals, training) | products_of(goals, evaluation) == set(goals.owners)
    assert sorted(training.goals() + evaluation.goals()) == list(range(len(goals)))


def test_a_fifth_is_for_evaluation(many, shipped):
    _, training, evaluation = sides(many)
    assert len(training) + len(evaluation) == 4_000
    # Five standard deviations of a binomial count.
    assert abs(len(evaluation) - 800) < 5 * math.sqrt(4_000 * 0.2 * 0.8)
    assert 0.1 < len(shipped.evaluation) / len(shipped.catalogue.products) < 0.3


def test_adding_products_moves_none(many):
    def ids(products):
        goals, _, evaluation = sides(products)
        return {products[index].id for index in products_of(goals, evaluation)}

    few = many[1_000:1_500]
    kept = {product.id for product in few}
    assert ids(few) == ids(many) & kept == ids([*reversed(many)]) & kept


def test_the_kind_of_goal_moves_no_product(many):
    both = [replace(product, human=(SOME,)) for product in many[:300]]
    goals, training, evaluation = sides(both)
    other_goals, other_training, other_evaluation = sides(both, kind="human")
    assert products_of(goals, training) == products_of(other_goals, other_training)
    assert products_of(goals, evaluation) == products_of(other_goals, other_evaluation)


def test_with_one_product_both_sides_can_be_played():
    for split in ("product", "goal"):
        goals, training, evaluation = sides([made()], split)
        assert training.goals() == evaluation.goals() == [0] == list(range(len(goals)))


@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=12))
def test_neither_side_is_empty_where_there_are_two_products(ids):
    products = [replace(made(), id=f"b{number}") for number in sorted(ids)]
    found = []
    for ordered in (products, products[::-1]):
        goals, *pools = sides(ordered)
        found.append([{ordered[index].id for index in products_of(goals, pool)} for pool in pools])
    training, evaluation = found[0]
    assert training and evaluation and not training & evaluation
    assert training | evaluation == {product.id for product in products}
    assert found[1] == found[0], "whatever the order of the file"


def test_one_product_alone_changes_sides_and_only_where_a_side_is_empty(many):
    goals, training, evaluation = sides(many)
    one, other = ([many[index] for index in sorted(products_of(goals, p))] for p in (training, evaluation))
    assert [len(pool) for pool in sides(one[:5])[1:]] == [4, 1]
    assert [len(pool) for pool in sides(other[:5])[1:]] == [1, 4]
    goals, training, evaluation = sides([*one[:1], *other[:4]])
    assert (products_of(goals, training), products_of(goals, evaluation)) == ({0}, {1, 2, 3, 4})


# 4. The split by goal


@pytest.mark.parametrize("count", [1_501, 2_000, 6_910])
def test_the_split_by_goal_is_webshops_own(count):
    _, training, evaluation = sides([made(options={"size": numbers(count)})], "goal")
    shuffled = list(range(count))
    random.Random(233).shuffle(shuffled)
    assert evaluation.goals() == shuffled[:500]
    assert training.goals() == shuffled[1500:]
    assert (len(training), len(evaluation)) == (count - 1500, 500)


@pytest.mark.parametrize("count", [2, 5, 10, 99, 1_500])
def test_few_goals_are_split_by_share(count):
    _, training, evaluation = sides([made(options={"size": numbers(count)})], "goal")
    assert sorted(training.goals() + evaluation.goals()) == list(range(count))
    assert len(evaluation) == math.ceil(count / 5)


# 5. Draws


def test_draws_are_uniform_over_products_and_then_over_their_goals(many):
    sizes = [1, 2, 3, 50] * 8
    products = [
        replace(made(options={"size": numbers(size)}), id=own.id)
        for size, own in zip(sizes, many, strict=False)
    ]
    goals, training, evaluation = sides(products)
    for pool in (training, evaluation):
        rng = np.random.default_rng(7)
        drawn = [pool.draw(rng) for _ in range(6_000)]
        members = products_of(goals, pool)
        by_product = Counter(goal.product for goal in drawn)
        assert set(by_product) == members
        assert chisquare([by_product[index] for index in members]).pvalue > 1e-4
        for size in (2, 3, 50):
            index = next(index for index in members if sizes[index] == size)
            by_goal = Counter(goal.options["size"] for goal in drawn if goal.product == index)
            counts = [by_goal[value] for value in numbers(size)]
            if size < 50:
                assert chisquare(counts).pvalue > 1e-4
            else:
                assert sum(count > 0 for count in counts) > 35


def test_draws_of_the_split_by_goal_are_uniform_over_goals():
    goals, training, _ = sides([made("b1", {"s": numbers(4)}), made("b2", {"s": numbers(16)})], "goal")
    rng = np.random.default_rng(3)
    drawn = Counter((goal.product, goal.options["s"]) for goal in (training.draw(rng) for _ in range(4_000)))
    members = [(goals[index].product, goals[index].options["s"]) for index in training.goals()]
    assert len(members) == 16
    assert chisquare([drawn[member] for member in members]).pvalue > 1e-4
    assert set(drawn) == set(members)


def test_draws_follow_the_generator(shipped):
    def texts(seed):
        rng = np.random.default_rng(seed)
        return [shipped.training.draw(rng).text for _ in range(20)]

    assert texts(1) == texts(1) != texts(2)


# 6. People's goals


def test_goals_of_people():
    asked = (
        Instruction("i want a mug...", ("matte",), ("red", "xl")),
        Instruction("a mug. please.", ("soft",), {"size": "s"}),
    )
    products = [
        made("b0"),
        made("b1", {"size": ["s", "m"]}, human=asked),
        made("b2", price=5_000.0, human=asked),
    ]
    goals = Goals(products, "human")
    assert [goal.product for goal in goals] == [1, 1, 2, 2]
    assert [goal.text.partition(", and price")[0] for goal in goals] == ["i want a mug", "a mug. please"] * 2
    assert [goal.options for goal in goals] == [("red", "xl"), {"size": "s"}] * 2
    assert [goal.attributes for goal in goals] == [("matte",), ("soft",)] * 2
    assert [goal.limit < NO_LIMIT for goal in goals] == [True, True, False, False]
    assert [goal.text for goal in goals][2:] == ["i want a mug", "a mug. please"]


def test_a_shop_without_goals_of_the_kind_is_refused(shipped):
    with pytest.raises(ConfigError, match="the catalogue shipped has no human goals"):
        make_shop(shipped.catalogue, "human")


# WebShop's own thousand products


def test_the_published_goals(real):
    assert len(real.catalogue.products) == 1_000
    goals = list(real.goals)
    assert len(goals) == 6_910
    prices = [product.price for product in real.catalogue.products]
    assert all(goal.limit > prices[goal.product] for goal in goals)
    assert {goal.limit % 10 for goal in goals if goal.limit < NO_LIMIT} == {0}
    top = Counter(goal.product for goal in goals).most_common(10)
    assert sum(count for _, count in top) / len(goals) == pytest.approx(0.4, abs=0.03)
    evaluation, training = (products_of(real.goals, pool) for pool in (real.evaluation, real.training))
    assert evaluation.isdisjoint(training)
    assert 0.15 < len(evaluation) / len(real.goals.owners) < 0.25
