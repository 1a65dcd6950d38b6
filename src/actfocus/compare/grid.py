"""A grid: environments × algorithms × learning rates × arms × seeds, and each cell's whole configuration."""

import itertools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actfocus.compare.arms import Arm, exact
from actfocus.config import Config, differences, dotted_keys, explain, known_env, load_toml, nearest_key
from actfocus.errors import ConfigError

_OTHER_OPTION = {
    "seed": "--seeds",
    "focus": "--arm",
    "env.name": "--env",
    "algorithm.name": "--algorithm",
}
"""Keys that a comparison varies on purpose, and the option that does it."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    name: str
    """Of its run directory, log and configuration."""
    arm: str
    config: Config


def make_cells(
    *,
    envs: Sequence[str],
    algorithms: Sequence[str],
    arms: Sequence[Arm],
    seeds: Sequence[int],
    lrs: Sequence[float],
    config: Path | None,
    changes: Sequence[str],
) -> list[Cell]:
    """All cells, seed by seed, so that a grid that is broken off has all arms of the first seeds.

    Args:
        envs: Names of games; empty means that of `config`, else frozen-lake.
        algorithms: Empty means that of `config`, else GRPO and PPO.
        arms: Token weights.
        seeds: Seeds, in this order.
        lrs: Learning rates that every arm is run with; empty means the recipe's.
        config: Settings for all; None means `recipes/ENV-ALGORITHM.toml`.
        changes: Settings `key=value` that override the file's.

    Raises:
        ConfigError: If a value is wrong or a recipe is missing.
    """
    for option, values in {"--env": envs, "--algorithm": algorithms, "--seeds": seeds, "--lr": lrs}.items():
        twice = [value for value in values if list(values).count(value) > 1]
        if twice:
            raise ConfigError(f"{option}: {twice[0]} is given twice")
    if config is not None:
        tree = load_toml(config)
        envs = envs or [_named(tree, "env", "frozen-lake")]
        algorithms = algorithms or [_named(tree, "algorithm", "grpo")]
    envs, algorithms = envs or ["frozen-lake"], algorithms or ["grpo", "ppo"]
    for env in envs:
        try:
            known_env(env)
        except ValueError as error:
            raise ConfigError(f"--env: {error}") from None
    overrides = parse_changes(changes, swept=bool(lrs))
    bases = {
        (env, algorithm): base_tree(env, algorithm, config, overrides)
        for env in envs
        for algorithm in algorithms
    }
    rates: Sequence[float | None] = lrs or [None]
    cells = []
    for seed, (key, (tree, source)), lr, arm in itertools.product(seeds, bases.items(), rates, arms):
        whole = _merged(tree, {"seed": seed, "focus": arm.focus.model_dump()})
        if lr is not None:
            whole = _merged(whole, {"optimizer": {"lr": lr}})
        words = [_slug(key[0]), key[1], *([] if lr is None else [f"lr{exact(lr)}"]), arm.name, str(seed)]
        cells.append(Cell("-".join(words), arm.name, _validated(whole, source)))
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two runs of the grid would have the name {name}: name an arm otherwise")
    return cells


def base_tree(
    env: str, algorithm: str, config: Path | None, overrides: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """The settings of an environment and an algorithm without seed and arm, and where they come from."""
    path = config or find_recipe(env, algorithm)
    names = {"env": {"name": env}, "algorithm": {"name": algorithm}}
    tree = {key: value for key, value in load_toml(path).items() if key not in ("focus", "seed")}
    _validated(_merged(tree, names), str(path))  # so that the file is not blamed for --set
    return _merged(_merged(tree, overrides), names), f"{path}{' with --set' if overrides else ''}"


def find_recipe(env: str, algorithm: str) -> Path:
    """`recipes/ENV-ALGORITHM.toml` here, or in the checkout that actfocus is installed from."""
    name = f"{env}-{algorithm}.toml"
    for folder in (Path("recipes"), Path(__file__).parents[3] / "recipes"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"there is no recipe recipes/{name}: give the settings with --config FILE")


def parse_changes(words: Sequence[str], *, swept: bool) -> dict[str, Any]:
    """`optimizer.lr=1e-4 steps=20` as a tree; values are TOML, or else plain text."""
    known = dotted_keys(Config)
    tree: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.replace("-", "_")
        if not equals or not key:
            raise ConfigError(f"--set: write key=value, as in optimizer.lr=1e-4, got {word!r}")
        if key not in known:
            raise ConfigError(f"--set {key}: unknown key{nearest_key(key, known)}")
        option = _OTHER_OPTION.get(key) or _OTHER_OPTION.get(key.partition(".")[0])
        if option:
            raise ConfigError(f"--set {key}: a comparison varies it: use {option}")
        if any(other.startswith(f"{key}.") for other in known):
            raise ConfigError(f"--set {key}: that is a section: name one of its settings, as in env.turns=3")
        if swept and key == "optimizer.lr":
            raise ConfigError("--set optimizer.lr does not go with --lr: give one of them")
        value: Any = _value(text)
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = _merged(tree, value)
    return tree


def refuse_other_settings(old: Sequence[Cell], new: Sequence[Cell], where: Path, *, swept: bool) -> None:
    """Raise `ConfigError` if new cells do not compare with those that a directory has already.

    Within an environment and an algorithm all but the seed and the arm must agree, and the learning rate
    unless it is swept; an arm's name must mean the same weights.
    """
    for cell in new:
        name = (cell.config.env.name, cell.config.algorithm.name)
        same = [c for c in old if (c.config.env.name, c.config.algorithm.name) == name]
        keys = [key for key in differences(same[0].config, cell.config) if not varies(key)] if same else []
        if swept or cell.config.optimizer.lr in {c.config.optimizer.lr for c in same}:
            keys = [key for key in keys if key != "optimizer.lr"]
        if keys:
            raise ConfigError(
                f"{where} was made with other settings for {', '.join(name)}: {', '.join(keys)}; leave them"
                " as they were, or choose another --out"
            )
        for other in old:
            changed = differences(other.config, cell.config) if other.arm == cell.arm else []
            keys = [key for key in changed if key.startswith("focus.")]
            if keys:
                raise ConfigError(
                    f"{where} has an arm {cell.arm!r} with other weights: {', '.join(keys)}; choose another"
                    " name"
                )


def varies(key: str) -> bool:
    """Whether runs of one comparison may differ in this setting: the seed, and the token weights."""
    return key == "seed" or key.startswith("focus.")


def _named(tree: dict[str, Any], section: str, default: str) -> str:
    found = tree.get(section)
    return str(found.get("name", default)) if isinstance(found, dict) else default


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(tree)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _validated(tree: dict[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, Config)}") from None


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name)
