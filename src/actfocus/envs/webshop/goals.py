"""Goals: what the shopper is asked to buy, and which goals belong to training and which to evaluation.

Source: Yao et al. 2022 (WebShop), synthetic and human instructions. The price limit and the split are
described where they are made.
"""

import hashlib
import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from actfocus.envs.webshop.products import Options, Product

GoalKind = Literal["synthetic", "human"]
Split = Literal["product", "goal"]

NO_LIMIT = math.inf
_LIMIT_STEP, _LIMIT_END = 10, 1_000
"""Limits are multiples of 10 below 1,000 dollars."""

EVALUATION_SHARE = 0.2
"""Share of the products that evaluation asks for, in the split by product."""

_SHUFFLE_SEED = 233
_EVALUATION_GOALS = 500
_FIRST_TRAINING_GOAL = 1_500
"""WebShop's own split of the shuffled goals: 500 to test, 1,000 to tune, the others to train."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One request."""

    product: int
    """Index of the product that it was made for."""
    text: str
    """What the shopper reads."""
    attributes: tuple[str, ...]
    options: Options
    limit: float
    """Highest price, in dollars; infinite if the request names none."""


class Goals(Sequence[Goal]):
    """All goals of a catalogue, product by product; each is made when it is asked for.

    Synthetic goals: one for each combination of a product's option values, the option names in alphabetical
    order, the last one varying fastest.
    """

    def __init__(self, products: Sequence[Product], kind: GoalKind) -> None:
        self._products, self._kind = products, kind
        counts = [self._count(product) for product in products]
        self.owners = [index for index, count in enumerate(counts) if count]
        """Indices of the products that have goals."""
        self._starts = [0]
        for index in self.owners:
            self._starts.append(self._starts[-1] + counts[index])

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Goal:  # type: ignore[override] # no slices
        """Raises IndexError beyond the last goal."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        owner = bisect_right(self._starts, index) - 1
        product_index, number = self.owners[owner], index - self._starts[owner]
        product = self._products[product_index]
        if self._kind == "human":
            instruction = product.human[number]
            text, options = instruction.text.strip("."), instruction.options
        else:
            assert product.instruction is not None
            instruction = product.instruction
            options = _combination(product, number)
            text = instruction.text + _options_text(options)
        limit = price_limit(product.price, f"{product.id} {number}")
        if limit < NO_LIMIT:
            text += f", and price lower than {limit:.2f} dollars"
        return Goal(product_index, text, instruction.attributes, options, limit)

    def of_owner(self, owner: int) -> range:
        """The goals of the product `self.owners[owner]`."""
        return range(self._starts[owner], self._starts[owner + 1])

    def _count(self, product: Product) -> int:
        if self._kind == "human":
            return len(product.human)
        if product.instruction is None:
            return 0
        return math.prod(map(len, product.options.values()))


def price_limit(price: float, key: str) -> float:
    """The larger of two of the next four multiples of 10 above `price`, drawn by a generator seeded by `key`.

    As WebShop does, none where fewer than two such multiples lie below 1,000 dollars.
    """
    first = math.floor(price / _LIMIT_STEP) * _LIMIT_STEP + _LIMIT_STEP
    following = [first + _LIMIT_STEP * k for k in range(4)]
    candidates = [float(limit) for limit in following if limit < _LIMIT_END]
    if len(candidates) < 2:
        return NO_LIMIT
    return max(random.Random(f"limit {key}").sample(candidates, 2))


class Pool:
    """The goals of training or of evaluation, drawn at random."""

    def __init__(self, goals: Goals, products: Sequence[Product], split: Split, *, evaluation: bool) -> None:
        """By product (the default), no product is asked for in both; by goal is WebShop's own split.

        Where there is one product (or goal) only, both sides have it.
        """
        self._goals, self._split = goals, split
        if split == "product":
            held_out = _evaluation_owners([products[index].id for index in goals.owners])
            members = [owner for owner in range(len(goals.owners)) if (owner in held_out) == evaluation]
        else:
            order = list(range(len(goals)))
            random.Random(_SHUFFLE_SEED).shuffle(order)
            # A catalogue that is smaller than WebShop's own parts is split by the same share as by product.
            whole = len(order) > _FIRST_TRAINING_GOAL
            small = math.ceil(EVALUATION_SHARE * len(order))
            members = (
                order[: _EVALUATION_GOALS if whole else small]
                if evaluation
                else order[_FIRST_TRAINING_GOAL if whole else small :]
            )
        self._members = members or list(range(len(goals.owners)))

    def __len__(self) -> int:
        """Members: products, or goals in the split by goal."""
        return len(self._members)

    def goals(self) -> list[int]:
        """Every goal of the pool."""
        if self._split == "goal":
            return list(self._members)
        return [index for owner in self._members for index in self._goals.of_owner(owner)]

    def draw(self, rng: np.random.Generator) -> Goal:
        """A product and then one of its goals, each uniformly; in the split by goal, a goal uniformly.

        Drawn goal by goal, ten products of WebShop's thousand would make 40 % of all requests.
        """
        member = self._members[rng.integers(len(self._members))]
        if self._split == "goal":
            return self._goals[member]
        own = self._goals.of_owner(member)
        return self._goals[own[rng.integers(len(own))]]


def _combination(product: Product, number: int) -> dict[str, str]:
    chosen = {}
    for name in sorted(product.options, reverse=True):
        number, place = divmod(number, len(product.options[name]))
        chosen[name] = product.options[name][place]
    return dict(reversed(chosen.items()))


def _options_text(options: Options) -> str:
    assert isinstance(options, dict)
    listed = ", and ".join(f"{name}: {value}" for name, value in options.items())
    return f" with {listed}" if listed else ""


def _evaluation_owners(ids: Sequence[str]) -> set[int]:
    """Which of the products with these ids evaluation asks for; of two or more, neither all nor none."""
    places = list(map(_place, ids))
    chosen = {owner for owner, place in enumerate(places) if place < EVALUATION_SHARE * 2**64}
    # A handful of products can lie on one side: the nearest to the other goes there.
    if not chosen and len(ids) > 1:
        chosen.add(places.index(min(places)))
    elif len(chosen) == len(ids) > 1:
        chosen.remove(places.index(max(places)))
    return chosen


def _place(product_id: str) -> int:
    """In 0 to 2**64, by the id alone: adding products moves none from one side to the other."""
    digest = hashlib.sha256(f"split {product_id}".encode()).digest()
    return int.from_bytes(digest[:8])
