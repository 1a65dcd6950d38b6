"""The score of a purchase.

    score = r_type · (attributes hit + options hit + [price ≤ limit]) / (attributes + options + 1)

Source: Yao et al. 2022 (WebShop), kept as published, so that figures can be compared. Two departures. The
published rule asks a part-of-speech tagger for the nouns of a title; here all content words count. And the
published rule can miss the very value that was asked for, where a colour hides inside of its word ("dash"
holds "ash"): here the exact value always hits.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rapidfuzz import fuzz, utils

from actfocus.envs.webshop.goals import Goal
from actfocus.envs.webshop.products import Options, Product

OptionMatch = Literal["fuzzy", "equal"]

SIMILAR = 85
"""Token-set ratio above which two phrases are the same."""

COLOURS = tuple(
    """
    alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown
    burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee
    cognac copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold
    granite grape graphite grass gray green grey heather indigo ivory ivy khaki lavender lemon
    leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom
    mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust
    sand sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger
    turquoise violet walnut wheat white wine yellow
    """.split()  # noqa: SIM905 - a word list reads better as one text
)
"""The colour words of WebShop, in its order: the first one that a chosen value holds stands for the value."""

_STOP_WORDS = frozenset(
    """
    a an and are as at be but by for from has have in into is it its no not of on or our out over
    per so than that the their them this to up with without you your
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Score:
    """The parts of a score; `total` is 1 where everything that was asked for was bought."""

    total: float
    type: float
    """How far the product is of the kind that was asked for: 1, 0.5, 0.1 or 0."""
    attributes: int
    options: int
    price: bool


def score(
    product: Product,
    chosen: Mapping[str, str],
    goal: Goal,
    wanted: Product,
    *,
    option_match: OptionMatch = "fuzzy",
) -> Score:
    """Score of buying `product` with the `chosen` option values, for a goal made for the product `wanted`.

    `option_match="equal"` asks for the value itself; "fuzzy" is WebShop's rule, by which "large" also hits
    "x-large".
    """
    type_factor = type_score(product, wanted)
    attributes = sum(has_attribute(product, attribute) for attribute in goal.attributes)
    options = options_hit(chosen, goal.options, option_match)
    price = product.price <= goal.limit
    hits = attributes + options + price
    total = type_factor * hits / (len(goal.attributes) + len(goal.options) + 1)
    return Score(total, type_factor, attributes, options, price)


def type_score(product: Product, wanted: Product) -> float:
    """1; 0.5 if neither query, two category levels nor the title agree; 0.1 or 0 if the titles hardly do."""
    words, wanted_words = content_words(product.title), content_words(wanted.title)
    agreement = len(words & wanted_words) / len(wanted_words) if wanted_words else 0.2
    if agreement == 0:
        return 0.0
    if agreement < 0.1:
        return 0.1
    same_levels = len(_folded_levels(product) & _folded_levels(wanted)) >= 2
    same_query = product.query.casefold() == wanted.query.casefold()
    return 1.0 if same_query or same_levels or agreement > 0.2 else 0.5


def _folded_levels(product: Product) -> set[str]:
    return {level.casefold() for level in product.levels}


@lru_cache(maxsize=65_536)
def content_words(title: str) -> frozenset[str]:
    """The words of a title, in lower case, without numbers, single letters and function words."""
    words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", title.lower())
    return frozenset(word for word in words if len(word) > 1 and word not in _STOP_WORDS)


def has_attribute(product: Product, attribute: str) -> bool:
    """Whether an attribute of the product is similar, or its texts hold the words."""
    if any(_similar(own, attribute) for own in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(attribute.lower() in text.lower() for text in texts)


def options_hit(chosen: Mapping[str, str], wanted: Options, option_match: OptionMatch) -> int:
    """How many of the wanted option values were chosen."""
    pairs = list(wanted.items()) if isinstance(wanted, Mapping) else [("", value) for value in wanted]
    values = list(chosen.values())
    if option_match == "equal":
        return sum(
            _same(value, chosen.get(name, "")) if name else any(_same(value, own) for own in values)
            for name, value in pairs
        )
    return sum(_option_hit(values, name, value) for name, value in pairs)


def _option_hit(chosen: Iterable[str], name: str, value: str) -> bool:
    text = f"{name} {value}".strip()
    return any(_same(own, value) or _similar(colour_or_all(own), text) for own in chosen)


def colour_or_all(value: str) -> str:
    """The first colour word that stands in `value`, anywhere; else `value`."""
    lower = value.lower()
    return next((colour for colour in COLOURS if colour in lower), value)


def _similar(one: str, other: str) -> bool:
    return fuzz.token_set_ratio(one, other, processor=utils.default_process) > SIMILAR


def _same(one: str, other: str) -> bool:
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())
