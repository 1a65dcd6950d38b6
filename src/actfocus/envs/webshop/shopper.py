"""A scripted shopper who reads what the agent reads and nothing else: the floor that training should beat."""

import re
from dataclasses import dataclass, field

from rapidfuzz import fuzz

from actfocus.envs.webshop.score import content_words
from actfocus.envs.webshop.visit import BACK, BUY, NEXT, PREVIOUS

_LIMIT = re.compile(r",? and price lower than (\d+(?:\.\d+)?) dollars$")
_LISTED = re.compile(r"^\[([^\]]+)\] (.*), \$(\d+(?:\.\d+)?)(?: to \$[\d.]+)?$", re.MULTILINE)
_OPTION_LINE = re.compile(r"^([^\n:]+): ((?:\[[^\]]+\] ?)+)$", re.MULTILINE)
_TURNS = re.compile(r"^Turn (\d{1,9}) of (\d{1,9})\.")


@dataclass
class Wish:
    """A request, taken apart."""

    words: str
    """What to search for."""
    options: dict[str, str] = field(default_factory=dict)
    limit: float = float("inf")

    @classmethod
    def read(cls, request: str) -> "Wish":
        """Take the price limit and the options off the end of a request."""
        limit = _LIMIT.search(request)
        text = request[: limit.start()] if limit else request
        options: dict[str, str] = {}
        for match in re.finditer(" with ", text):  # the first one that is followed by options alone
            pairs = [part.partition(": ") for part in text[match.end() :].split(", and ")]
            if all(value and " with " not in name for name, _, value in pairs):
                text, options = text[: match.start()], {name: value for name, _, value in pairs}
                break
        words = re.sub(r"^find me |\bwith\b|,", " ", text, flags=re.IGNORECASE)
        return cls(" ".join(words.split()), options, float(limit[1]) if limit else float("inf"))


class Shopper:
    """Plays one episode: opens the product whose title fits best, checks what is in doubt, and buys."""

    def __init__(self) -> None:
        self._rejected: set[str] = set()
        self._open = ""
        self._checked = self._poor = False

    def act(self, observation: str) -> str:
        """The action for an observation of the environment."""
        request = re.search(r"^Request: (.*)$", observation, re.MULTILINE)
        wish = Wish.read(request[1] if request else "")
        turn = _TURNS.match(observation)
        left = int(turn[2]) - int(turn[1]) + 1 if turn else 1
        if "\nAction: search[words]" in observation:
            return f"search[{wish.words}]"
        listed = _LISTED.findall(observation)
        if listed or "found for" in observation:
            return self._choose_product(listed, wish, observation)
        if observation.find(f"\nFeatures of {self._open}:") >= 0:
            return self._judge(observation, wish)
        return self._complete(observation, wish, left)

    def _choose_product(self, listed: list[tuple[str, str, str]], wish: Wish, observation: str) -> str:
        wanted = content_words(wish.words)
        best, best_score = "", -1.0
        for product, title, price in listed:
            if product in self._rejected or float(price) > wish.limit:
                continue
            agreement = len(wanted & content_words(title)) / max(1, len(wanted))
            if agreement > best_score:
                best, best_score = product, agreement
        if not best:
            button = NEXT if f"[{NEXT}]" in observation else BACK
            return f"click[{button}]" if listed else f"click[{BACK}]"
        self._open, self._checked, self._poor = best, best_score == 1, False
        return f"click[{best}]"

    def _complete(self, observation: str, wish: Wish, left: int) -> str:
        """On a product's page: look into it if its title leaves doubts, then choose the options, then buy."""
        offers = {
            name: re.findall(r"\[([^\]]+)\]", values) for name, values in _OPTION_LINE.findall(observation)
        }
        offers.pop("Buttons", None)
        chosen_line = re.search(r"^Chosen: (.*)$", observation, re.MULTILINE)
        chosen = chosen_line[1] if chosen_line else ""
        lacks = [name for name, value in wish.options.items() if value not in offers.get(name, [])]
        if (lacks or self._poor) and left > len(wish.options) + 3:
            return self._reject()
        matches = {name: _closest(value, offers.get(name, [])) for name, value in wish.options.items()}
        missing = [v for name, v in matches.items() if v and f", {name}: {v}," not in f", {chosen},"]
        if not self._checked and left > len(missing) + 3:
            return "click[features]"
        return f"click[{missing[0]}]" if missing else f"click[{BUY}]"

    def _judge(self, observation: str, wish: Wish) -> str:
        """On the features page: back to the product, which is given up if too little of the wish is there."""
        self._checked = True
        body = observation.partition("\nFeatures of")[2].lower()
        wanted = content_words(wish.words)
        agreement = len(wanted & content_words(body)) / max(1, len(wanted))
        self._poor = agreement < 0.5
        return f"click[{PREVIOUS}]"

    def _reject(self) -> str:
        self._rejected.add(self._open)
        return f"click[{PREVIOUS}]"


def _closest(value: str, offered: list[str]) -> str:
    """The button for a wanted value: itself, or the one most like it."""
    if value in offered or not offered:
        return value if value in offered else ""
    return max(offered, key=lambda each: fuzz.ratio(each, value))
