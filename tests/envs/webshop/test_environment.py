"""What WebShop as an environment promises.

1. A purchase ends the game and pays: 1 if it is right in all points, or the score; nothing else pays.
2. What a page does not offer changes nothing, costs the penalty once, and is named.
3. Settings are checked, and the game is a Gymnasium environment like the others.

`test_levels.py` has what is promised of levels.
"""

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.config import EnvConfig
from actfocus.envs import configured_env, make_env
from actfocus.envs.webshop.environment import Action, WebShop
from actfocus.envs.webshop.shop import open_shop
from actfocus.envs.webshop.visit import Page
from actfocus.errors import ConfigError
from tests.envs.webshop.hand_made import play, product, reply, shop_of

SHOP = shop_of(
    product("b1", "Matte Mug", options={"Size": ["large", "x-large"], "Color": ["red", "teal"]}),
    product("b2", "Glossy Mug", attributes=["glossy"], wanted=["glossy"], instruction="Find me glossy mugs"),
    product("b3", "Kettle", query="kettles", product_category="garden › pots", pricing="$500.00"),
)


def env_for(options, **settings_):
    """At the search page, with the request for the mug that has these options."""
    env = WebShop(shop=SHOP, **settings_)
    env.reset(seed=0)
    (goal,) = [goal for goal in SHOP.goals if goal.product == 0 and goal.options == options]
    env.enter(goal)
    return env


def buying(size="large", color="red"):
    return ["search[matte mug]", "click[b1]", f"click[{size}]", f"click[{color}]", "click[buy now]"]


WANTED = {"color": "red", "size": "x-large"}


def position(env):
    visit = env.visit
    return env.picture(), visit.page, visit.query, visit.window, visit.chosen, env.actions_used, env.score


# 1. Purchases. -----------------------------------------------------------------------------------------

BOUGHT = [
    # Actions, type, share of attributes + options + price, with the published matching and with equality.
    (buying("x-large"), 1, 4 / 4, 4 / 4),
    (buying("large"), 1, 4 / 4, 3 / 4),  # "large" hits "x-large", as published
    (buying("x-large", "teal"), 1, 3 / 4, 3 / 4),
    (["search[mug]", "click[b1]", "click[buy now]"], 1, 2 / 4, 2 / 4),
    (["search[mug]", "click[b2]", "click[buy now]"], 1, 1 / 4, 1 / 4),
    (["search[kettle]", "click[b3]", "click[buy now]"], 0, 1 / 4, 1 / 4),
]


def test_the_rules_say_what_a_purchase_pays():
    only = "Only a purchase that is right in all points pays."
    assert only in env_for(WANTED, reward="strict").system_prompt
    dense = env_for(WANTED, reward="dense").system_prompt
    assert only not in dense and "Any purchase pays by how well it fits" in dense


@pytest.mark.parametrize("reward", ["strict", "dense"])
@pytest.mark.parametrize("match", ["fuzzy", "equal"])
@pytest.mark.parametrize(("actions", "factor", "fuzzy", "equal"), BOUGHT)
def test_purchases_by_hand(actions, factor, fuzzy, equal, match, reward):
    env = env_for(WANTED, option_match=match, reward=reward)
    total = factor * (fuzzy if match == "fuzzy" else equal)
    observation, paid, terminated, truncated, info = play(env, actions)
    assert (terminated, truncated, info["problem"]) == (True, False, None)
    assert info["success"] is (total == 1)
    assert paid == (total if reward == "dense" else float(total == 1))
    assert info["figures"] == {"score": total, "purchase": 1.0}
    assert f"Score {total:.2f}: " in observation and "Bought: " in observation
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(reply("click[buy now]"))


def test_the_receipt_tells_the_parts():
    env = env_for(WANTED)
    observation, *_ = play(env, buying("x-large", "teal"))
    assert "Bought: b1: Matte Mug for $5.00 (size: x-large, color: teal)" in observation
    assert (
        "the kind that was asked for, 1 of 1 attributes, 1 of 2 options, price within the limit."
        in observation
    )
    env = env_for(WANTED)
    observation, *_ = play(env, ["search[kettle]", "click[b3]", "click[buy now]"])
    assert "another kind (factor 0), 1 of 1 attributes, 0 of 2 options, price above the limit." in observation


def test_nothing_but_a_purchase_pays():
    env = env_for(WANTED, reward="dense")
    actions = [
        "search[mug]",
        "click[b1]",
        "click[features]",
        "click[< prev]",
        "click[red]",
        "click[back to search]",
    ]
    for action in actions:
        _, reward, terminated, truncated, info = env.step(reply(action))
        assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
        assert info["figures"] == {"score": 0.0, "purchase": 0.0}


@pytest.mark.parametrize("refused", [False, True])
def test_nine_turns_without_a_purchase_end_the_game(refused):
    env = env_for(WANTED)
    actions = (
        ["search[mug]"] + ["click[nothing]"] * 8 if refused else ["search[mug]", "click[back to search]"] * 5
    )
    for turn, action in enumerate(actions[:9], 1):
        observation, _, terminated, truncated, info = env.step(reply(action))
        assert (terminated, truncated) == (False, turn == 9)
        assert f"Turn {min(turn + 1, 9)} of 9." in observation
        assert f"Actions left: {8 if refused else 9 - turn}." in observation
    assert info["figures"] == {"score": 0.0, "purchase": 0.0}


def test_a_purchase_in_the_last_turn_still_counts():
    env = env_for(WANTED)
    *before, buy = buying("x-large")
    spare = ["click[features]", "click[< prev]", "click[reviews]", "click[< prev]"]
    *_, reward, terminated, truncated, info = play(env, [*before, *spare, buy])
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)


def test_budgets_are_settings():
    env = env_for(WANTED, turns=2, actions_per_turn=4, actions_per_episode=5)
    actions = buying("x-large")
    env.step(reply(*actions[:4], "click[teal]"))  # the fifth is over the limit of a turn
    _, reward, terminated, _, info = env.step(reply(actions[4]))
    assert (reward, terminated, info["played"]) == (1.0, True, ["click[buy now]"])
    env = env_for(WANTED, turns=2, actions_per_turn=4, actions_per_episode=2)
    *_, truncated, info = env.step(reply(*actions))
    assert (truncated, info["played"]) == (True, actions[:2])


# 2. What is not offered. -------------------------------------------------------------------------------

AT = {
    Page.SEARCH: [],
    Page.RESULTS: ["search[mug]"],
    Page.PRODUCT: ["search[mug]", "click[b1]", "click[red]"],
    Page.FEATURES: ["search[mug]", "click[b1]", "click[red]", "click[features]"],
}
REFUSED = [
    *(
        (Page.SEARCH, text)
        for text in ("click[b1]", "click[search]", "click[buy now]", "search[]", "search[ \t]")
    ),
    *(
        (Page.RESULTS, text)
        for text in ("search[mug]", "click[next >]", "click[red]", "click[buy now]", "click[]")
    ),
    *(
        (Page.PRODUCT, text)
        for text in ("search[mug]", "click[b1]", "click[size]", "click[x]", "click[larg]")
    ),
    *((Page.FEATURES, text) for text in ("click[buy now]", "click[red]", "click[features]", "search[mug]")),
    *(
        (Page.PRODUCT, text)
        for text in ("buy now", "click", "click[red", "click red", "[red]", "press[red]", "x")
    ),
    *(
        (Page.PRODUCT, text)
        for text in ("click[red] please", "please click[red]", "clicks[red]", "click[[red]]")
    ),
    (Page.SEARCH, "search[\u200b\u202e]"),
    (Page.SEARCH, "find[mug]"),
]


@pytest.mark.parametrize(("page", "action"), REFUSED)
def test_what_a_page_does_not_offer_changes_nothing_and_is_named(page, action):
    env = env_for(WANTED)
    if AT[page]:
        play(env, AT[page])
    assert env.visit.page is page
    before, turn = position(env), env.turn
    _, reward, terminated, truncated, info = env.step(reply(action))
    assert position(env) == before
    assert (reward, terminated, truncated) == (pytest.approx(-0.1), False, False)
    assert info["problem"] == f"unknown action {action.strip()!r}"
    assert (info["played"], env.turn) == ([], turn + 1)


def test_the_penalty_comes_once_a_turn_and_the_rest_is_played():
    env = env_for(WANTED, actions_per_turn=4)
    _, reward, *_, info = env.step(reply("click[x]", "search[mug]", "search[mug]", "click[b1]"))
    assert reward == pytest.approx(-0.1)
    assert (info["played"], env.visit.page) == (["search[mug]", "click[b1]"], Page.PRODUCT)
    _, reward, terminated, *_ = env.step(reply("click[y]", "click[x-large]", "click[red]", "click[buy now]"))
    assert (reward, terminated) == (pytest.approx(1 - 0.1), True)


@pytest.mark.parametrize("text", ["no tags", "<think>a</think>", "<think>a</think><answer></answer>"])
def test_a_reply_without_an_action_changes_nothing(text):
    env = env_for(WANTED)
    before = position(env)
    _, reward, *_, info = env.step(text)
    assert (position(env), reward, info["played"]) == (before, -0.1, [])
    assert info["problem"]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(AT)), st.one_of(st.text(), st.text().map("click[{}]".format)))
def test_other_text_is_no_action(page, text):
    env = env_for(WANTED)
    if AT[page]:
        play(env, AT[page])
    verb, _, label = text.partition("[")
    offered = verb == "click" and " ".join(label[:-1].casefold().split()) in env.visit.buttons()
    assert (env.read_action(text) is not None) == offered


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("search[Matte Mug]", "Matte Mug"),
        ("SEARCH[Matte Mug]", "Matte Mug"),
        ("Search [matte mug]", "matte mug"),
        (" search\n[matte\nmug] ", "matte mug"),
        ("search[[matte] mug]", "(matte) mug"),
    ],
)
def test_notations_of_a_search(text, query):
    env = env_for(WANTED)
    env.step(reply(text))
    assert (env.visit.page, env.visit.query, env.visit.hits[0]) == (Page.RESULTS, query, 0)


@pytest.mark.parametrize(
    "text", ["click[x-large]", "CLICK[X-Large]", "Click [ x-large ]", "click[x-large\n]"]
)
def test_notations_of_a_click(text):
    env = env_for(WANTED)
    play(env, AT[Page.PRODUCT])
    assert env.read_action(text) == Action("click", "x-large")


def test_bare_words_of_a_person():
    env = env_for(WANTED)
    assert env.shorthand("matte mug") == "search[matte mug]"
    assert env.shorthand("Search [matte mug]") == "Search [matte mug]"
    play(env, ["search[mug]"])
    assert env.shorthand("b1") == "click[b1]"
    assert env.shorthand("click[b1]") == "click[b1]"


# 3. Settings. ------------------------------------------------------------------------------------------


def test_gymnasium_accepts_it(recwarn):
    env = gymnasium.make("actfocus/WebShop-v0", render_mode="ansi").unwrapped
    assert isinstance(env, WebShop)
    check_env(env)
    assert not [str(warning.message) for warning in recwarn]
    observation, info = env.reset(seed=3)
    assert observation in env.observation_space
    assert info == {"success": False, "figures": {"score": 0.0, "purchase": 0.0}}
    assert env.render() == env.picture()


def test_the_defaults_are_the_papers():
    env = make_env("webshop")
    assert (env.turns, env.actions_per_turn, env.actions_per_episode) == (9, 1, 9)
    assert len(env._shop.catalogue.products) >= 300 and len(env._shop.goals) >= 1_000
    assert len(env.rules.split()) <= 110
    assert env.rules in env.system_prompt


def test_settings_arrive_through_the_configuration():
    config = EnvConfig(
        name="webshop",
        turns=12,
        catalogue="shipped",
        goals="synthetic",
        split="goal",
        option_match="equal",
        reward="dense",
    )
    env = configured_env(config)
    assert (env.turns, env._option_match, env._reward) == (12, "equal", "dense")
    assert env._shop is open_shop("shipped", "synthetic", "goal")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("catalogue", "shipped"),
        ("goals", "human"),
        ("split", "goal"),
        ("option_match", "equal"),
        ("reward", "dense"),
    ],
)
@pytest.mark.parametrize("game", ["sudoku", "frozen-lake"])
def test_other_games_refuse_its_settings(game, setting, value):
    with pytest.raises(ValueError, match=f"{setting} belongs to webshop, not to {game}"):
        EnvConfig(name=game, **{setting: value})


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"catalogue": "shiped"}, "no catalogue 'shiped'.*did you mean 'shipped'"),
        ({"catalogue": "../x"}, "cannot name an imported catalogue"),
        ({"goals": "human"}, "the catalogue shipped has no human goals"),
        ({"turns": 0}, "turns must be at least 1"),
        ({"reward": "Dense"}, "reward must be strict or dense, got 'Dense'"),
        ({"option_match": "exact"}, "option_match must be fuzzy or equal, got 'exact'"),
        ({"split": "random"}, "split must be product or goal, got 'random'"),
        ({"goals": "people"}, "goals must be synthetic or human, got 'people'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_settings_are_named(settings_, message):
    with pytest.raises(ConfigError, match=message):
        make_env("webshop", **settings_)


def test_peoples_goals():
    human = [
        {
            "instruction": "i want a matte mug that is red.",
            "instruction_attributes": ["matte"],
            "instruction_options": ["red", "large"],
        }
    ]
    own = product("b1", "Matte Mug", options={"Color": ["red", "teal"], "Size": ["large"]}, human=human)
    env = WebShop(shop=shop_of(own, kind="human"))
    observation, _ = env.reset(seed=0)
    assert "Request: i want a matte mug that is red, and price lower than " in observation
    *_, reward, _, _, info = play(env, buying())
    assert (reward, info["success"]) == (1.0, True)
