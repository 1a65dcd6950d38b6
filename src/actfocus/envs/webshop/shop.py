"""A shop: catalogue, search index and goals, made once per process and shared by all its environments."""

from dataclasses import dataclass
from functools import lru_cache

from actfocus.envs.webshop.catalogue import Catalogue, load_catalogue
from actfocus.envs.webshop.goals import GoalKind, Goals, Pool, Split
from actfocus.envs.webshop.search import SearchEngine
from actfocus.errors import ConfigError


@dataclass(frozen=True)
class Shop:
    """What does not change from one episode to the next."""

    catalogue: Catalogue
    engine: SearchEngine
    goals: Goals
    training: Pool
    evaluation: Pool


def open_shop(name: str, kind: GoalKind = "synthetic", split: Split = "product") -> Shop:
    """The shop of the catalogue `name`.

    Raises:
        ConfigError: If there is no such catalogue, or it has no goal of this kind.
    """
    return _open_shop(name, load_catalogue(name).digest, kind, split)


@lru_cache(maxsize=4)
def _open_shop(name: str, digest: str, kind: GoalKind, split: Split) -> Shop:
    # The digest is a part of the key: an import may have replaced the catalogue of that name.
    return make_shop(load_catalogue(name), kind, split)


def make_shop(catalogue: Catalogue, kind: GoalKind = "synthetic", split: Split = "product") -> Shop:
    """The shop of a catalogue that is at hand; raises as `open_shop` does."""
    products = catalogue.products
    goals = Goals(products, kind)
    if not len(goals):
        raise ConfigError(f"the catalogue {catalogue.name} has no {kind} goals")
    training, evaluation = (Pool(goals, products, split, evaluation=e) for e in (False, True))
    return Shop(catalogue, SearchEngine.open(catalogue), goals, training, evaluation)
