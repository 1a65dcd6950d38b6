"""The expert, who knows which product is wanted, and sentences about what a visit shows.

The expert searches as a shopper would, with the words of the request, as long as that leads to the product;
its demonstrations then show nothing that the request does not tell.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from actfocus.envs.webshop.goals import Goal
from actfocus.envs.webshop.products import Product
from actfocus.envs.webshop.score import options_hit
from actfocus.envs.webshop.search import SearchEngine
from actfocus.envs.webshop.text import cut
from actfocus.envs.webshop.visit import (
    BACK,
    BUY,
    DETAILS,
    NEXT,
    PAGE_SIZE,
    PREVIOUS,
    QUERY_LENGTH,
    Page,
    Visit,
)


def plan(visit: Visit, goal: Goal, products: Sequence[Product], engine: SearchEngine) -> list[str]:
    """The actions from here to the purchase of the wanted product with the right options."""
    wanted = products[goal.product]
    if visit.page is Page.SEARCH:
        query, hits = best_query(goal, wanted, engine)
        return [f"search[{query}]", *_to_product(hits, goal.product, 0, wanted), *_purchase({}, goal, wanted)]
    if visit.page is Page.RESULTS:
        if goal.product not in visit.hits:
            return [f"click[{BACK}]", *_afresh(goal, products, engine)]
        way = _to_product(visit.hits, goal.product, visit.window, wanted)
        return [*way, *_purchase({}, goal, wanted)]
    if visit.product_index == goal.product:
        way = [f"click[{PREVIOUS}]"] if visit.page in DETAILS else []
        return [*way, *_purchase(visit.chosen, goal, wanted)]
    if visit.page is Page.PRODUCT and goal.product in visit.hits:
        way = _to_product(visit.hits, goal.product, visit.window, wanted)
        return [f"click[{PREVIOUS}]", *way, *_purchase({}, goal, wanted)]
    return [f"click[{BACK}]", *_afresh(goal, products, engine)]


def best_query(goal: Goal, wanted: Product, engine: SearchEngine) -> tuple[str, list[int]]:
    """The first query that lists the wanted product among the first ten, else the one that ranks it best.

    First the words of the request that name the product, then its title, then title and option values.
    """
    values = [value for values in wanted.options.values() for value in values]
    found: list[tuple[float, str, list[int]]] = []
    for words in (request_words(goal, wanted), wanted.title, f"{wanted.title} {' '.join(values)}"):
        query = cut(words, QUERY_LENGTH)  # as the visit will
        hits = engine.search(query)
        rank = hits.index(goal.product) if goal.product in hits else math.inf
        if rank < PAGE_SIZE:
            return query, hits
        found.append((rank, query, hits))
    _, query, hits = min(found, key=lambda each: each[0])
    return query, hits


def request_words(goal: Goal, wanted: Product) -> str:
    """What a shopper would type: the attributes and the kind of product."""
    return " ".join([*goal.attributes, wanted.query])


def _afresh(goal: Goal, products: Sequence[Product], engine: SearchEngine) -> list[str]:
    return plan(Visit(tuple(products), engine, goal.text), goal, products, engine)


def _to_product(hits: Sequence[int], product: int, window: int, wanted: Product) -> list[str]:
    """Turn pages to the product and open it; nothing if the search did not find it."""
    if product not in hits:
        return []
    pages = list(hits).index(product) // PAGE_SIZE - window
    turn = f"click[{NEXT if pages > 0 else PREVIOUS}]"
    return [turn] * abs(pages) + [f"click[{wanted.id}]"]


def _purchase(chosen: Mapping[str, str], goal: Goal, wanted: Product) -> list[str]:
    """Choose what is not chosen yet, and buy."""
    wishes, state = wanted_values(goal, wanted), dict(chosen)

    def holders(value: str) -> list[str]:
        return [name for name, values in wanted.options.items() if value in values]

    # A value of several options goes to the first that lacks it, which may be right already. So such values
    # come first, the last option's before all: what they disturb lies before them and is set again later.
    shared = [name for name in wanted.options if name in wishes and len(holders(wishes[name])) > 1][::-1]
    clicks = []
    for name in [*shared, *(name for name in wishes if name not in shared)]:
        value = wishes[name]
        while state.get(name) != value:
            state[next(holder for holder in holders(value) if state.get(holder) != value)] = value
            clicks.append(f"click[{value}]")
    return [*clicks, f"click[{BUY}]"]


def wanted_values(goal: Goal, wanted: Product) -> dict[str, str]:
    """Option name → value to choose; for values without names, the first option that has or matches each."""
    if isinstance(goal.options, Mapping):
        return {name: value for name, value in goal.options.items() if value in wanted.options.get(name, ())}
    values: dict[str, str] = {}
    for option in goal.options:
        for name, offered in wanted.options.items():
            hits = [value for value in offered if options_hit({name: value}, (option,), "fuzzy")]
            if hits and name not in values:
                values[name] = option if option in hits else hits[0]
                break
    return values


def remarks(visit: Visit, goal: Goal, rng: np.random.Generator) -> list[str]:
    """What is asked for, where the visitor is and what is chosen; in random order and wording."""
    choices = [*_wishes(goal), *_surroundings(visit, goal)]
    if visit.page is Page.RESULTS:
        choices += _comparison(visit, goal, rng)
    return [choices[i][rng.integers(len(choices[i]))] for i in rng.permutation(len(choices))]


def _wishes(goal: Goal) -> list[list[str]]:
    wishes = ", ".join(goal.attributes)
    choices = [[f"I look for {wishes}.", f"The request asks for {wishes}.", f"It must be {wishes}."]]
    options = goal.options.items() if isinstance(goal.options, Mapping) else [("", o) for o in goal.options]
    for name, value in options:
        named = f"{name} {value}".strip()
        choices.append([f"I want {named}.", f"The request names {named}.", f"It should have {named}."])
    if goal.limit < float("inf"):
        limit = f"{goal.limit:.0f} dollars"
        choices.append([f"It may cost up to {limit}.", f"The price limit is {limit}."])
    return choices


def _comparison(visit: Visit, goal: Goal, rng: np.random.Generator) -> list[list[str]]:
    """What the titles of two of the listed products say of what is asked for."""
    if not visit.shown:
        return []
    first = visit.listed[0].id
    choices = [[f"The first product is [{first}].", f"[{first}] is listed first."]]
    for index in rng.permutation(len(visit.listed))[:2]:
        product = visit.listed[index]
        wish = goal.attributes[rng.integers(len(goal.attributes))]
        has = wish in product.title.lower()
        choices.append(
            [f"[{product.id}] is {wish}.", f"[{product.id}] has {wish}."]
            if has
            else [f"[{product.id}] does not say {wish}.", f"The title of [{product.id}] leaves out {wish}."]
        )
    return choices


def _surroundings(visit: Visit, goal: Goal) -> list[list[str]]:
    if visit.page is Page.SEARCH:
        return [["I have to search first.", "Nothing is searched yet."]]
    if visit.page is Page.RESULTS:
        count = len(visit.hits)
        found = [[f"The search found {count}.", f"There are {count} results."]]
        return [*found, *([["I have to open a product.", "One of these may be right."]] if count else [])]
    choices = [[f"I look at [{visit.product.id}].", f"This is [{visit.product.id}]."]]
    for name in visit.product.options:
        value = visit.chosen.get(name)
        choices.append(
            [f"{name} is not chosen yet.", f"No {name} is chosen."]
            if value is None
            else [f"I chose {name} {value}.", f"{name} is {value} now."]
        )
    if visit.page is Page.PRODUCT and isinstance(goal.options, Mapping):
        done = all(visit.chosen.get(name) == value for name, value in goal.options.items())
        choices.append(
            ["All that was asked for is chosen.", "Nothing is left to choose."]
            if done
            else ["Something is left to choose.", "I have to choose more."]
        )
    return choices
