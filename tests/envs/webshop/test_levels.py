"""What WebShop's levels promise.

1. A level depends on its seed alone, in every process; the members of a group share it.
2. Training and evaluation share no product, or, in the published split, no goal.
"""

import re
import time

from actfocus.envs.webshop.environment import WebShop
from actfocus.envs.webshop.shop import open_shop
from tests.envs.processes import printed_in_every_process
from tests.envs.webshop.hand_made import reply

SIDES = {
    "evaluation": [*range(300), *range(999_900, 10**6)],
    "training": [*range(10**6, 10**6 + 800), *range(2**62, 2**62 + 100)],
}


def goals_of(env, seeds):
    for seed in seeds:
        env.reset(seed=seed)
        yield env.goal


def test_a_level_depends_on_its_seed_alone(shipped):
    env, seeds = WebShop(shop=shipped), [*range(20), *range(10**6, 10**6 + 20)]
    goals = list(goals_of(env, seeds))
    assert len({goal.text for goal in goals}) > 30
    other = WebShop(shop=shipped, turns=3, reward="dense", option_match="equal")
    for seed, goal in reversed(list(zip(seeds, goals, strict=True))):
        observation, _ = other.reset(seed=seed, options={"chance_seed": 7})
        other.step(reply(other.expert_actions()[0]))
        assert other.goal == goal
        assert f"\nRequest: {goal.text}\nThis is the search page.\n" in observation
    drawn = [other.reset()[0] for _ in range(5)]  # without a seed the stream goes on
    assert len(set(drawn)) > 1


def test_members_of_a_group_share_the_goal(shipped):
    env = WebShop(shop=shipped)
    for seed in range(10**6, 10**6 + 10):
        texts = {env.reset(seed=seed, options={"chance_seed": member})[0] for member in range(4)}
        assert len(texts) == 1


def test_levels_are_the_same_in_every_process(cache):
    script = (
        "from actfocus.envs import make_env; import numpy as np\n"
        "env, rng = make_env('webshop'), np.random.default_rng(0)\n"
        "for seed in [*range(15), *range(10**6, 10**6 + 15)]:\n"
        "    print(env.reset(seed=seed)[0], env.expert_actions(), env.random_action(rng), env.remarks(rng))\n"
        "    print(env.step(f'<think></think><answer>{env.expert_actions()[0]}</answer>')[0])\n"
    )
    output = printed_in_every_process(script)
    requests = re.findall(r"^Request: (.*)\nThis is", output, re.MULTILINE)
    env = WebShop(shop=open_shop("shipped"))
    assert requests == [goal.text for goal in goals_of(env, [*range(15), *range(10**6, 10**6 + 15)])]


def test_evaluation_and_training_share_no_product(shipped):
    env = WebShop(shop=shipped)
    owners = {name: {shipped.goals[k].product for k in getattr(shipped, name).goals()} for name in SIDES}
    assert owners["evaluation"].isdisjoint(owners["training"])
    assert owners["evaluation"] | owners["training"] == set(range(len(shipped.catalogue.products)))
    drawn = {name: {goal.product for goal in goals_of(env, seeds)} for name, seeds in SIDES.items()}
    for name, products in drawn.items():
        assert products <= owners[name]
        assert len(products) > 0.6 * len(owners[name])


def test_a_reset_without_a_seed_trains(shipped):
    env = WebShop(shop=shipped)
    allowed = {shipped.goals[k].product for k in shipped.training.goals()}
    env.reset(seed=0)
    for _ in range(50):
        env.reset()
        assert env.goal.product in allowed


def test_a_reset_without_a_seed_is_no_slower(shipped):
    env = WebShop(shop=shipped)

    def seconds(seeds):
        start = time.process_time()
        for seed in seeds:
            env.reset(seed=seed)
        return time.process_time() - start

    seconds([0])
    assert seconds([None] * 40) < 10 * seconds(range(40))


def test_the_published_split_is_by_goal():
    shop = open_shop("shipped", split="goal")
    env = WebShop(shop=shop)
    sides = {name: {goal.text for goal in goals_of(env, seeds[:200])} for name, seeds in SIDES.items()}
    assert sides["evaluation"] <= {shop.goals[k].text for k in shop.evaluation.goals()}
    assert sides["training"] <= {shop.goals[k].text for k in shop.training.goals()}
    assert set(shop.evaluation.goals()).isdisjoint(shop.training.goals())
    products = [{shop.goals[k].product for k in pool.goals()} for pool in (shop.evaluation, shop.training)]
    assert products[0] & products[1]
