"""Random streams, promises:

1. Training and demonstrations never use a level that evaluation draws from.
2. Two streams with another purpose or another index are different streams.
3. The members of a group share the level and nothing else.
4. A change of how seeds are derived is noticed: every run would change with it.
"""

from itertools import product

import numpy as np

from actfocus.config import EnvConfig, WarmstartConfig
from actfocus.envs import EVALUATION_SEEDS
from actfocus.rollout.seeds import Stream, derive_seed, evaluation_starts, training_starts
from actfocus.training import demonstrations


def test_training_and_evaluation_levels_never_meet():
    trained = {
        start.level_seed
        for seed, step in product(range(20), range(40))
        for start in training_starts(seed, step, 8, 1)
    }
    assert len(trained) == 20 * 40 * 8
    assert min(trained) >= EVALUATION_SEEDS.stop and max(trained) < 2**63
    evaluated = {start.level_seed for start in evaluation_starts(64, 2)}
    assert evaluated == set(range(64)) <= set(EVALUATION_SEEDS)


def test_a_seed_that_would_fall_among_those_of_evaluation_is_moved(monkeypatch):
    class Small:
        def __init__(self, key):
            pass

        def generate_state(self, words, dtype):
            return np.array([2 * 17], dtype=dtype)

    monkeypatch.setattr(np.random, "SeedSequence", Small)
    assert derive_seed(Stream.LEVEL, 0) not in EVALUATION_SEEDS


def test_demonstrations_use_no_level_of_evaluation_or_training(monkeypatch):
    used = []

    def spy(stream, *key):
        seed = derive_seed(stream, *key)
        if stream == Stream.LEVEL:
            used.append(seed)
        return seed

    monkeypatch.setattr(demonstrations, "derive_seed", spy)
    config = WarmstartConfig(env=EnvConfig(name="frozen-lake", turns=1))
    for episode in range(30):
        demonstrations.demonstration_texts(config, episode)
    trained = {start.level_seed for step in range(30) for start in training_starts(0, step, 8, 1)}
    assert len(set(used)) == 30
    assert not set(used) & trained
    assert min(used) >= EVALUATION_SEEDS.stop


def test_streams_differ_by_purpose_and_index():
    keys = [key for length in range(6) for key in product(range(3), repeat=length)]
    found = {derive_seed(stream, *key) for stream in Stream for key in keys}
    assert len(found) == len(Stream) * len(keys)


def test_zeros_behind_a_key_make_another_key():
    assert len({derive_seed(Stream.LEVEL, 5, *[0] * n) for n in range(6)}) == 6


def test_members_share_the_level_and_nothing_else():
    for starts in (training_starts(0, 7, 4, 6), evaluation_starts(4, 6)):
        assert [(s.group, s.member) for s in starts] == list(product(range(4), range(6)))
        for g in range(4):
            members = [start for start in starts if start.group == g]
            assert len({s.level_seed for s in members}) == 1
            assert len({s.chance_seed for s in members}) == 6
            assert len({s.sampling_seed for s in members}) == 6
        assert len({s.level_seed for s in starts}) == 4
        lucks = [seed for s in starts for seed in (s.chance_seed, s.sampling_seed)]
        assert len(set(lucks)) == len(lucks) == 48
        assert not set(lucks) & {s.level_seed for s in starts}


def test_steps_and_seeds_share_nothing():
    one, step, seed = (training_starts(*key, 2, 3) for key in [(0, 0), (0, 1), (1, 0)])

    def numbers(starts):
        return {number for start in starts for number in start[2:]}

    assert not numbers(one) & numbers(step)
    assert not numbers(one) & numbers(seed)
    assert not numbers(step) & numbers(seed)


def test_fewer_prompts_or_members_are_a_part_of_more():
    many = training_starts(0, 3, 4, 4)
    assert training_starts(0, 3, 2, 3) == [s for s in many if s.group < 2 and s.member < 3]


def test_the_derivation_is_pinned():
    assert training_starts(0, 0, 1, 1)[0] == (
        0,
        0,
        1001541652813893466,
        8324794578014416633,
        1913768486114811910,
    )
    assert evaluation_starts(1, 1)[0] == (0, 0, 0, 7764949442709860949, 7876069639622465518)
    assert derive_seed(Stream.DEMONSTRATIONS, 0, 0) == 3573793905636505783
    assert derive_seed(Stream.MINI_BATCHES, 3, 5) == 4654372145073036291
