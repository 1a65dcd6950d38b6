"""What makes a goal impossible, found when a catalogue is imported.

Such a goal would lower every figure by the same amount and teach nothing.
"""

import re
from collections.abc import Mapping
from typing import Literal

from actfocus.envs.webshop.products import BrokenRecord, Instruction, Product
from actfocus.envs.webshop.score import has_attribute, options_hit
from actfocus.envs.webshop.text import cut
from actfocus.envs.webshop.visit import BACK, BUY, DETAILS, NEXT, PREVIOUS, TURNS

MAX_WISHES = TURNS - 3
"""Options of a goal: the search, the product to open and the purchase take three turns."""

_BUTTONS = {*map(str, DETAILS), BUY, PREVIOUS, NEXT, BACK}


def check_product(product: Product) -> None:
    """Refuse a product that the shop cannot sell.

    Raises:
        BrokenRecord: If its id or an option value is called like a button of the shop, whose click would
            press that, or if the product is asked for and has no title.
    """
    if product.id in _BUTTONS:
        raise BrokenRecord(f"asin: {product.id!r} is a button of the shop")
    for name, values in product.options.items():
        for value in values:
            if value.casefold() in _BUTTONS:
                raise BrokenRecord(
                    f"customization_options.{cut(name, 60)}: the value {value!r} is a button of the shop"
                )
    if (product.instruction or product.human) and not re.search(r"\w", product.title):
        raise BrokenRecord("name: has no word, but the product is asked for")


def check_goal(product: Product, asked: Instruction, file: Literal["goals", "human"]) -> None:
    """Refuse an instruction that the product it was written for cannot meet; `file` is where it stands.

    Options count by WebShop's own rule: with `option_match="equal"` people's requests can still be out of
    reach.

    Raises:
        BrokenRecord: If it asks for an attribute that the product lacks, for an option value that nothing
            offered is like, or for more options than there are turns.
    """
    for attribute in asked.attributes:
        if not has_attribute(product, attribute):
            raise BrokenRecord(f"instruction_attributes: the product lacks {cut(attribute, 60)!r}", file)
    wishes = product.options if file == "goals" else asked.options
    if len(wishes) > MAX_WISHES:
        raise BrokenRecord(f"instruction: asks for {len(wishes)} options, more than the turns allow", file)
    # As if all that is offered were chosen at once: what then misses, always misses.
    offered = {value: value for values in product.options.values() for value in values}
    named = asked.options.items() if isinstance(asked.options, Mapping) else [("", o) for o in asked.options]
    for name, value in named:
        if not options_hit(offered, {name: value}, "fuzzy"):
            raise BrokenRecord(
                f"instruction_options: nothing that the product offers is like {cut(value, 60)!r}", file
            )
