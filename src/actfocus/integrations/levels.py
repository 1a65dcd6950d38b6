"""The levels of a data set: those of training, or those that every evaluation plays."""

from typing import Literal, get_args

from actfocus.envs import EVALUATION_SEEDS
from actfocus.errors import ConfigError
from actfocus.rollout.seeds import Stream, derive_seed

Split = Literal["train", "evaluation"]


def level_seeds(rows: int, *, seed: int, split: Split) -> list[int]:
    """Seeds of `rows` levels; none is in both splits, and those of evaluation do not depend on `seed`.

    Raises:
        ConfigError: If there is no such split, or it cannot have so many levels.
    """
    if rows < 1:
        raise ConfigError(f"a data set needs at least one level, not {rows}")
    if split not in get_args(Split):
        raise ConfigError(f"split is 'train' or 'evaluation', not {split!r}")
    if split == "evaluation":
        if rows > len(EVALUATION_SEEDS):
            raise ConfigError(f"there are {len(EVALUATION_SEEDS)} evaluation levels, not {rows}")
        return list(EVALUATION_SEEDS[:rows])
    return [derive_seed(Stream.LEVEL, seed, row) for row in range(rows)]
