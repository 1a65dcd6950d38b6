"""Products: one record of WebShop's files, checked and cleaned.

Field layout: Yao et al. 2022 (WebShop), `items_shuffle*.json`, `items_ins_v2*.json`, `items_human_ins.json`.
"""

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from actfocus.envs.webshop.text import clean, cut

File = Literal["items", "goals", "human"]
"""The three files, in the order in which they stand above."""

Options = Mapping[str, str] | tuple[str, ...]
"""Wanted option values: by option name, or (in people's instructions) some values without names."""

DEFAULT_PRICE = 100.0
"""Price of a product whose record gives none, as in WebShop."""

MAX_PRICE = 1_000_000.0
MAX_OPTIONS = 20
MAX_VALUES = 1_000
MAX_COMBINATIONS = 1_000_000
MAX_VALUE_LENGTH = 100
MAX_OPTIONS_LENGTH = 100_000
"""Characters of a product's option names and values together: they all stand on its page."""
MAX_INSTRUCTION_LENGTH = 2_000
MAX_ID_LENGTH = 10

_PRICE = r"(?:US ?)?\$ ?([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_PRICES = re.compile(f"{_PRICE}(?: ?[-–—] ?{_PRICE})?")


class BrokenRecord(ValueError):
    """A record that cannot be used; the message names its field, `file` says where that stands."""

    def __init__(self, message: str, file: File = "items") -> None:
        super().__init__(message)
        self.file: File = file


@dataclass(frozen=True, slots=True)
class Instruction:
    """What somebody asks for: the text, and what a product must have to be the right one."""

    text: str
    attributes: tuple[str, ...]
    options: Options = ()


@dataclass(frozen=True, slots=True)
class Product:
    """A product; all texts are `clean`."""

    id: str
    title: str
    description: str
    bullets: tuple[str, ...]
    price: float
    """In dollars; of a range, the draw that its id decides."""
    price_range: tuple[float, float]
    levels: tuple[str, ...]
    """The product category, from the widest level to the narrowest."""
    query: str
    """The search that found the product when the data were collected, in lower case: its kind."""
    options: Mapping[str, tuple[str, ...]]
    """Option name → values, in lower case and in the catalogue's order."""
    attributes: tuple[str, ...]
    rating: float | None
    instruction: Instruction | None
    """Without options: each combination of option values makes a goal of its own."""
    human: tuple[Instruction, ...] = ()
    """What people asked for, options included."""


def skipped(record: Any, seen: set[str]) -> str | None:
    """Why WebShop's own loader passes over this record; None if it does not."""
    asin = record.get("asin") if isinstance(record, dict) else None
    if not isinstance(asin, str):
        return None  # not skipped but broken
    if asin == "nan" or len(asin) > MAX_ID_LENGTH:
        return "its id is not an ASIN"
    return "its id occurred before" if _id(asin) in seen else None


def read_product(record: Any, goal: Any, human: Any) -> Product:
    """The product of a record of `items_shuffle*.json`.

    Args:
        record: The record.
        goal: Its entry in `items_ins_v2*.json`, None if it has none.
        human: Its entry in `items_human_ins.json`, None if it has none.

    Raises:
        BrokenRecord: Naming the field and what is wrong with it.
    """
    if not isinstance(record, dict):
        raise BrokenRecord(f"is no object but {type(record).__name__}")
    price_range = _price_range(record.get("pricing"))
    product_id = _id(_text(record, "asin", required=True))
    if not product_id:
        raise BrokenRecord("asin: is empty")
    with _reading("goals"):
        attributes, instruction = _goal(goal)
    with _reading("human"):
        asked = _human(human)
    return Product(
        id=product_id,
        title=_text(record, "name", required=True),
        description=_text(record, "full_description"),
        bullets=_bullets(record.get("small_description")),
        price=_price(product_id, *price_range),
        price_range=price_range,
        levels=tuple(filter(None, map(str.strip, _text(record, "product_category").split("›")))),
        query=_text(record, "query", required=True).lower(),
        options=_options(record.get("customization_options")),
        attributes=attributes,
        rating=_rating(record.get("average_rating")),
        instruction=instruction,
        human=asked,
    )


@contextmanager
def _reading(file: File) -> Iterator[None]:
    """What is broken in here stands in this file."""
    try:
        yield
    except BrokenRecord as error:
        error.file = file
        raise


def _id(asin: str) -> str:
    return clean(asin).lower()


def _text(record: Mapping[str, Any], field: str, *, required: bool = False) -> str:
    value = record.get(field)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise BrokenRecord(f"{field}: should be a text, got {_shown(value)}")
    return clean(value)


def _bullets(value: Any) -> tuple[str, ...]:
    """A list of texts; WebShop also has records with one text, or none."""
    values = [value] if isinstance(value, str) else value or []
    return tuple(filter(None, map(clean, _texts(values, "small_description"))))


def _texts(values: Any, field: str) -> Sequence[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BrokenRecord(f"{field}: should be a list of texts, got {_shown(values)}")
    return values


def _price_range(pricing: Any) -> tuple[float, float]:
    """Lowest and highest price of "$12.99" or "$10.0 - $19.5"; no price means WebShop's 100 dollars."""
    if pricing is None or pricing == "":
        return DEFAULT_PRICE, DEFAULT_PRICE
    if not isinstance(pricing, str):
        raise BrokenRecord(f"pricing: should be a text such as '$12.99', got {_shown(pricing)}")
    # The whole field: what is misread otherwise is "$1.299,00", "$1e9", "$10 - 19" and a minus.
    match = _PRICES.fullmatch(clean(pricing))
    if match is None:
        raise BrokenRecord(f"pricing: should be a text such as '$12.99', got {_shown(pricing)}")
    prices = [float(price.replace(",", "")) for price in match.groups() if price]
    if max(prices) > MAX_PRICE:
        raise BrokenRecord(f"pricing: a price must lie in 0 to {MAX_PRICE:,.0f}, got {_shown(pricing)}")
    return min(prices), max(prices)


def _price(product_id: str, low: float, high: float) -> float:
    """WebShop draws one price out of a range; ours is the same in every process."""
    drawn = round(random.Random(f"price {product_id}").uniform(low, high), 2)
    return min(max(drawn, low), high)  # a range can be narrower than a cent


def _options(value: Any) -> dict[str, tuple[str, ...]]:
    """Names and values, in the record's order; what is empty is left out."""
    if not value:
        return {}
    if not isinstance(value, dict):
        raise BrokenRecord(f"customization_options: should be an object, got {_shown(value)}")
    options: dict[str, tuple[str, ...]] = {}
    for original, contents in value.items():
        field = f"customization_options.{cut(clean(original), 60)}"
        name, values = _option_name(original), _option_values(field, contents)
        if not (name and values):
            continue
        if name in options:
            raise BrokenRecord(f"{field}: a second option {name!r}")
        options[name] = values
    combinations = math.prod(map(len, options.values()))
    length = sum(len(name) + sum(map(len, values)) for name, values in options.items())
    for count, limit, word in [
        (len(options), MAX_OPTIONS, "options"),
        (length, MAX_OPTIONS_LENGTH, "characters of names and values"),
        (combinations, MAX_COMBINATIONS, "combinations"),
    ]:
        if count > limit:
            raise BrokenRecord(f"customization_options: {count:,} {word}, at most {limit:,}")
    return options


def _option_values(field: str, contents: Any) -> tuple[str, ...]:
    if contents is None:
        return ()
    if not isinstance(contents, list) or not all(
        isinstance(each, dict) and isinstance(each.get("value"), str) for each in contents
    ):
        raise BrokenRecord(f"{field}: should be a list of objects with a value, got {_shown(contents)}")
    if len(contents) > MAX_VALUES:
        raise BrokenRecord(f"{field}: {len(contents):,} values, at most {MAX_VALUES:,}")
    whole: dict[str, str] = {}
    values = []
    for text in (_option_text(each["value"]) for each in contents):
        value = cut(text, MAX_VALUE_LENGTH)
        # One button cannot stand for both. Equal values are goals of their own, as in WebShop.
        if whole.setdefault(value, text) != text:
            raise BrokenRecord(f"{field}: two values begin with {value!r}")
        values.append(value)
    return tuple(filter(None, values))


def _option_name(text: str) -> str:
    return cut(clean(text).lower(), MAX_VALUE_LENGTH)


def _option_text(text: str) -> str:
    """A value as WebShop writes it: in lower case, and a slash as a bar."""
    # Cleaned before, because of the slash in `</b>`, and after, because of `//`.
    return clean(clean(text).replace("/", " | ")).lower()


def _rating(value: Any) -> float | None:
    """Stars, 0 to 5; anything else that stands there is no rating."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 5:
        return None
    return float(value) if math.isfinite(value) else None


def _goal(goal: Any) -> tuple[tuple[str, ...], Instruction | None]:
    """Attributes and instruction of an entry of `items_ins_v2*.json`."""
    if goal is None:
        return (), None
    if not isinstance(goal, dict):
        raise BrokenRecord(f"its goal is no object but {_shown(goal)}")
    attributes = _phrases(goal.get("attributes") or [], "attributes")
    if goal.get("instruction") is None:
        return attributes, None
    wanted = _phrases(goal.get("instruction_attributes"), "instruction_attributes")
    if not wanted:
        raise BrokenRecord("instruction_attributes: is empty, so the instruction asks for nothing")
    return attributes, Instruction(_request(goal), wanted)


def _human(entries: Any) -> tuple[Instruction, ...]:
    """What people asked for; WebShop leaves out an instruction that names no attribute."""
    if entries is None:
        return ()
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BrokenRecord(f"its instructions should be a list of objects, got {_shown(entries)}")
    found = []
    for entry in entries:
        wanted = _phrases(entry.get("instruction_attributes"), "instruction_attributes")
        options = entry.get("instruction_options") or []
        texts = _texts(
            list(options.values()) if isinstance(options, dict) else options, "instruction_options"
        )
        values = [cut(_option_text(text), MAX_VALUE_LENGTH) for text in texts]
        named: Options = tuple(filter(None, values))
        if isinstance(options, dict):
            named = {}
            for name, value in zip(map(_option_name, options), values, strict=True):
                if name in named:
                    raise BrokenRecord(f"instruction_options: a second option {name!r}")
                named |= {name: value} if value else {}
        if wanted:
            found.append(Instruction(_request(entry), wanted, named))
    return tuple(found)


def _request(entry: Mapping[str, Any]) -> str:
    text = _text(entry, "instruction", required=True)
    if len(text) > MAX_INSTRUCTION_LENGTH:
        raise BrokenRecord(f"instruction: {len(text):,} characters, at most {MAX_INSTRUCTION_LENGTH:,}")
    return text


def _phrases(values: Any, field: str) -> tuple[str, ...]:
    return tuple(filter(None, (clean(value).lower() for value in _texts(values, field))))


def _shown(value: Any) -> str:
    return cut(ascii(value), 60)
