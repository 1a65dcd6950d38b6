"""What the expert promises.

1. It buys right for every goal, of which evaluation draws, within the turns of an episode.
2. It does so from wherever a visitor may stand, unless something was bought.
3. It holds out in shops that are hard on it: options that share a value, titles longer than a query.

What it says is tested in `test_remarks.py`.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.envs.webshop.environment import WebShop
from actfocus.envs.webshop.shop import open_shop
from actfocus.envs.webshop.visit import Page
from tests.envs.webshop.hand_made import mugs, product, reply, shop_of


def follow(env):
    """Play the expert's first plan to its end, then plan anew each turn if that was not enough."""
    turns, over = 0, False
    plan = env.expert_actions()
    while not over:
        action = plan.pop(0) if plan else env.expert_actions()[0]
        _, reward, terminated, truncated, info = env.step(reply(action))
        assert info["problem"] is None, (action, info)
        turns, over = turns + 1, terminated or truncated
    return info["success"], reward, turns


def replan(env):
    """Plan anew each turn, as demonstrations do."""
    over = False
    while not over:
        _, reward, terminated, truncated, info = env.step(reply(env.expert_actions()[0]))
        assert info["problem"] is None
        over = terminated or truncated
    return info["success"], reward


# 1. Every goal. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("match", ["fuzzy", "equal"])
def test_it_succeeds_on_evaluation_goals_within_the_budget(shipped, match):
    env = WebShop(shop=shipped, option_match=match)
    for seed in range(350):
        env.reset(seed=seed)
        planned = len(env.expert_actions())
        assert follow(env) == (True, 1.0, planned), env.goal
        assert planned == 3 + len(env.goal.options)  # search, open, choose, buy: nothing is wasted


def test_it_succeeds_on_every_goal_of_the_shipped_shop(shipped):
    env = WebShop(shop=shipped)
    for goal in shipped.goals:
        env.reset(seed=0)
        env.enter(goal)
        assert replan(env) == (True, 1.0), goal


def test_it_succeeds_on_the_thousand_products(real):
    env = WebShop(shop=real)
    goals = [real.goals[k] for k in range(0, len(real.goals), 7)]
    firsts = [real.goals[real.goals.of_owner(owner)[0]] for owner in range(len(real.goals.owners))]
    for goal in [*goals, *firsts]:  # every product, and a seventh of the goals
        env.reset(seed=0)
        env.enter(goal)
        assert follow(env)[:2] == (True, 1.0), goal


def test_it_searches_with_words_that_the_request_names(shipped):
    for goal in shipped.goals:
        env = WebShop(shop=shipped)
        env.enter(goal)
        query = env.expert_actions()[0].removeprefix("search[").removesuffix("]")
        assert set(query.split()) <= set(goal.text.replace(",", " ").split()), goal


# 2. From anywhere. -------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 25))
def test_it_succeeds_from_any_state_with_enough_turns(seed, steps):
    env = WebShop(shop=open_shop("shipped"), turns=60, actions_per_episode=60)
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        action = env.random_action(rng)
        if action == "click[buy now]" and rng.random() < 0.9:
            continue
        _, _, terminated, _, info = env.step(reply(action))
        assert info["problem"] is None
        if terminated:
            assert env.expert_actions() == []
            return
    planned = len(env.expert_actions())
    assert planned <= 14
    assert follow(env) == (True, 1.0, planned)


AWAY = {
    "search": ["search[red mug]", "click[back to search]"],
    "results without it": ["search[kettle]"],
    "results with it": ["search[mug]"],
    "a later page": ["search[mug]", "click[next >]", "click[next >]"],
    "other product": ["search[mug]", "click[m1]"],
    "other product, found without it": ["search[kettle]", "click[k1]"],
    "details of another": ["search[mug]", "click[m1]", "click[features]"],
    "its page": ["search[mug]", "click[b1]"],
    "its details": ["search[mug]", "click[b1]", "click[reviews]"],
    "half chosen": ["search[mug]", "click[b1]", "click[red]"],
    "wrongly chosen": ["search[mug]", "click[b1]", "click[teal]", "click[small]"],
    "rightly chosen": ["search[mug]", "click[b1]", "click[red]", "click[large]"],
    "other product after its choices": [
        "search[mug]",
        "click[b1]",
        "click[red]",
        "click[< prev]",
        "click[m1]",
    ],
}
STEPS = {
    "search": 5, "results without it": 6, "results with it": 4, "a later page": 6, "other product": 5,
    "other product, found without it": 6, "details of another": 6, "its page": 3, "its details": 4,
    "half chosen": 2, "wrongly chosen": 3, "rightly chosen": 1, "other product after its choices": 5,
}  # fmt: skip


@pytest.mark.parametrize("where", list(AWAY))
def test_its_way_from_each_kind_of_page(where):
    wanted = product(
        "b1", "Matte Mug mug", options={"Color": ["red", "teal"], "Size": ["small", "large"]}, pricing="$9.00"
    )
    shop = shop_of(wanted, *mugs(30), product("k1", "Kettle", query="kettles"))
    env = WebShop(shop=shop, turns=30, actions_per_episode=30)
    env.reset(seed=0)
    (goal,) = [goal for goal in shop.goals if goal.options == {"color": "red", "size": "large"}]
    env.enter(goal)
    for action in AWAY[where]:
        assert env.step(reply(action))[-1]["problem"] is None
    assert follow(env) == (True, 1.0, STEPS[where])


# 3. Hard shops. ----------------------------------------------------------------------------------------


def all_goals_succeed(shop, **settings_):
    for goal in shop.goals:
        for way in (follow, replan):
            env = WebShop(shop=shop, turns=40, actions_per_episode=40, option_match="equal", **settings_)
            env.reset(seed=0)
            env.enter(goal)
            assert way(env)[0], goal


def test_options_that_share_values():
    """A button stands for a value of several options: the first one that lacks it takes it."""
    shared = {"Inner": ["8", "9", "red"], "Outer": ["9", "8"], "Lid": ["8", "9", "none"]}
    all_goals_succeed(shop_of(product(options=shared)))


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from("wxyz"), min_size=1, max_size=3)),
    st.data(),
)
def test_options_that_share_values_from_any_choices(options, data):
    shop = shop_of(product(options=options))
    goal = shop.goals[data.draw(st.integers(0, len(shop.goals) - 1))]
    env = WebShop(shop=shop, turns=60, actions_per_episode=60, option_match="equal")
    env.reset(seed=0)
    env.enter(goal)
    clicks = data.draw(
        st.lists(st.sampled_from([v for vs in options.values() for v in vs] or ["reviews"]), max_size=9)
    )
    for action in [
        "search[mug]",
        "click[b1]",
        *(f"click[{value}]" for value in clicks[: 9 if options else 1]),
    ]:
        env.step(reply(action))
    assert follow(env)[0]


def test_titles_longer_than_a_query():
    """What the visit searches for, not what was meant, decides which page lists the product."""
    filler = " ".join(f"word{k}" for k in range(40))  # more than a query holds
    many = [product(f"m{k}", f"{filler} mug tail{k}", wanted=["matte"]) for k in range(60)]
    shop = shop_of(*many)
    env = WebShop(shop=shop, turns=40, actions_per_episode=40)
    for index in (0, 5, 25, 45):
        env.reset(seed=0)
        env.enter(shop.goals[index])
        query = env.expert_actions()[0]
        assert len(query) <= len("search[]") + 200
        assert follow(env)[:2] == (True, 1.0)


def test_a_giant_title():
    shop = shop_of(product("b1", "mug " + "long " * 20_000, attributes=["odd"], wanted=["odd"]))
    env = WebShop(shop=shop)
    env.reset(seed=0)
    assert all(action in env.action_space for action in map(reply, env.expert_actions()))
    assert follow(env)[0]


@pytest.mark.parametrize("others", [[], mugs(3)], ids=["no", "few"])
def test_words_that_find_other_products_alone_are_not_searched_for(others):
    shop = shop_of(product("b1", "Teapot", attributes=["matte"], wanted=["matte"]), *others)
    env = WebShop(shop=shop)
    env.reset(seed=0)
    env.enter(shop.goals[0])
    assert env.expert_actions()[0] == "search[Teapot]"
    assert follow(env)[0]


def test_a_product_deep_in_the_results_is_paged_to():
    twins = [product(f"m{k}", "Matte Mug") for k in range(48)]
    shop = shop_of(*twins)
    for index in (0, 9, 10, 37, 47):
        env = WebShop(shop=shop, turns=20, actions_per_episode=20)
        env.reset(seed=0)
        env.enter(shop.goals[index])
        assert follow(env) == (True, 1.0, 3 + index // 10)


def test_values_without_names_are_found_among_the_options():
    human = [
        {
            "instruction": "a matte mug",
            "instruction_attributes": ["matte"],
            "instruction_options": ["Navy Blue", "x-large", "none such"],
        }
    ]
    options = {"Color": ["red", "blue", "navy blue"], "Size": ["large", "x-large"]}
    env = WebShop(shop=shop_of(product(options=options, human=human), kind="human"))
    env.reset(seed=0)
    clicks = [action for action in env.expert_actions() if "blue" in action or "large" in action]
    assert clicks == ["click[navy blue]", "click[x-large]"]
    success, _, _ = follow(env)
    assert not success and env.figures() == {"score": pytest.approx(4 / 5), "purchase": 1.0}


def test_random_actions_are_legal_and_reach_every_page(shipped):
    rng, seen = np.random.default_rng(0), set()
    for seed in range(40):
        env = WebShop(shop=shipped)
        env.reset(seed=seed)
        over = False
        while not over:
            action = env.random_action(rng)
            seen.add((env.visit.page, action if env.visit.page is not Page.SEARCH else ""))
            _, _, terminated, truncated, info = env.step(reply(action))
            assert info["problem"] is None
            over = terminated or truncated
    assert {page for page, _ in seen} == set(Page)
    assert {"click[buy now]", "click[< prev]"} <= {action for page, action in seen if page is Page.PRODUCT}
