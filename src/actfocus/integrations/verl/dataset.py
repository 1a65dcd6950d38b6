"""Levels of an environment as the parquet files that verl reads.

    python -m actfocus.integrations.verl.dataset --env frozen-lake --train 4096 --test 32 --out data

Imports no verl.
"""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from actfocus.config import known_env
from actfocus.errors import ConfigError
from actfocus.integrations.levels import level_seeds
from actfocus.run_directory import write_whole


def rows(env: str, split: str, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of one file; the loop makes the prompt, so the message only says which level it is.

    Args:
        env: The name of the agent loop, which for ours is that of the environment.
        split: `train`, or `test` for the fixed levels of evaluation, which training never draws.
        count: How many.
        seed: Of the training levels.

    Raises:
        ConfigError: If there is no such split, or it has not so many levels.
    """
    if split not in ("train", "test"):
        raise ConfigError(f"the split is train or test, not {split!r}")
    levels = level_seeds(count, seed=seed, split="train" if split == "train" else "evaluation")
    return [
        {
            "data_source": f"actfocus/{env}",
            "agent_name": env,
            "prompt": [{"role": "user", "content": f"{env} level {level}"}],
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": index, "level": level, "split": split},
        }
        for index, level in enumerate(levels)
    ]


def main(arguments: list[str] | None = None) -> None:
    """Write `train.parquet` and `test.parquet`."""
    parser = argparse.ArgumentParser(description="Write an environment's levels as verl's data sets.")
    parser.add_argument("--env", required=True, help="name of the environment")
    parser.add_argument("--train", type=int, default=4096, help="training levels (default: 4096)")
    parser.add_argument("--test", type=int, default=32, help="levels of evaluation (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="of the training levels (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    given = parser.parse_args(arguments)
    try:
        known_env(given.env)
        tables = {
            split: rows(given.env, split, getattr(given, split), seed=given.seed)
            for split in ("train", "test")
        }
    except (ConfigError, ValueError) as error:
        print(f"actfocus: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    import pyarrow as pa
    import pyarrow.parquet as pq

    given.out.mkdir(parents=True, exist_ok=True)
    # Whoever finds train.parquet takes the set as whole: it comes last, and each file whole or not at all.
    for split in ("test", "train"):
        drawn = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(tables[split]), drawn)
        write_whole(given.out / f"{split}.parquet", drawn.getvalue())
        print(f"{given.out / split}.parquet: {len(tables[split])} levels")


if __name__ == "__main__":
    main()
