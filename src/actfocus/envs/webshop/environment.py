"""WebShop: buy the product that a request asks for.

Rules: Yao et al. 2022 (WebShop), in the text form that RAGEN uses; `docs/webshop.md` tells what a page shows.
"""

import re
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np

from actfocus.envs.protocol import EVALUATION_SEEDS, Printable, TextEnv
from actfocus.envs.webshop.expert import plan, remarks
from actfocus.envs.webshop.goals import Goal, GoalKind, Split
from actfocus.envs.webshop.products import Product
from actfocus.envs.webshop.score import OptionMatch, Score, content_words, score
from actfocus.envs.webshop.shop import Shop, open_shop
from actfocus.envs.webshop.text import clean
from actfocus.envs.webshop.visit import TURNS, Page, Visit

Reward = Literal["strict", "dense"]

_ACTION = re.compile(r"(?P<verb>search|click)\s*\[(?P<argument>.*)\]", re.IGNORECASE | re.DOTALL)


class Action(NamedTuple):
    """`search` with words, or `click` with the label of a button."""

    verb: str
    argument: str


class WebShop(TextEnv):
    """Buying ends the game: reward 1 if everything is right (`strict`), or the score (`dense`).

    The request of a level is drawn from the training goals, or from the evaluation goals if the level's seed
    is one of evaluation. An action that the page does not offer is an unknown action.
    """

    _RULES: ClassVar[str] = (
        "Buy in a web shop what the request asks for. It must be the right product, with the right options,"
        " below the price limit. First search, then open a product of the results by its id, choose the"
        " options, and buy. What stands in [brackets] on a page is a button."
        " Actions: search[words] on the search page; click[button] on the others."
        " Choose every option that the request names before you click[buy now], which ends the game;"
        " description and features tell more of a product, and each look costs a turn."
    )

    def __init__(
        self,
        *,
        turns: int = TURNS,
        actions_per_turn: int = 1,
        actions_per_episode: int = TURNS,
        catalogue: str = "shipped",
        goals: GoalKind = "synthetic",
        split: Split = "product",
        option_match: OptionMatch = "fuzzy",
        reward: Reward = "strict",
        shop: Shop | None = None,
        render_mode: str | None = None,
    ) -> None:
        """The settings are those of `EnvConfig`; `shop` is one that is at hand, instead of `catalogue`.

        Raises:
            ConfigError: If there is no such catalogue, or it has no goals of this kind.
            ValueError: If a setting has none of its values.
        """
        _require(goals=(goals, GoalKind), split=(split, Split))
        _require(option_match=(option_match, OptionMatch), reward=(reward, Reward))
        super().__init__(
            turns=turns,
            actions_per_turn=actions_per_turn,
            actions_per_episode=actions_per_episode,
            render_mode=render_mode,
        )
        self.observation_space = Printable(max_length=200_000)
        self._shop = shop or open_shop(catalogue, goals, split)
        self._option_match: OptionMatch = option_match
        self._reward = reward
        paid = {
            "strict": "Only a purchase that is right in all points pays.",
            "dense": "Any purchase pays by how well it fits: 1 if it is right in all points.",
        }
        self.rules = f"{self._RULES} {paid[reward]}"

    def new_level(self, rng: np.random.Generator) -> None:
        """Draw a goal."""
        # A range is searched number by number for what is no number.
        evaluation = self.level_seed is not None and self.level_seed in EVALUATION_SEEDS
        self.enter((self._shop.evaluation if evaluation else self._shop.training).draw(rng))

    def enter(self, goal: Goal) -> None:
        """Begin at the search page with this goal."""
        self.goal = goal
        self.visit = Visit(self._products, self._shop.engine, goal.text)
        self.score: Score | None = None
        """Of the purchase; None before it."""

    @property
    def wanted(self) -> Product:
        """The product that the goal was made for."""
        return self._products[self.goal.product]

    @property
    def _products(self) -> tuple[Product, ...]:
        return self._shop.catalogue.products

    def picture(self) -> str:
        """The page; after the purchase, what it was worth."""
        return self.visit.text() if self.score is None else self._receipt(self.score)

    def _receipt(self, score: Score) -> str:
        parts = [f"{score.attributes} of {len(self.goal.attributes)} attributes"]
        if self.goal.options:
            parts.append(f"{score.options} of {len(self.goal.options)} options")
        parts += ["price within the limit" if score.price else "price above the limit"]
        kind = "the kind that was asked for" if score.type == 1 else f"another kind (factor {score.type:g})"
        return (
            f"Request: {self.goal.text}\n{self.visit.purchase()}\n"
            f"Score {score.total:.2f}: {kind}, {', '.join(parts)}."
        )

    def read_action(self, text: str) -> Action | None:
        """The action, None if it is neither notation or if this page does not offer it."""
        match = _ACTION.fullmatch(text.strip())
        if match is None:
            return None
        verb, argument = match["verb"].lower(), match["argument"]
        if verb == "search":
            offered = self.visit.page is Page.SEARCH and clean(argument)
            return Action(verb, argument) if offered else None
        label = self.visit.find_button(argument)
        return None if label is None else Action(verb, label)

    def shorthand(self, text: str) -> str:
        """Bare words: a button of this page, or what to search for."""
        if _ACTION.fullmatch(text.strip()):
            return text
        return f"search[{text}]" if self.visit.page is Page.SEARCH else f"click[{text}]"

    def play(self, action: Action) -> tuple[float, bool]:
        """Search or click; a purchase is scored and ends the game."""
        if action.verb == "search":
            self.visit.search(action.argument)
        else:
            self.visit.click(action.argument)
        if not self.visit.bought:
            return 0.0, False
        self.score = score(
            self.visit.product, self.visit.chosen, self.goal, self.wanted, option_match=self._option_match
        )
        self.success = self.score.total == 1
        return self.score.total if self._reward == "dense" else float(self.success), True

    def figures(self) -> dict[str, float]:
        """The score of the purchase, 0 without one, and whether there was one."""
        return {
            "score": self.score.total if self.score else 0.0,
            "purchase": float(self.score is not None),
        }

    def expert_actions(self) -> list[str]:
        """What one who knows the wanted product does from here."""
        return [] if self.visit.bought else plan(self.visit, self.goal, self._products, self._shop.engine)

    def random_action(self, rng: np.random.Generator) -> str:
        """A random button; on the search page some words of the request, in random order."""
        if self.visit.page is Page.SEARCH:
            words = sorted(content_words(self.goal.text))
            count = int(rng.integers(1, len(words) + 1)) if words else 0
            return f"search[{' '.join(rng.permutation(words)[:count]) or 'anything'}]"
        buttons = self.visit.buttons()
        return f"click[{buttons[rng.integers(len(buttons))]}]"

    def remarks(self, rng: np.random.Generator) -> list[str]:
        """What the request asks for, where the visitor is, what is chosen and what is still to do."""
        return remarks(self.visit, self.goal, rng)


def _require(**settings: tuple[str, Any]) -> None:
    """Refuse a value that its `Literal` does not list: a misspelt one would pass for the other."""
    for name, (value, kind) in settings.items():
        if value not in get_args(kind):
            raise ValueError(f"{name} must be {' or '.join(get_args(kind))}, got {value!r}")
