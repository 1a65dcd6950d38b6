"""WebShop: a shop with a search, product pages and options, and requests to buy something in it."""

from actfocus.envs.webshop.environment import WebShop

__all__ = ["WebShop"]
