"""Stands in for a run's process: the real `actfocus.compare.child`, but what trains only writes the figures.

    python stand_in.py train --config FILE --out RUN
    python stand_in.py train --resume RUN

Each step takes STAND_IN_PACE seconds; STAND_IN_FAILS is a part of the names of runs that break.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import actfocus.cli
from actfocus.compare import child
from actfocus.config import load_config
from actfocus.run_directory import RunDirectory


def train(args):
    path = Path(args[-1])
    run = (
        RunDirectory.open(path)
        if "--resume" in args
        else RunDirectory.create(path, load_config(Path(args[2])))
    )
    config = run.config()
    print(f"{os.getpid()} {' '.join(args)} threads {os.environ['OMP_NUM_THREADS']}", flush=True)
    with run.locked():
        done = len(run.lines())
        for step in range(done, config.steps + 1):
            if step:
                time.sleep(float(os.environ.get("STAND_IN_PACE", "0")))
            success = min(1.0, (1 + step + config.seed + config.focus.beta) / 16)
            found = {"success": success, "low": 0, "high": 1, "return": 0.0, "episodes": 8}
            run.append("metrics.jsonl", {"step": step, "evaluation": found})
            seconds = {"step": 2.0, "evaluation": 0.5} if step else {}
            run.append("timing.jsonl", {"step": step, "seconds": seconds, "peak_memory_bytes": 2.0**28})
            fails = os.environ.get("STAND_IN_FAILS")
            if step and fails and fails in path.name:
                print("actfocus: step 1 stopped before the update: the loss is not finite", file=sys.stderr)
                return 2
        (run.path / "environment.json").write_text(json.dumps({"torch": "0"}))
        (run.checkpoints / f"step_{config.steps}").mkdir()
    return 0


if __name__ == "__main__":
    actfocus.cli.main = train
    sys.exit(child.main())
