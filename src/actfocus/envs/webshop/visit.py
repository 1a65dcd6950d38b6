"""A visit: the pages of the shop, as text, and what each button does.

What stands in [square brackets] on a page is a button; texts of the catalogue hold none (`text.clean`).
"""

import math
from enum import StrEnum
from typing import Final

from actfocus.envs.webshop.products import Product
from actfocus.envs.webshop.search import SearchEngine
from actfocus.envs.webshop.text import clean, cut

PAGE_SIZE = 10
QUERY_LENGTH = 200
"""Characters of a query that are searched for; the rest is dropped."""
TURNS = 9
"""Of a visit, unless the game is set otherwise."""

# What a page leaves out of a long text, in characters. Buttons are never left out.
LISTED_TITLE, SHOWN_TITLE, DESCRIPTION, BULLET, BULLETS = 100, 300, 1_000, 200, 10

BACK: Final = "back to search"
NEXT: Final = "next >"
PREVIOUS: Final = "< prev"
BUY: Final = "buy now"


class Page(StrEnum):
    """Where the visitor is."""

    SEARCH = "search"
    RESULTS = "results"
    PRODUCT = "product"
    DESCRIPTION = "description"
    FEATURES = "features"
    REVIEWS = "reviews"


DETAILS: Final[tuple[Page, ...]] = (Page.DESCRIPTION, Page.FEATURES, Page.REVIEWS)


class Visit:
    """One visitor, from the search page to the purchase."""

    def __init__(self, products: tuple[Product, ...], engine: SearchEngine, request: str) -> None:
        """`request` stands on every page."""
        self._products, self._engine = products, engine
        self.request = request
        self.page = Page.SEARCH
        self.query = ""
        self.hits: list[int] = []
        """Indices of the products that the last search found."""
        self.window = 0
        """Which ten of them are shown, from 0."""
        self.product_index: int | None = None
        """The product that is or was looked at last."""
        self.chosen: dict[str, str] = {}
        """Option name → value chosen for this product."""
        self.bought = False

    @property
    def product(self) -> Product:
        """The product whose page is open; an error elsewhere."""
        assert self.product_index is not None
        return self._products[self.product_index]

    @property
    def shown(self) -> list[int]:
        """Indices of the products on this page of results."""
        return self.hits[self.window * PAGE_SIZE : (self.window + 1) * PAGE_SIZE]

    @property
    def listed(self) -> list[Product]:
        """The products on this page of results."""
        return [self._products[index] for index in self.shown]

    @property
    def windows(self) -> int:
        """Pages of results."""
        return math.ceil(len(self.hits) / PAGE_SIZE)

    # What can be done. ---------------------------------------------------------------------------------

    def search(self, query: str) -> None:
        """Search; possible on the search page alone."""
        assert self.page is Page.SEARCH
        self.query = cut(clean(query), QUERY_LENGTH)
        self.hits, self.window, self.page = self._engine.search(self.query), 0, Page.RESULTS

    def buttons(self) -> list[str]:
        """The labels of all buttons of this page, in its order; each can be clicked."""
        if self.page is Page.RESULTS:
            return [*(product.id for product in self.listed), *self._page_buttons()]
        if self.page is Page.PRODUCT:
            values = [value for values in self.product.options.values() for value in values]
            return list(dict.fromkeys([*values, *self._page_buttons()]))
        return self._page_buttons()

    def find_button(self, text: str) -> str | None:
        """The button that `text` names, whatever its case and blanks; None if this page has none such."""
        # A page's own buttons come first: a product could be called "buy now".
        labels = [*self._page_buttons(), *self.buttons()]
        exact, wanted = " ".join(text.split()), _folded(text)
        # The exact one first: values can differ in case alone, as the micro sign and the Greek letter do.
        return exact if exact in labels else next((each for each in labels if _folded(each) == wanted), None)

    def click(self, label: str) -> None:
        """Press a button of this page."""
        if label in self._page_buttons():
            self._move(label)
        elif self.page is Page.RESULTS:
            self.product_index = next(i for i in self.shown if self._products[i].id == label)
            self.chosen, self.page = {}, Page.PRODUCT
        else:
            self._choose(label)

    def _move(self, label: str) -> None:
        if label == BUY:
            self.bought = True
        elif label == BACK:
            self.page, self.hits, self.chosen = Page.SEARCH, [], {}
        elif label in DETAILS:
            self.page = Page(label)
        elif self.page is Page.RESULTS:
            self.window += 1 if label == NEXT else -1
        else:
            self.page = Page.RESULTS if self.page is Page.PRODUCT else Page.PRODUCT

    def _choose(self, value: str) -> None:
        """Where several options have the value, the first that is not set to it already."""
        names = [name for name, values in self.product.options.items() if value in values]
        name = next((name for name in names if self.chosen.get(name) != value), names[0])
        self.chosen[name] = value

    def _page_buttons(self) -> list[str]:
        """The buttons that the page itself has, apart from products and option values."""
        if self.page is Page.SEARCH:
            return []
        if self.page is Page.PRODUCT:
            return [*DETAILS, BUY, PREVIOUS, BACK]
        if self.page in DETAILS:
            return [PREVIOUS, BACK]
        more = [NEXT] if self.window + 1 < self.windows else []
        return [*more, *([PREVIOUS] if self.window else []), BACK]

    # What it looks like. -------------------------------------------------------------------------------

    def text(self) -> str:
        """The page, headed by the request."""
        lines = {Page.SEARCH: self._search_lines, Page.RESULTS: self._result_lines}
        body = lines.get(self.page, self._product_lines)()
        buttons = " ".join(f"[{label}]" for label in self._page_buttons())
        footer = f"Buttons: {buttons}" if buttons else "Action: search[words]"
        return "\n".join([f"Request: {self.request}", *body, footer])

    def _search_lines(self) -> list[str]:
        return ["This is the search page."]

    def _result_lines(self) -> list[str]:
        if not self.hits:
            return [f'Nothing was found for "{self.query}".']
        found = f'{len(self.hits)} found for "{self.query}", page {self.window + 1} of {self.windows}:'
        return [found, *map(self._line, self.listed)]

    def _product_lines(self) -> list[str]:
        product = self.product
        if self.page is Page.DESCRIPTION:
            return [f"Description of {product.id}: {cut(product.description, DESCRIPTION) or 'none.'}"]
        if self.page is Page.FEATURES:
            bullets = [f"- {cut(bullet, BULLET)}" for bullet in product.bullets[:BULLETS]]
            more = len(product.bullets) - BULLETS
            bullets += [f"- (and {more} more)"] if more > 0 else []
            return [f"Features of {product.id}:", *(bullets or ["none."])]
        if self.page is Page.REVIEWS:
            rating = f"{product.rating:g} of 5 stars" if product.rating else "none"
            return [f"Rating of {product.id}: {rating}. There are no written reviews."]
        options = [
            f"{name}: {' '.join(f'[{value}]' for value in dict.fromkeys(values))}"
            for name, values in product.options.items()
        ]
        return [
            self._named(),
            f"Price: {_dollars(product)}",
            *options,
            *([f"Chosen: {self._chosen()}"] if options else []),
        ]

    def purchase(self) -> str:
        """What was bought, in a line."""
        bought = ["Bought:", self._named(), f"for ${self.product.price:.2f}"]
        return " ".join([*bought, f"({self._chosen()})"] if self.chosen else bought)

    def _named(self) -> str:
        return f"{self.product.id}: {cut(self.product.title, SHOWN_TITLE)}"

    def _chosen(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in self.chosen.items()) or "nothing"

    @staticmethod
    def _line(product: Product) -> str:
        return f"[{product.id}] {cut(product.title, LISTED_TITLE)}, {_dollars(product)}"


def _dollars(product: Product) -> str:
    low, high = product.price_range
    return f"${low:.2f}" if low == high else f"${low:.2f} to ${high:.2f}"


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
