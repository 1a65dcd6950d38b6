"""What a visit to the shop promises.

1. Pages lead where their buttons say: search → results → product → details, and back.
2. What stands in brackets are the buttons, all of them can be pressed, and nothing else can.
3. Options are shown as chosen, and forgotten with the product.
4. Long texts are cut as documented, buttons never.

`test_visit_walks.py` has random walks through hostile shops.
"""

import pytest

from actfocus.envs.webshop.visit import BACK, BUY, NEXT, PREVIOUS, Page
from tests.envs.webshop.hand_made import mugs, product, visit_of

DRESSED = product(
    "b1",
    "Fine Mug",
    options={"Color": ["red", "navy blue"], "Size": ["large", "x-large"]},
    full_description="Made for tea.",
    small_description=["holds tea", "fits a hand"],
    pricing="$10.0 - $19.5",
    average_rating=4.5,
)


def press(visit, *texts):
    for text in texts:
        label = visit.find_button(text)
        assert label is not None, (text, visit.buttons())
        visit.click(label)


def found(*products, query="mug"):
    visit = visit_of(*products)
    visit.search(query)
    return visit


def opened(*products):
    visit = found(*products)
    press(visit, products[0].id)
    assert visit.page is Page.PRODUCT and visit.product is products[0]
    return visit


# 1. Pages. ---------------------------------------------------------------------------------------------


def test_pages_by_hand():
    visit = visit_of(DRESSED, product("b2", "Plain Mug"), request="Find me a fine mug")
    assert visit.text() == "Request: Find me a fine mug\nThis is the search page.\nAction: search[words]"
    visit.search("fine mug")
    assert visit.text() == (
        'Request: Find me a fine mug\n2 found for "fine mug", page 1 of 1:\n'
        "[b1] Fine Mug, $10.00 to $19.50\n[b2] Plain Mug, $5.00\nButtons: [back to search]"
    )
    press(visit, "b1")
    assert visit.text() == (
        "Request: Find me a fine mug\nb1: Fine Mug\nPrice: $10.00 to $19.50\ncolor: [red] [navy blue]\n"
        "size: [large] [x-large]\nChosen: nothing\n"
        "Buttons: [description] [features] [reviews] [buy now] [< prev] [back to search]"
    )
    details = {
        "description": "Description of b1: Made for tea.",
        "features": "Features of b1:\n- holds tea\n- fits a hand",
        "reviews": "Rating of b1: 4.5 of 5 stars. There are no written reviews.",
    }
    for label, body in details.items():
        press(visit, label)
        assert visit.text() == (f"Request: Find me a fine mug\n{body}\nButtons: [< prev] [back to search]"), (
            label
        )
        press(visit, "< prev")
    press(visit, "large", "red", BUY)
    assert visit.bought
    assert visit.purchase().startswith("Bought: b1: Fine Mug for $1")
    assert visit.purchase().endswith("(size: large, color: red)")


def test_a_bare_product_has_pages_too():
    visit = opened(product("b2", "Plain Mug"))
    assert visit.text().split("\n")[1:3] == ["b2: Plain Mug", "Price: $5.00"]
    assert "Chosen" not in visit.text()  # there is nothing to choose
    for label, line in [
        ("description", "Description of b2: none."),
        ("features", "none."),
        ("reviews", "none"),
    ]:
        press(visit, label)
        assert line in visit.text()
        press(visit, PREVIOUS)
    press(visit, BUY)
    assert visit.purchase() == "Bought: b2: Plain Mug for $5.00"


def test_every_way_back():
    visit = found(*mugs(23))
    press(visit, NEXT, "m13")
    assert (visit.page, visit.product.id) == (Page.PRODUCT, "m13")
    for page in ("description", "features", "reviews"):
        press(visit, page)
        assert (visit.page, visit.product.id) == (Page(page), "m13")
        press(visit, PREVIOUS)
        assert visit.page is Page.PRODUCT
    press(visit, PREVIOUS)
    assert (visit.page, visit.window) == (Page.RESULTS, 1)  # the window that was left
    for way in [(), ("m13",), ("m13", "reviews")]:
        press(visit, *way, BACK)
        assert (visit.page, visit.buttons()) == (Page.SEARCH, [])
        visit.search("mug")
        assert (visit.page, visit.window) == (Page.RESULTS, 0)
        press(visit, NEXT)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 23, 49, 50, 51, 70])
def test_windows_of_ten_and_at_most_fifty_hits(count):
    visit = found(*mugs(count), product("other", "Teapot"))
    hits = min(count, 50)
    assert visit.hits == list(range(hits))  # equal scores: the earlier product first
    windows, seen = -(-hits // 10), []
    for window in range(max(1, windows)):
        assert len(visit.listed) == min(10, hits - 10 * window)
        seen += [each.id for each in visit.listed]
        turning = [label for label in (NEXT, PREVIOUS) if visit.find_button(label)]
        assert turning == [NEXT] * (window < windows - 1) + [PREVIOUS] * (window > 0)
        assert visit.buttons() == [*(each.id for each in visit.listed), *turning, BACK]
        expected = f"{hits} found" if count else 'Nothing was found for "mug"'
        assert expected in visit.text() and (not count or f"page {window + 1} of {windows}:" in visit.text())
        if NEXT in turning:
            press(visit, NEXT)
    assert seen == [f"m{k}" for k in range(hits)]
    for window in reversed(range(windows - 1)):
        press(visit, PREVIOUS)
        assert visit.window == window


def test_a_search_without_any_hit_leads_back():
    visit = found(*mugs(3), query="teapot")
    assert visit.buttons() == [BACK]
    press(visit, BACK)
    visit.search("mug")
    assert len(visit.hits) == 3


def test_a_query_is_shown_clean_and_cut():
    visit = found(*mugs(2), query="\x1b[31mmug [m1] <b>x</b> || " + "word " * 100)
    line = visit.text().split("\n")[1]
    assert line.startswith('2 found for "mug (m1) x | word word')
    assert line.endswith('word…", page 1 of 1:')
    assert len(visit.query) <= 200


# 2. Buttons. -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["navy blue", "NAVY BLUE", "  Navy \t blue\n", "navy  blue"])
def test_case_and_blanks_do_not_matter(text):
    assert opened(DRESSED).find_button(text) == "navy blue"


@pytest.mark.parametrize(
    "text", ["", "navy", "navyblue", "blue", "navy blue.", "[navy blue]", "color", "b1", "search", NEXT]
)
def test_anything_else_is_no_button(text):
    assert opened(DRESSED).find_button(text) is None


def test_other_pages_buttons_are_not_there():
    visit = visit_of(DRESSED, *mugs(12))
    assert all(visit.find_button(text) is None for text in ("b1", BACK, BUY, "red", NEXT, "description"))
    visit.search("fine mug")
    assert all(visit.find_button(text) is None for text in (BUY, "red", PREVIOUS, "description", "m11"))
    press(visit, "b1")
    assert all(visit.find_button(text) is None for text in ("b1", "m1", NEXT))
    press(visit, "reviews")
    assert all(visit.find_button(text) is None for text in (BUY, "red", "reviews", "b1", NEXT))


def test_a_product_may_be_called_like_a_button_that_its_page_lacks():
    named = [product(NEXT, "Fine Mug"), product(BUY, "Plain Mug"), product(BACK, "Odd Mug")]
    visit = found(*named)
    for label in (NEXT, BUY):
        press(visit, label)
        assert (visit.page, visit.product.id, visit.bought) == (Page.PRODUCT, label, False)
        press(visit, PREVIOUS)
    press(visit, BACK)  # here the page's own button wins
    assert visit.page is Page.SEARCH


def test_a_page_that_turns_wins_over_a_product_of_that_name():
    visit = found(product(NEXT, "Fine Mug"), *mugs(12))
    press(visit, NEXT)
    assert (visit.page, visit.window) == (Page.RESULTS, 1)


def test_an_option_value_like_a_page_button_is_that_button():
    visit = opened(product(name="A Mug", options={"Extra": ["Buy Now", "description", "none"]}))
    assert visit.buttons().count("description") == visit.buttons().count(BUY) == 1
    press(visit, "description")
    assert visit.page is Page.DESCRIPTION
    press(visit, PREVIOUS, "none")
    assert visit.chosen == {"extra": "none"}
    press(visit, BUY)
    assert visit.bought


def test_labels_that_differ_only_when_folded_are_told_apart():
    """The micro sign and the Greek letter are one letter to `casefold`."""
    micro, greek = "10 \u00b5f", "10 \u03bcf"
    visit = opened(product(name="A Mug", options={"Power": [micro, greek]}))
    for value in (greek, micro):
        assert visit.find_button(value) == value
        press(visit, value)
        assert visit.chosen == {"power": value}


# 3. Options. -------------------------------------------------------------------------------------------


def chosen_line(visit):
    (line,) = [line for line in visit.text().split("\n") if line.startswith("Chosen: ")]
    return line.removeprefix("Chosen: ")


def test_chosen_options_are_shown_and_can_be_changed():
    visit = opened(DRESSED)
    assert chosen_line(visit) == "nothing"
    press(visit, "large")
    assert chosen_line(visit) == "size: large"
    press(visit, "Red")
    assert chosen_line(visit) == "size: large, color: red"
    press(visit, "x-large", "x-large")
    assert chosen_line(visit) == "size: x-large, color: red"
    press(visit, "features", PREVIOUS)
    assert chosen_line(visit) == "size: x-large, color: red"
    assert (visit.page, visit.bought) == (Page.PRODUCT, False)


def test_another_product_starts_without_choices():
    visit = opened(DRESSED, *mugs(2))
    press(visit, "red", PREVIOUS, "m0", PREVIOUS, "b1")
    assert (visit.chosen, chosen_line(visit)) == ({}, "nothing")
    press(visit, "red", BACK)
    visit.search("mug")
    press(visit, "b1")
    assert visit.chosen == {}


def test_a_value_of_two_options_goes_to_the_first_that_lacks_it():
    sized = product(name="A Mug", options={"Inner": ["8", "9"], "Outer": ["9", "8"], "Lid": ["none"]})
    visit = opened(sized)
    assert visit.buttons().count("8") == 1
    assert visit.text().count("[8]") == 2
    states = []
    for text in ("8", "8", "8", "9", "9"):
        press(visit, text)
        states.append(tuple(visit.chosen.get(name) for name in sized.options))
    assert states == [
        ("8", None, None),
        ("8", "8", None),
        ("8", "8", None),
        ("9", "8", None),
        ("9", "9", None),
    ]


# 4. Cuts. ----------------------------------------------------------------------------------------------

WORDS = "mug " + " ".join(f"word{k}" for k in range(2_000))


def test_long_texts_are_cut_behind_a_word():
    long = product(
        name=WORDS, full_description=WORDS, small_description=[WORDS, *(f"bullet {k}" for k in range(13))]
    )
    visit = found(long)
    (listed,) = [line for line in visit.text().split("\n") if line.startswith("[b1] ")]
    lines = {"listed": (listed.removeprefix("[b1] ").removesuffix(", $5.00"), 100)}
    press(visit, "b1")
    lines["title"] = visit.text().split("\n")[1].removeprefix("b1: "), 300
    press(visit, "description")
    lines["description"] = visit.text().split("\n")[1].removeprefix("Description of b1: "), 1_000
    press(visit, PREVIOUS, "features")
    features = visit.text().split("\n")[2:-1]
    lines["bullet"] = features[0].removeprefix("- "), 200
    for name, (text, limit) in lines.items():
        assert limit - 10 < len(text) <= limit, name
        assert text.endswith("…") and WORDS.startswith(text[:-1] + " "), name
    assert features[1:] == [*(f"- bullet {k}" for k in range(9)), "- (and 4 more)"]


@pytest.mark.parametrize("length", [99, 100, 101])
def test_a_text_of_just_the_limit_is_whole(length):
    title = "mug " + "x" * (length - 4)
    (line,) = [line for line in found(product(name=title)).text().split("\n") if line.startswith("[b1]")]
    assert line == f"[b1] {title if length <= 100 else title[:99] + '…'}, $5.00"


def test_ten_bullets_are_all_shown_and_nothing_more_is_said():
    visit = opened(product(name="A Mug", small_description=[f"bullet {k}" for k in range(10)]))
    press(visit, "features")
    assert visit.text().split("\n")[2:-1] == [f"- bullet {k}" for k in range(10)]


def test_buttons_are_never_cut():
    values = [f"{k} {'long ' * 18}value"[:100] for k in range(300)]
    visit = opened(product(name=WORDS, options={"Kind": values}))
    assert len(visit.buttons()) == 306
    for value in values:
        assert f"[{value}]" in visit.text()
    press(visit, values[-1])
    assert chosen_line(visit) == f"kind: {values[-1]}"
