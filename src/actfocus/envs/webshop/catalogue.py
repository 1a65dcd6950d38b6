"""Catalogues: the one that ships, and WebShop's own files, imported once and kept under a name."""

import gzip
import hashlib
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from actfocus.cache import cache_folder
from actfocus.envs.webshop.generator import generate
from actfocus.envs.webshop.goals import Goals
from actfocus.envs.webshop.products import BrokenRecord, File, Instruction, Product, read_product, skipped
from actfocus.envs.webshop.text import clean
from actfocus.envs.webshop.winnable import check_goal, check_product
from actfocus.errors import ConfigError, did_you_mean

SHIPPED = "shipped"
_FORMAT = 1
"""Counted up when the kept form of a catalogue changes; it is then to be imported again."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_FILES: dict[File, str] = {
    "items": "items_shuffle*.json",
    "goals": "items_ins_v2*.json",
    "human": "items_human_ins*.json",
}
_SHOWN = 5
_AGAIN = "import the catalogue again with --replace"


@dataclass(frozen=True)
class Catalogue:
    """Products in the order of their file, and a digest that names exactly these."""

    name: str
    products: tuple[Product, ...]
    digest: str


@dataclass
class Imported:
    """What an import found."""

    name: str
    path: str
    products: int = 0
    goals: int = 0
    human_goals: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Records that WebShop itself passes over, by reason."""
    broken: list[str] = field(default_factory=list)
    """What was left out, with file, record and field: records, and requests of people that cannot be met."""


def shipped_catalogue(families: int | None = None) -> Catalogue:
    """The catalogue that `generate` makes; with `families`, one of another size."""
    items, goals = generate() if families is None else generate(families)
    products = tuple(read_product(item, goals.get(item["asin"]), None) for item in items)
    return Catalogue(SHIPPED, products, _digest(products))


@lru_cache(maxsize=2)
def load_catalogue(name: str) -> Catalogue:
    """The catalogue `name`: `shipped`, or an imported one.

    Raises:
        ConfigError: If there is no such catalogue, or its file is damaged.
    """
    if name == SHIPPED:
        return shipped_catalogue()
    path = catalogue_path(name)
    if not path.is_file():
        known = [SHIPPED, *imported_names()]
        raise ConfigError(
            f"no catalogue {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)};"
            " another is made with: actfocus webshop import DIR --name NAME"
        )
    stored = _read_json(path, remedy=_AGAIN)
    try:
        if stored["format"] != _FORMAT:
            raise ConfigError(f"{path} was made by another version: {_AGAIN}")
        products = tuple(map(_restored, stored["products"]))
        return Catalogue(name, products, str(stored["digest"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged: {_AGAIN}") from error


def imported_names() -> list[str]:
    """The names of the imported catalogues."""
    names = (path.name.removesuffix(".json.gz") for path in _folder().glob("*.json.gz") if path.is_file())
    return sorted(name for name in names if _is_name(name))


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name != SHIPPED


def catalogue_path(name: str) -> Path:
    """Where an imported catalogue is kept.

    Raises:
        ConfigError: If `name` is not fit for a file.
    """
    if not _is_name(name):
        raise ConfigError(
            f"{name!r} cannot name an imported catalogue: take lower-case letters, digits, '.', '_' and '-'"
            + (f"; {SHIPPED!r} is the one that comes with actfocus" if name == SHIPPED else "")
        )
    return _folder() / f"{name}.json.gz"


def import_catalogue(
    folder: Path, name: str, *, skip_broken: bool = False, replace: bool = False
) -> Imported:
    """Check WebShop's files in `folder` and keep them as catalogue `name`.

    Args:
        folder: Holds `items_shuffle*.json`, `items_ins_v2*.json` and, if there is one,
            `items_human_ins*.json`; each may end in `.gz`.
        name: What `--env.catalogue` will call it.
        skip_broken: Leave broken records out instead of refusing the whole.
        replace: Put it in the place of an earlier import of that name.

    Raises:
        ConfigError: Naming file, record and field of what is missing or malformed, or the name that is
            taken; what was imported before is then as it was.
    """
    target = catalogue_path(name)
    if target.exists() and not replace:
        raise ConfigError(f"there is a catalogue {name!r} already: choose another --name, or give --replace")
    paths = _find_files(folder)
    items, goals = _read_json(paths["items"]), _read_json(paths["goals"])
    human = _read_json(paths["human"]) if "human" in paths else {}
    contents: list[tuple[File, Any, type, str]] = [
        ("items", items, list, "a list of products"),
        ("goals", goals, dict, "an object of goals by asin"),
        ("human", human, dict, "an object of instructions by asin"),
    ]
    for key, value, kind, word in contents:
        if not isinstance(value, kind):
            raise ConfigError(f"{paths[key]} should hold {word}, it holds {type(value).__name__}")
    report = Imported(name, str(target))
    products = tuple(_read_products(items, goals, human, paths, report))
    if report.broken and not skip_broken:
        more = f" (and {len(report.broken) - _SHOWN} more)" if len(report.broken) > _SHOWN else ""
        raise ConfigError(
            f"{'; '.join(report.broken[:_SHOWN])}{more}; mend the file, or leave such records out with"
            " --skip-broken"
        )
    report.products = len(products)
    report.goals, report.human_goals = len(Goals(products, "synthetic")), len(Goals(products, "human"))
    if not report.goals and not report.human_goals:
        raise ConfigError(f"no product of {paths['items']} has an instruction in {paths['goals']}")
    _keep(target, products)
    load_catalogue.cache_clear()
    return report


def _read_products(
    items: list[Any], goals: dict[str, Any], human: dict[str, Any], paths: dict[File, Path], report: Imported
) -> Iterator[Product]:
    seen: set[str] = set()
    for number, record in enumerate(items):
        reason = skipped(record, seen)
        if reason is not None:
            report.skipped[reason] = report.skipped.get(reason, 0) + 1
            continue
        asin = record.get("asin") if isinstance(record, dict) else None
        key = asin if isinstance(asin, str) else ""
        found: list[BrokenRecord] = []
        product = _read_product(record, goals.get(key), human.get(key), found)
        for error in found:
            shown = clean(key)[:20] or "none"
            place = f"record {number} (asin {shown})" if error.file == "items" else f"entry {shown}"
            report.broken.append(f"{paths[error.file].name}: {place}: {error}")
        if product is not None:
            seen.add(product.id)
            yield product


def _read_product(record: Any, goal: Any, human: Any, broken: list[BrokenRecord]) -> Product | None:
    """The product with those of people's requests that it can meet, None if it cannot be used.

    What is wrong is added to `broken`.
    """
    try:
        product = read_product(record, goal, human)
        check_product(product)
        if product.instruction is not None:
            check_goal(product, product.instruction, "goals")
    except BrokenRecord as error:
        broken.append(error)
        return None
    possible = []
    for asked in product.human:
        try:
            check_goal(product, asked, "human")
        except BrokenRecord as error:
            broken.append(error)
        else:
            possible.append(asked)
    return replace(product, human=tuple(possible))


def _find_files(folder: Path) -> dict[File, Path]:
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    found: dict[File, Path] = {}
    for key, pattern in _FILES.items():
        matches = sorted({*folder.glob(pattern), *folder.glob(f"{pattern}.gz")})
        if len(matches) > 1:
            names = ", ".join(path.name for path in matches)
            raise ConfigError(f"{folder} holds several files {pattern} ({names}): leave one of them there")
        if matches:
            found[key] = matches[0]
        elif key != "human":
            raise ConfigError(f"{folder} holds no file {pattern} or {pattern}.gz")
    return found


def _read_json(path: Path, remedy: str = "fetch it again") -> Any:
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path} is truncated or damaged ({error}): {remedy}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON
        raise ConfigError(f"{path} is not valid JSON ({error}): {remedy}") from None


def _keep(target: Path, products: tuple[Product, ...]) -> None:
    """Write aside, then rename: a disk that is full leaves what was there."""
    stored = {"format": _FORMAT, "digest": _digest(products), "products": [asdict(p) for p in products]}
    # No time in the header: equal catalogues are equal files.
    data = gzip.compress(_json(stored), compresslevel=6, mtime=0)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as aside:
            Path(aside, target.name).write_bytes(data)
            os.replace(Path(aside, target.name), target)
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror or error}") from None


def _restored(stored: dict[str, Any]) -> Product:
    """Inverse of `asdict`, with tuples for JSON's lists."""
    instruction = stored.pop("instruction")
    human = stored.pop("human")
    options = {name: tuple(values) for name, values in stored.pop("options").items()}
    lists = {key: tuple(value) for key, value in stored.items() if isinstance(value, list)}
    return Product(
        **(stored | lists),
        options=options,
        instruction=None if instruction is None else _restored_instruction(instruction),
        human=tuple(map(_restored_instruction, human)),
    )


def _restored_instruction(stored: dict[str, Any]) -> Instruction:
    options = stored["options"]
    return Instruction(
        stored["text"], tuple(stored["attributes"]), options if isinstance(options, dict) else tuple(options)
    )


def _digest(products: tuple[Product, ...]) -> str:
    digest = hashlib.sha256()
    for product in products:
        digest.update(_json(asdict(product)))
    return digest.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _folder() -> Path:
    return cache_folder() / "webshop"
