"""Every random stream of a run, derived from its seed and from what it is for.

Nothing random has a state that would have to be saved: step n of a resumed run derives the same streams as
step n of an uninterrupted one, on any number of processes.
"""

from enum import IntEnum

import numpy as np

from actfocus.envs import EVALUATION_SEEDS
from actfocus.rollout.trajectory import Start


class Stream(IntEnum):
    """What a stream of random numbers is for."""

    LEVEL = 0
    CHANCE = 1
    SAMPLING = 2
    MINI_BATCHES = 3
    DEMONSTRATIONS = 4


def derive_seed(stream: Stream, *key: int) -> int:
    """A 63-bit seed that depends on `stream` and `key` alone, never one that evaluation uses."""
    # With its length, because a SeedSequence does not tell a key from the same key with zeros behind it.
    state = np.random.SeedSequence([int(stream), len(key), *key]).generate_state(1, np.uint64)[0]
    return max(int(state >> np.uint64(1)), EVALUATION_SEEDS.stop)


def training_starts(seed: int, step: int, prompts: int, group: int) -> list[Start]:
    """The starts of one training step, group by group."""
    return [
        Start(
            group=g,
            member=m,
            level_seed=derive_seed(Stream.LEVEL, seed, step, g),
            chance_seed=derive_seed(Stream.CHANCE, seed, step, g, m),
            sampling_seed=derive_seed(Stream.SAMPLING, seed, step, g, m),
        )
        for g in range(prompts)
        for m in range(group)
    ]


def evaluation_starts(states: int, samples: int) -> list[Start]:
    """The starts of every evaluation of every run: what is compared differs in nothing but the policy."""
    return [
        Start(
            group=s,
            member=m,
            level_seed=EVALUATION_SEEDS[s],
            chance_seed=derive_seed(Stream.CHANCE, s, m),
            sampling_seed=derive_seed(Stream.SAMPLING, s, m),
        )
        for s in range(states)
        for m in range(samples)
    ]
