"""What ActFocus costs: seconds of a step and peak memory, against Uniform, with and without KL.

    python benchmarks/step_cost.py --rounds 10

Time: one process, the arms in turn step by step, on the same starts; the figure is the median over rounds of
the ratio within a round. Uniform without KL needs no reference pass, so there ActFocus pays for one; with KL
both arms run it. Memory: one process per arm, its largest resident set (on a GPU: its largest allocation).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from actfocus.algorithms import ALGORITHMS
from actfocus.config import Config, load_config
from actfocus.distributed import Processes
from actfocus.models.critic import Critic
from actfocus.models.reference import make_reference
from actfocus.training.initial import load_initial
from actfocus.training.loop import Loop, Step
from actfocus.training.run import _peak_memory
from actfocus.training.scoring import Scorer
from actfocus.training.update import Updater

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PARTS = ("rollout", "score", "update", "step")
UNIFORM: dict = {"focus": {"alpha": 1.0, "beta": 0.0}}
NO_KL: dict = {"algorithm": {"kl_coefficient": 0.0}}
KL: dict = {"algorithm": {"kl_coefficient": 0.1}}
ARMS = {
    "uniform": UNIFORM | NO_KL,
    "actfocus": NO_KL,
    "uniform + KL": UNIFORM | KL,
    "actfocus + KL": KL,
}


def configuration(recipe: Path, arm: str, model: str | None) -> Config:
    tree = load_config(recipe).model_dump()
    # A learning rate of almost nothing: the policy, and with it the work of a step, stays the same.
    changes = {"optimizer": {"lr": 1e-12}, **ARMS[arm]}
    if model:
        changes["model"] = {"name": model}
    for section, values in changes.items():
        tree[section] |= values
    return Config.model_validate(tree)


def make_loop(config: Config) -> Loop:
    processes = Processes()
    policy, chat = load_initial(config.model, config.env, device=processes.device)
    reference = make_reference(policy) if config.needs_reference else None
    algorithm = ALGORITHMS[config.algorithm.name](config.algorithm)
    critic = Critic(policy) if algorithm.uses_critic else None
    updater = Updater(config, processes, algorithm, policy, critic)
    scorer = Scorer(config, processes, policy, critic, reference)
    return Loop(config, processes, policy, chat, algorithm, scorer, updater)


def timed(loop: Loop, number: int) -> dict[str, float]:
    step = Step(number)
    start = time.perf_counter()
    loop.run(step)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return {"step": time.perf_counter() - start, **step.watch.seconds}


def memory_of(arm: str, options: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--memory-of", arm, "--recipe", str(options.recipe)]
    command += ["--model", options.model] if options.model else []
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "frozen-lake-grpo.toml")
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--memory-of", choices=list(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        loop = make_loop(configuration(options.recipe, options.memory_of, options.model))
        for number in (1, 2):
            timed(loop, number)
        print(_peak_memory())
        return
    RESULTS.mkdir(exist_ok=True)
    loops = {arm: make_loop(configuration(options.recipe, arm, options.model)) for arm in ARMS}
    for loop in loops.values():
        timed(loop, 0)  # warm-up
    rounds = []
    for number in range(1, options.rounds + 1):
        # Another arm goes first in each round: what a step leaves behind in the caches favours no one.
        order = [*loops][number % len(loops) :] + [*loops][: number % len(loops)]
        rounds.append({arm: timed(loops[arm], number) for arm in order})
    memory = {arm: memory_of(arm, options) for arm in ARMS}
    report(rounds, memory, options)


def report(
    rounds: list[dict[str, dict[str, float]]], memory: dict[str, int], options: argparse.Namespace
) -> None:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    lines = [
        "# What ActFocus costs\n",
        f"Command: `python benchmarks/step_cost.py --rounds {options.rounds}"
        f"{' --model ' + options.model if options.model else ''}`; recipe `{options.recipe.name}`.",
        f"Machine: {device}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; torch"
        f" {torch.__version__}. Medians of {options.rounds} rounds, min–max in brackets.\n",
        "| arm | rollout s | score s | update s | step s | step / uniform, same round | peak memory MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        base = "uniform + KL" if "KL" in arm else "uniform"
        parts = {
            p: statistics.median(r[arm][p] for r in rounds) for p in ("rollout", "score", "update", "step")
        }
        ratios = sorted(r[arm]["step"] / r[base]["step"] for r in rounds)
        lines.append(
            f"| {arm} | {parts['rollout']:.2f} | {parts['score']:.2f} | {parts['update']:.2f} |"
            f" {parts['step']:.2f} | {statistics.median(ratios):.3f} [{ratios[0]:.3f}–{ratios[-1]:.3f}] |"
            f" {memory[arm] / 2**20:.0f} |"
        )
    text = "\n".join(lines) + "\n"
    name = "step_cost" if not options.model else f"step_cost_{Path(options.model).name}"
    (RESULTS / f"{name}.md").write_text(text)
    record = {"device": device, "torch": torch.__version__, "rounds": rounds, "memory": memory}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
