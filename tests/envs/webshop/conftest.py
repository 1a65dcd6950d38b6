"""Shops for these tests; nothing of them touches the user's cache."""

from pathlib import Path

import pytest

from actfocus.envs.webshop.catalogue import import_catalogue, load_catalogue
from actfocus.envs.webshop.shop import make_shop, open_shop

REAL = Path(__file__).parents[4] / "shared" / "data" / "webshop"
"""WebShop's 1000-product set, which is no part of the project."""


@pytest.fixture(scope="package", autouse=True)
def cache(tmp_path_factory):
    """A cache of these tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTFOCUS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="package")
def shipped(cache):
    """The shop that comes with actfocus."""
    return open_shop("shipped")


@pytest.fixture(scope="package")
def real(cache):
    """The shop with WebShop's own thousand products."""
    if not (REAL / "items_shuffle_1000.json.gz").exists():
        pytest.skip(f"the 1000-product set is not at {REAL}")
    import_catalogue(REAL, "webshop-1000-of-the-tests")
    return make_shop(load_catalogue("webshop-1000-of-the-tests"))
