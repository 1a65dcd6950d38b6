"""What the score of a purchase promises, by hand.

1. The factor for the kind of product is 1, 0.5, 0.1 or 0, by query, category levels and title words.
2. An attribute counts by similarity or by its words in title, bullets or description.
3. An option counts by similarity, colours by their first colour word in list order; on request by equality.
4. The comparison of phrases is token-set ratio above 85, as computed by hand below.

`test_score_properties.py` has an oracle, and what holds for all purchases.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from actfocus.envs.webshop.goals import NO_LIMIT, Goal
from actfocus.envs.webshop.score import COLOURS, Score, content_words, has_attribute, score, type_score
from tests.envs.webshop.hand_made import product

COLOUR_FILE = Path(__file__).parents[4] / "shared" / "data" / "webshop" / "colours.txt"

MUG = product(name="Plain Mug", options={"Color": ["red", "navy blue"], "Size": ["large", "x-large"]})


def goal(options=None, attributes=("matte",), limit=10.0):
    return Goal(0, "", attributes, {} if options is None else options, limit)


def options_hit(chosen, wanted, match="fuzzy"):
    return score(MUG, chosen, goal(wanted), MUG, option_match=match).options


# 1. The kind of product. -------------------------------------------------------------------------------

WANTED = product(name="alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu")  # twelve words
ELSEWHERE = {"query": "cups", "product_category": "garden › pots › clay"}


@pytest.mark.parametrize(
    ("title", "fields", "factor"),
    [
        ("alpha beta gamma", ELSEWHERE, 1),  # 25 % of the title
        ("alpha beta", ELSEWHERE, 0.5),  # 17 %
        ("alpha beta", {"query": "cups"}, 1),  # three levels in common
        ("alpha beta", {**ELSEWHERE, "product_category": "mugs › home"}, 1),  # two, in another order
        ("alpha beta", {**ELSEWHERE, "product_category": "home › pots › clay"}, 0.5),  # one
        ("alpha beta", {**ELSEWHERE, "query": "mugs"}, 1),
        ("alpha", ELSEWHERE, 0.1),  # 8 %
        ("alpha", {}, 0.1),  # although query and category agree
        ("something else", ELSEWHERE, 0),
        ("something else", {}, 0),
        ("ALPHA, Beta: gamma!", ELSEWHERE, 1),
        ("alphabet betas gammas", ELSEWHERE, 0),  # words, not pieces of them
    ],
)
def test_the_factor_by_hand(title, fields, factor):
    bought = product(name=title, **fields)
    assert type_score(bought, WANTED) == factor
    whole = score(bought, {}, goal(), WANTED)
    assert (whole.type, whole.total) == (factor, factor)


@pytest.mark.parametrize(("shared", "factor"), [(0, 0), (1, 0.5), (2, 0.5), (3, 1)])
def test_the_borders_of_the_factor(shared, factor):
    """Of ten words, one is no less than 10 %, and two no more than 20 %."""
    ten = product(name="alpha beta gamma delta epsilon zeta eta theta iota kappa")
    bought = product(name=" ".join(["other", *ten.title.split()[:shared]]), **ELSEWHERE)
    assert type_score(bought, ten) == factor


def test_a_wanted_title_without_words_leaves_query_and_category_to_decide():
    nameless = product(name="12 x 3")
    assert content_words(nameless.title) == frozenset()
    assert type_score(product(name="anything"), nameless) == 1
    assert type_score(product(name="anything", **ELSEWHERE), nameless) == 0.5


def test_content_words():
    title = "The Best Mugs for Tea, 2-Pack of 12oz (Men's non-slip) A B x_y é"
    assert content_words(title) == {"best", "mugs", "tea", "pack", "oz", "men's", "non-slip"}


# 2. Attributes. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "attribute", "hit"),
    [
        ({"attributes": ["easy to clean"]}, "clean easy", True),
        ({"attributes": ["stainless steel"]}, "stainles steel", True),  # 97
        ({"attributes": ["dairy free"]}, "gluten free", False),
        ({"attributes": ["gluten", "free"]}, "gluten free", True),  # a subset is as good as the whole
        ({"name": "A BPA Free Mug"}, "bpa free", True),
        ({"small_description": ["it is BPA free", "blue"]}, "bpa free", True),
        ({"full_description": "It is BPA-free."}, "bpa free", False),
        ({"full_description": "It is BPA free."}, "bpa free", True),
        ({"name": "Free BPA mug"}, "bpa free", False),  # in a text the words must stand together
        ({}, "bpa free", False),
    ],
)
def test_attributes_by_hand(fields, attribute, hit):
    bought = product(**({"attributes": []} | fields))
    assert has_attribute(bought, attribute) == hit
    assert score(bought, {}, goal(attributes=(attribute,)), bought).attributes == hit


# 3. Options. -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "wanted", "fuzzy", "equal"),
    [
        ("large", "large", 1, 1),
        ("LARGE ", "large", 1, 1),
        ("large", "x-large", 1, 0),
        ("x-large", "large", 0, 0),  # "x" is no word of "size large": 83
        ("small", "large", 0, 0),
        ("", "large", 0, 0),
        ("", "", 1, 1),
    ],
)
def test_a_size_hits_a_wanted_one_that_holds_it_unless_equality_is_asked_for(chosen, wanted, fuzzy, equal):
    assert options_hit({"size": chosen}, {"size": wanted}) == fuzzy
    assert options_hit({"size": chosen}, {"size": wanted}, "equal") == equal


@pytest.mark.parametrize(
    ("chosen", "wanted", "hit"),
    [
        ("navy blue", "blue", 1),  # blue stands before navy in the list
        ("navy blue", "navy", 0),
        ("blue navy", "navy", 0),  # the list's order counts, not the value's
        ("dark red", "red", 0),  # dark stands before red
        ("dark red", "dark", 1),
        ("bright red xyz", "red", 1),
        ("credit card", "red", 1),  # it holds "red"
        ("blackberry", "black", 1),
        ("dash", "ash", 1),
        ("dash", "dash", 1),  # as "ash" it would miss, but it is the very value
        ("DASH", "dash", 1),
        ("dash one", "dash two", 0),
        ("stone", "tan", 0),
    ],
)
def test_a_chosen_colour_stands_for_its_first_colour_word(chosen, wanted, hit):
    assert options_hit({"color": chosen}, {"color": wanted}) == hit
    assert options_hit({"other name": chosen}, {"color": wanted}) == hit
    assert options_hit({"color": chosen}, (wanted,)) == hit


def test_the_colour_words_are_those_of_webshop():
    assert len(set(COLOURS)) == len(COLOURS) == 102
    assert COLOURS.index("blue") < COLOURS.index("navy")
    if not COLOUR_FILE.exists():
        pytest.skip(f"WebShop's list is not at {COLOUR_FILE}")
    assert list(COLOURS) == COLOUR_FILE.read_text().split()


def test_the_name_of_an_option_counts_among_its_words():
    assert options_hit({"": "size"}, {"size": "large"}) == 1  # as published
    assert options_hit({"": "size"}, ("large",)) == 0
    assert options_hit({"": "size"}, {"size": "large"}, "equal") == 0


def test_equality_asks_for_the_value_under_its_own_name():
    wanted = {"inner": "large", "outer": "small"}
    assert options_hit({"inner": "small", "outer": "large"}, wanted) == 2
    assert options_hit({"inner": "small", "outer": "large"}, wanted, "equal") == 0
    assert options_hit({"inner": "large", "outer": "large"}, wanted, "equal") == 1
    assert options_hit({"inner": "large", "outer": "small"}, wanted, "equal") == 2


@pytest.mark.parametrize(("match", "hits"), [("fuzzy", 2), ("equal", 1)])
def test_values_that_people_asked_for_have_no_names(match, hits):
    chosen = {"color": "red", "size": "x-large"}
    assert options_hit(chosen, ("large", "red", "wool"), match) == hits
    assert options_hit(dict(reversed(chosen.items())), ("red", "wool", "large"), match) == hits
    assert options_hit(chosen, (), match) == 0


# 4. Phrases. -------------------------------------------------------------------------------------------


def longest_common(one, other):
    """Length of the longest common subsequence."""
    best = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, j in itertools.product(range(len(one)), range(len(other))):
        same = best[i][j] + (one[i] == other[j])
        best[i + 1][j + 1] = max(same, best[i][j + 1], best[i + 1][j])
    return best[-1][-1]


def ratio(one, other):
    return 200 * longest_common(one, other) / (len(one) + len(other)) if one or other else 100


def ratio_by_hand(one, other):
    """Words in common, against them with the rest of either, and these against each other."""
    first, second = (set("".join(c if c.isalnum() else " " for c in t.lower()).split()) for t in (one, other))
    if not first or not second:
        return 0
    common = " ".join(sorted(first & second))
    whole = [" ".join(filter(None, [common, *sorted(own - (first & second))])) for own in (first, second)]
    if common and (first <= second or second <= first):
        return 100
    pairs = [tuple(whole), *([(common, whole[0]), (common, whole[1])] if common else [])]
    return max(ratio(a, b) for a, b in pairs)


PHRASES = [
    *("large", "x-large", "X Large!", "size large", "larger", "small", "gluten free", "dairy free"),
    *(
        "stainless steel",
        "stainles steel",
        "steel, stainless",
        "easy to clean",
        "easy clean",
        "easy cleaning",
    ),
    *("quick dry", "quick drying", "quickly dry", "machine wash", "machine washable", "hand wash", "10 inch"),
    *(
        "16 inch",
        "long lasting",
        "long lasting wear",
        "non slip",
        "anti slip",
        "nonslip",
        "color: red",
        "red",
    ),
]


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrases_are_alike_as_computed_by_hand(phrase):
    for other in PHRASES:
        own = product(attributes=[other])
        assert score(own, {}, goal(attributes=(phrase,)), own).attributes == (
            ratio_by_hand(phrase, other) > 85
        )


def test_hand_computed_phrases_fall_on_both_sides_of_the_border():
    ratios = [ratio_by_hand(*pair) for pair in itertools.combinations(PHRASES, 2)]
    assert any(75 < value <= 85 for value in ratios) and any(85 < value < 95 for value in ratios)


# The whole. --------------------------------------------------------------------------------------------


def test_a_score_put_together_by_hand():
    wanted = goal({"color": "red", "size": "large"}, ("matte", "leak proof"), limit=10.0)
    assert score(MUG, {"color": "red"}, wanted, MUG) == Score(3 / 5, 1.0, 1, 1, True)
    dear = replace(MUG, price=10.01)
    assert score(dear, {"color": "red", "size": "large"}, wanted, MUG) == Score(3 / 5, 1.0, 1, 2, False)
    other_kind = product(name="Plain Mug but one two three four five six seven eight", **ELSEWHERE)
    assert score(MUG, {}, wanted, other_kind).total == 0.5 * 2 / 5


@pytest.mark.parametrize(("price", "hit"), [("$9.99", True), ("$10.00", True), ("$10.01", False)])
def test_the_limit_itself_is_within_it(price, hit):
    bought = product(pricing=price)
    assert score(bought, {}, goal(limit=10.0), bought).price is hit
    assert score(bought, {}, goal(limit=NO_LIMIT), bought).price is True
