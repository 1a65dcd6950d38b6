"""What the expert's sentences promise: they are true, as a second reader of the page finds.

1. Each is true of the page, on random walks; the reader below knows nothing but what is on the pages.
2. Wordings vary, and the random stream alone decides which come in which order.
3. The reader notices sentences that are false.
"""

import re

import numpy as np
import pytest

from actfocus.envs.webshop.environment import WebShop
from actfocus.envs.webshop.visit import Page
from tests.envs.webshop.hand_made import mugs, play, product, reply, shop_of


class Reader:
    """What the pages of one episode said, the present one in detail."""

    chosen: dict

    def __init__(self):
        self.chosen, self.options = {}, []

    def read(self, observation):
        self.request = re.search(r"^Request: (.*)$", observation, re.MULTILINE)[1]
        body = observation.split("\nRequest: ")[1]
        self.searching = "\nThis is the search page.\n" in body
        self.titles = dict(re.findall(r"^\[(\w+)\] (.*), \$[\d.]+(?: to \$[\d.]+)?$", body, re.MULTILINE))
        found = re.search(r"^(\d+) found for ", body, re.MULTILINE)
        nothing = "\nNothing was found for " in body
        self.count = int(found[1]) if found else 0 if nothing else None
        named = re.search(r"^(?:(?:Description|Features|Rating) of )?(\w+):\s", body.partition("\n")[2])
        self.product = named[1] if named and self.count is None and not self.searching else None
        self.on_product_page = "[buy now]" in body
        if self.on_product_page:
            head = body.partition("\nPrice: ")[2].partition("\nButtons: ")[0].split("\n")[1:]
            self.options = [line.partition(": ")[0] for line in head if not line.startswith("Chosen: ")]
            shown = next((line[8:] for line in head if line.startswith("Chosen: ")), "nothing")
            self.chosen = {} if shown == "nothing" else dict(part.split(": ") for part in shown.split(", "))

    def wishes(self):
        """Attributes are not told from other words by reading; options and the limit are."""
        pairs = self.request.partition(", and price lower than ")[0]
        return dict(re.findall(r"(?: with |, and )([a-z]+): ((?:(?!, and ).)+)", pairs))

    def named(self, text):
        return text in [f"{name} {value}" for name, value in self.wishes().items()]

    def all_in_request(self, text):
        return all(part in self.request.lower() for part in text.split(", "))

    def limit(self, text):
        return self.request.endswith(f", and price lower than {text}.00 dollars")

    def done(self):
        return all(self.chosen.get(name) == value for name, value in self.wishes().items())

    def says(self, product, words):
        return words in self.titles[product].lower()

    def lacks(self, name):
        return self.product is not None and name in self.options and name not in self.chosen


def first(reader):
    return next(iter(reader.titles))


KINDS = {
    r"(?:I look for|The request asks for|It must be) (.+)": Reader.all_in_request,
    r"(?:I want|The request names|It should have) (.+)": Reader.named,
    r"It may cost up to (\d+) dollars": Reader.limit,
    r"The price limit is (\d+) dollars": Reader.limit,
    r"The first product is \[(\w+)\]": lambda reader, name: name == first(reader),
    r"\[(\w+)\] is listed first": lambda reader, name: name == first(reader),
    r"(?:I have to search first|Nothing is searched yet)": lambda reader: reader.searching,
    r"The search found (\d+)": lambda reader, count: int(count) == reader.count,
    r"There are (\d+) results": lambda reader, count: int(count) == reader.count,
    r"(?:I have to open a product|One of these may be right)": lambda reader: len(reader.titles) > 0,
    r"(?:I look at|This is) \[(\w+)\]": lambda reader, name: name == reader.product,
    r"(\w+) is not chosen yet": Reader.lacks,
    r"No (\w+) is chosen": Reader.lacks,
    r"I chose (\w+) (.+)": lambda reader, name, value: reader.chosen.get(name) == value,
    r"(\w+) is (.+) now": lambda reader, name, value: reader.chosen.get(name) == value,
    r"(?:All that was asked for is chosen|Nothing is left to choose)": Reader.done,
    r"(?:Something is left to choose|I have to choose more)": lambda reader: not reader.done(),
    r"\[(\w+)\] does not say (.+)": lambda reader, name, words: not reader.says(name, words),
    r"The title of \[(\w+)\] leaves out (.+)": lambda reader, name, words: not reader.says(name, words),
    r"\[(\w+)\] (?:is|has) (.+)": Reader.says,
}
"""Wording → whether it is true; of wordings that overlap the first one counts."""


def judge(reader, sentence):
    """The wording of a sentence, and whether it is true."""
    for wording, is_true in KINDS.items():
        match = re.fullmatch(wording + r"\.", sentence)
        if match:
            return wording, bool(is_true(reader, *match.groups()))
    raise AssertionError(f"no known wording: {sentence}")


def walk(shop, seed, expert_share):
    """(environment, reader, generator) at each state of an episode."""
    rng = np.random.default_rng(seed)
    env, reader = WebShop(shop=shop, turns=14, actions_per_episode=14), Reader()
    observation, _ = env.reset(seed=seed)
    over = False
    while not over:
        reader.read(observation)
        yield env, reader, rng
        action = env.expert_actions()[0] if rng.random() < expert_share else env.random_action(rng)
        observation, _, terminated, truncated, _ = env.step(reply(action))
        over = terminated or truncated


def test_every_sentence_is_true_on_random_walks(shipped):
    seen, pages = set(), set()
    for seed in range(150):
        for env, reader, rng in walk(shipped, 10**6 + seed, expert_share=(seed % 3) / 3):
            pages.add(env.visit.page)
            for sentence in env.remarks(rng):
                wording, true = judge(reader, sentence)
                assert true, (sentence, env.picture())
                seen.add(wording)
    assert seen == set(KINDS) and pages == set(Page)


def test_every_wish_is_among_them_on_every_page(shipped):
    for seed in range(20):
        for env, reader, rng in walk(shipped, seed, expert_share=0.7):
            text = " ".join(env.remarks(rng))
            assert all(attribute in text for attribute in env.goal.attributes)
            assert all(f"{name} {value}" in text for name, value in reader.wishes().items())
            assert f"{env.goal.limit:.0f} dollars" in text
            assert reader.wishes() == env.goal.options


def test_on_the_thousand_products_they_are_true_of_titles_and_choices(real):
    """Titles are cut on the page there: the sentences are held against the catalogue."""
    titles = {each.id: each.title.lower() for each in real.catalogue.products}
    said = 0
    for seed in range(60):
        for env, _, rng in walk(real, 10**6 + seed, expert_share=0.4):
            for sentence in env.remarks(rng):
                wording = r"\[(\w+)\] has (.+)\.|The title of \[(\w+)\] leaves out (.+)\."
                match = re.fullmatch(wording, sentence)
                if match:
                    has, words, lacks, missing = match.groups()
                    assert words in titles[has] if has else missing not in titles[lacks]
                    said += 1
                chosen = re.fullmatch(r"I chose (.+)\.", sentence)
                if chosen:
                    assert chosen[1] in [f"{name} {value}" for name, value in env.visit.chosen.items()]
    assert said > 100


def test_a_search_that_found_nothing_praises_no_result():
    env = WebShop(shop=shop_of(*mugs(3)))
    env.reset(seed=0)
    play(env, ["search[teapot]"])
    sentences = {sentence for k in range(30) for sentence in env.remarks(np.random.default_rng(k))}
    assert {"The search found 0.", "There are 0 results."} <= sentences
    assert sentences.isdisjoint({"I have to open a product.", "One of these may be right."})


def test_peoples_goals_have_true_sentences_too():
    human = [
        {
            "instruction": "a mug, please",
            "instruction_attributes": ["matte"],
            "instruction_options": ["red", "large"],
        }
    ]
    shop = shop_of(product(options={"Color": ["red"]}, human=human, pricing="$2000"), kind="human")
    env = WebShop(shop=shop)
    env.reset(seed=0)
    play(env, ["search[mug]", "click[b1]"])
    sentences = {sentence for k in range(40) for sentence in env.remarks(np.random.default_rng(k))}
    assert {"I want red.", "It should have large.", "It must be matte.", "No color is chosen."} <= sentences
    assert not any("dollars" in sentence or "left to choose" in sentence for sentence in sentences)


def test_the_stream_decides_order_and_wording(shipped):
    for env, _, _ in walk(shipped, 3, expert_share=1.0):
        again = [env.remarks(np.random.default_rng(5)) for _ in range(2)]
        assert again[0] == again[1]
        orders = {tuple(env.remarks(np.random.default_rng(k))) for k in range(20)}
        assert len(orders) > 10
        assert len({len(order) for order in orders}) == 1


@pytest.mark.parametrize(
    "sentence",
    [
        *("The request names size huge.", "The price limit is 41 dollars.", "I look for wooden, matte."),
        *("I have to search first.", "The search found 3.", "This is [m1].", "No size is chosen."),
        *(
            "size is small now.",
            "I chose color teal.",
            "color is not chosen yet.",
            "Something is left to choose.",
        ),
        *("One of these may be right.", "The first product is [b1]."),
    ],
)
def test_a_false_sentence_is_noticed(sentence):
    own = product("b1", "Matte Mug", options={"Color": ["red", "teal"], "Size": ["small", "large"]})
    shop = shop_of(own, *mugs(3))
    env, reader = WebShop(shop=shop), Reader()
    env.reset(seed=0)
    (goal,) = [goal for goal in shop.goals if goal.options == {"color": "red", "size": "large"}]
    env.enter(goal)
    reader.read(play(env, ["search[matte]", "click[b1]", "click[red]", "click[large]"])[0])
    assert judge(reader, "size is large now.")[1] and judge(reader, "Nothing is left to choose.")[1]
    if sentence == "The first product is [b1].":
        reader.read(play(env, ["click[back to search]", "search[mug]"])[0])
        sentence = f"The first product is [{list(reader.titles)[1]}]."
    assert not judge(reader, sentence)[1]
