"""WebShop's files, made small, for the tests of what reads them."""

import gzip
import json
from pathlib import Path


def item(asin="B000000001", **changes):
    """A record of `items_shuffle*.json`; a change to `...` takes the field away."""
    record = {
        "asin": asin,
        "name": "Solid Wood Chair",
        "full_description": "A chair that stays.",
        "small_description": ["made of solid wood", "has four legs"],
        "pricing": "$12.99",
        "product_category": "Home & Kitchen › Furniture › Chairs",
        "category": "garden",
        "query": "Chairs",
        "average_rating": 4.5,
        "customization_options": {
            "Color": [{"value": "Red", "image": None}, {"value": "Black/White", "image": None}],
            "size": [{"value": "Small"}, {"value": "Large"}, {"value": "X-Large"}],
        },
        "images": [],
    } | changes
    return {key: value for key, value in record.items() if value is not ...}


def order(**changes):
    """An entry of `items_ins_v2*.json`; a change to `...` takes the field away."""
    entry = {
        "attributes": ["Solid Wood", "easy clean"],
        "instruction": "Find me solid wood chairs",
        "instruction_attributes": ["Solid Wood"],
    } | changes
    return {key: value for key, value in entry.items() if value is not ...}


def write_files(folder: Path, items, goals=None, human=None, *, gz=False) -> Path:
    """Files in `folder`; without `goals`, each product has one. Bytes are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    if goals is None:
        goals = {record["asin"]: order() for record in items}
    files = {"items_shuffle.json": items, "items_ins_v2.json": goals, "items_human_ins.json": human}
    for name, content in files.items():
        if content is None:
            continue
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / f"{name}.gz" if gz else folder / name).write_bytes(gzip.compress(data) if gz else data)
    return folder
