"""A synthetic shop catalogue from a seed, in the layout of WebShop (Yao et al. 2022, arXiv 2207.01206)."""

from collections import Counter
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from actfocus.envs.webshop.assortment import BRANDS, FACETS, KINDS, NOTES, OPTIONS, Facet, Kind

TITLE_LENGTH = 90
REDRAWS = 40
"""Draws after which a type counts as used up: no further family can be told apart from all others."""

# No e, so that few ids are English words; d, h, p and z are left out to avoid rude ones.
SYLLABLES = tuple(consonant + vowel for consonant in "bfgjklmnrstvw" for vowel in "aiou")
PAGE_WORDS = "search results page next prev back buy now description features reviews attributes price rating"
"""Words on buttons and pages, which no id may equal."""

Attributes = tuple[str, ...]


class _Family(NamedTuple):
    """Products of one type: the base first, then siblings that differ from it in one attribute."""

    facets: list[Facet]
    members: list[Attributes]
    """For each product one value per facet, in the order of `facets`."""


class _Shelf:
    """What the catalogue already holds of one type."""

    def __init__(self) -> None:
        self.holders: Counter[Attributes] = Counter()
        """How many products hold all of two or three attributes."""
        self.asked: set[Attributes] = set()
        """What instructions ask for; no later product may hold all of it."""
        self.used_up = False


def _subsets(attributes: Attributes) -> list[Attributes]:
    """What an instruction can ask for: any two or three attributes."""
    return [*combinations(attributes, 2), *combinations(attributes, 3)]


def _draw_some(rng: np.random.Generator, count: int, of: int) -> list[int]:
    """`count` different numbers below `of`, in rising order."""
    return sorted(rng.permutation(of)[:count].tolist())


def _draw_family(kind: Kind, rng: np.random.Generator) -> _Family:
    """A base with three to five attributes and two or three siblings, each with one of them exchanged."""
    keys = kind.facets.split()
    count = min(int(rng.integers(3, 6)), len(keys))
    facets = [FACETS[keys[place]] for place in _draw_some(rng, count, len(keys))]
    base = tuple(facet.values[rng.integers(len(facet.values))] for facet in facets)
    swaps = [
        (*base[:place], value, *base[place + 1 :])
        for place, facet in enumerate(facets)
        for value in facet.values
        if value != base[place]
    ]
    siblings = [swaps[number] for number in _draw_some(rng, int(rng.integers(2, 4)), len(swaps))]
    return _Family(facets, [base, *siblings])


def _choose_asked(family: _Family, shelf: _Shelf, rng: np.random.Generator) -> list[Attributes] | None:
    """For each product the attributes that its instruction names.

    None if some product cannot be told apart by two or three attributes, or would itself satisfy an
    instruction of another family. On a shelf that is used up, a product is told apart from its own family
    only, which always works: name the facets in which it was changed or, for the base, all that were.
    """
    within = Counter(subset for member in family.members for subset in _subsets(member))
    chosen = []
    for member in family.members:
        subsets = [subset for subset in _subsets(member) if within[subset] == 1]
        if not shelf.used_up:
            if any(subset in shelf.asked for subset in _subsets(member)):
                return None
            subsets = [subset for subset in subsets if shelf.holders[subset] == 0]
        if not subsets:
            return None
        pairs = [subset for subset in subsets if len(subset) == 2]
        pool = pairs if pairs and rng.random() < 0.6 else subsets
        chosen.append(pool[rng.integers(len(pool))])
    if not shelf.used_up:
        shelf.holders.update(within)
        shelf.asked.update(chosen)
    return chosen


def _stock(kind: Kind, shelf: _Shelf, rng: np.random.Generator) -> tuple[_Family, list[Attributes]]:
    """A new family for the shelf, and what the instructions of its products ask for."""
    for _ in range(REDRAWS):
        family = _draw_family(kind, rng)
        asked = _choose_asked(family, shelf, rng)
        if asked is not None:
            return family, asked
    shelf.used_up = True
    return _stock(kind, shelf, rng)


def _draw_options(kind: Kind, rng: np.random.Generator) -> dict[str, list[dict[str, Any]]] | str:
    """Option name → values, as WebShop writes them; an empty string for a product without options."""
    keys = kind.options.split()
    count = int(rng.choice(3, p=(0.1, 0.3, 0.6)))
    drawn: dict[str, list[dict[str, Any]]] = {}
    for place in _draw_some(rng, count, len(keys)):
        name, values = OPTIONS[keys[place]]
        numbers = _draw_some(rng, int(rng.integers(2, min(4, len(values)) + 1)), len(values))
        drawn[name] = [{"value": values[number], "image": None} for number in numbers]
    return drawn or ""


def _draw_prices(kind: Kind, count: int, rng: np.random.Generator) -> list[str]:
    """Prices of a family, all different, in no order; now and then a range, whose lower end is different.

    Steps are at least 50 cents, so rounding to 10 cents cannot make two prices equal.
    """
    low, high = kind.price
    cheapest = low * (high / low) ** rng.random()
    step = max(0.5, 0.08 * cheapest)
    prices = []
    for rung in rng.permutation(5)[:count].tolist():
        price = f"${max(round(cheapest + rung * step, 1) - 0.01, 3):.2f}"
        if rng.random() < 0.15:
            price += f" - ${round(cheapest + (rung + 3) * step, 1) - 0.01:.2f}"
        prices.append(price)
    return prices


def _title(brand: str, attributes: Attributes, asked: Attributes, kind: Kind, spare: bool) -> str:
    """Brand, the attributes asked for (with `spare` one more, if there is room), and the type."""
    more = [attribute for attribute in attributes if attribute not in asked][:1] if spare else []
    shown = [attribute for attribute in attributes if attribute in asked or attribute in more]
    title = " ".join((brand, *shown, kind.name)).title()
    return title if len(title) <= TITLE_LENGTH else _title(brand, attributes, asked, kind, spare=False)


def _instruction(kind: Kind, asked: Attributes, parts: list[str]) -> str:
    """The request; what is one of the product's `parts` comes after "with" if it is the last one named."""
    *before, last = asked
    if last in parts:
        return f"Find me {', '.join(before)} {kind.query} with {last}"
    return f"Find me {', '.join(asked)} {kind.query}"


def _description(kind: Kind, rng: np.random.Generator) -> str:
    """One or two sentences that hold for every product of the type."""
    subject = f"These {kind.name} are" if kind.name == kind.query else f"This {kind.name} is"
    text = f"{subject} made for {kind.purpose}."
    return f"{text} {NOTES[rng.integers(len(NOTES))].capitalize()}." if rng.random() < 0.5 else text


def ordinary_words() -> frozenset[str]:
    """Every word of the shop that is not an id, in lower case."""
    texts = [PAGE_WORDS, *BRANDS, *NOTES, "find me with this these is are made for"]
    texts += [text for facet in FACETS.values() for text in (facet.bullet, *facet.values)]
    texts += [text for name, values in OPTIONS.values() for text in (name, *values)]
    texts += [
        text for kind in KINDS for text in (kind.department, kind.group, kind.name, kind.query, kind.purpose)
    ]
    return frozenset(word.strip(",.") for text in texts for word in text.lower().split())


def _draw_ids(count: int, rng: np.random.Generator) -> list[str]:
    """Different ids of two syllables, or more if those do not suffice, none of them an ordinary word."""
    base, length = len(SYLLABLES), 2
    # A quarter to spare: more than there are ordinary words to leave out.
    while base**length < 1.25 * count:
        length += 1
    words = ordinary_words()
    ids: list[str] = []
    for number in rng.permutation(base**length).tolist():
        if len(ids) == count:
            break
        word = "".join(SYLLABLES[number // base**place % base] for place in range(length))
        if word not in words:
            ids.append(word)
    return ids


def _family_products(
    kind: Kind, family: _Family, asked: list[Attributes], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The products of a family, still without id; siblings share options, description and other bullets."""
    options = _draw_options(kind, rng)
    description = _description(kind, rng)
    note = [NOTES[rng.integers(len(NOTES))]] if len(family.facets) < 5 and rng.random() < 0.5 else []
    prices = _draw_prices(kind, len(family.members), rng)
    spare = rng.random() < 0.3
    return [
        {
            "asin": "",
            "name": _title(BRANDS[rng.integers(len(BRANDS))], attributes, wanted, kind, spare),
            "full_description": description,
            "small_description": [
                *(facet.bullet.format(value) for facet, value in zip(family.facets, attributes, strict=True)),
                *note,
            ],
            "pricing": price,
            "product_category": " › ".join((kind.department, kind.group, kind.query)).title(),
            "category": kind.department,
            "query": kind.query,
            "average_rating": int(rng.integers(30, 51)) / 10,
            "customization_options": options,
            "images": [],
        }
        for attributes, wanted, price in zip(family.members, asked, prices, strict=True)
    ]


def generate(families: int = 110, seed: int = 0) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """A catalogue of `families` times three or four products, and an instruction for each product.

    A family is a base product and two or three siblings that differ from it in one attribute, besides price,
    rating, brand and title. Its products stand next to each other, the base first; the next family is of
    another type. Types take turns, so all have about as many families.

    Every instruction can be answered by one product only: no other product with the same `query` has all
    attributes that it names. A type has room for five to a dozen such families (the default takes three at
    most). Once it is used up, the rule is relaxed for its further families: their instructions tell a product
    from its own family only, and their products may have what the instructions of other families name.

    Args:
        families: How many families to make; 110 give about 390 products, 28,000 about 98,000.
        seed: The same seed gives the same catalogue, in every process.

    Returns:
        The products in WebShop's `items` layout, and id → `attributes`, `instruction` and
        `instruction_attributes`, as in its instruction file. Siblings share the object that holds their
        options; copy it before changing it.

    Raises:
        ValueError: If `families` is not positive.
    """
    if families < 1:
        raise ValueError(f"families must be at least 1, not {families}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(KINDS)).tolist()
    shelves = [_Shelf() for _ in KINDS]
    items: list[dict[str, Any]] = []
    orders: list[dict[str, Any]] = []
    for number in range(families):
        place = order[number % len(order)]
        kind = KINDS[place]
        family, asked = _stock(kind, shelves[place], rng)
        items += _family_products(kind, family, asked, rng)
        parts = [value for facet in family.facets if facet.part for value in facet.values]
        orders += [
            {
                "attributes": list(attributes),
                "instruction": _instruction(kind, wanted, parts),
                "instruction_attributes": list(wanted),
            }
            for attributes, wanted in zip(family.members, asked, strict=True)
        ]
    for item, asin in zip(items, _draw_ids(len(items), rng), strict=True):
        item["asin"] = asin
    return items, {item["asin"]: order for item, order in zip(items, orders, strict=True)}
