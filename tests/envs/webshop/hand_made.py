"""Shops of a few products, made by hand, and a way to play in them."""

from collections.abc import Sequence

from actfocus.envs.webshop.catalogue import Catalogue
from actfocus.envs.webshop.environment import WebShop
from actfocus.envs.webshop.goals import Goals, Pool
from actfocus.envs.webshop.products import Product, read_product
from actfocus.envs.webshop.search import SearchEngine
from actfocus.envs.webshop.shop import Shop
from actfocus.envs.webshop.visit import Visit


def product(
    asin="b1",
    name="Plain Mug",
    *,
    options=None,
    attributes=("matte",),
    wanted=("matte",),
    instruction="Find me matte mugs",
    human=None,
    **fields,
) -> Product:
    """A product as its record in WebShop's files would be read."""
    record = {
        "asin": asin,
        "name": name,
        "full_description": "",
        "small_description": [],
        "pricing": "$5.00",
        "product_category": "home › drinks › mugs",
        "query": "mugs",
        "customization_options": {
            name: [{"value": value} for value in values] for name, values in (options or {}).items()
        },
    }
    goal = {"attributes": list(attributes), "instruction": instruction}
    return read_product(record | fields, goal | {"instruction_attributes": list(wanted)}, human)


def shop_of(*products: Product, kind="synthetic") -> Shop:
    """A shop of these products; nothing is written to the cache."""
    goals = Goals(products, kind)
    pools = [Pool(goals, products, "product", evaluation=evaluation) for evaluation in (False, True)]
    return Shop(Catalogue("hand-made", products, ""), SearchEngine.build(products), goals, *pools)


def visit_of(*products: Product, request="Find me a mug") -> Visit:
    """A visit to a shop of these products."""
    return Visit(products, SearchEngine.build(products), request)


def mugs(count: int) -> list[Product]:
    """Products that a search for "mug" finds."""
    return [product(f"m{k}", f"Mug number {k}") for k in range(count)]


def reply(*actions: str) -> str:
    """A well-formed reply."""
    return f"<think>so</think><answer>{' || '.join(actions)}</answer>"


def play(env: WebShop, actions: Sequence[str]):
    """What the last of these turns returns; the game must not end before it."""
    for action in actions[:-1]:
        _, _, terminated, truncated, info = env.step(reply(action))
        assert not (terminated or truncated), info
    return env.step(reply(actions[-1]))
