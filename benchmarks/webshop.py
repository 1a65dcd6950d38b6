"""WebShop: start-up, memory and page steps a second on one core, and what scripted shoppers reach.

    python benchmarks/webshop.py --catalogue shipped thousand --synthetic 100000

`thousand` is an imported catalogue (`actfocus webshop import DIR --name thousand`); `--synthetic N` makes one
of about N products with the generator of the shipped one. Each catalogue has a process of its own on one core
that runs twice: the first run fills the cache. A page step is one reply of the game, pages, search, score
included; "walk" presses random buttons, "shopper" is the scripted shopper, whose thinking is not counted.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SHIPPED_PER_FAMILY = 3.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--catalogue", nargs="+", default=["shipped"])
    parser.add_argument("--synthetic", type=int, help="products of a generated catalogue")
    parser.add_argument("--episodes", type=int, default=300, help="episodes of each scripted shopper")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the walk")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.episodes, options.seconds)))
        return
    names = [*options.catalogue, *([f"synthetic:{options.synthetic}"] if options.synthetic else [])]
    rows = []
    for name in names:
        run(name, options)  # fills the cache
        rows.append(run(name, options))
        print(rows[-1], flush=True)
    write_table(rows)


def run(name: str, options: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--measure", name]
    command += ["--episodes", str(options.episodes), "--seconds", str(options.seconds)]
    one_core = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=one_core)
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, episodes: int, seconds: float) -> dict:
    """The figures of one catalogue, in this process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start = time.perf_counter()
    from actfocus.envs.webshop import WebShop

    imported = time.perf_counter()
    from actfocus.envs.webshop.catalogue import shipped_catalogue
    from actfocus.envs.webshop.shop import make_shop, open_shop
    from actfocus.envs.webshop.shopper import Shopper

    if name.startswith("synthetic:"):
        families = round(int(name.partition(":")[2]) / SHIPPED_PER_FAMILY)
        catalogue = shipped_catalogue(families)
        made = time.perf_counter()
        shop = make_shop(catalogue)
    else:
        made = time.perf_counter()
        shop = open_shop(name)
    opened = time.perf_counter()
    env = WebShop(shop=shop)
    replies = {
        "expert": lambda: lambda _: env.expert_actions()[0],
        "shopper": lambda: Shopper().act,
    }
    played = {who: play(env, make, episodes) for who, make in replies.items()}
    return {
        "catalogue": name,
        "products": len(shop.catalogue.products),
        "goals": len(shop.goals),
        "import_seconds": imported - start,
        "generate_seconds": made - imported,
        "open_seconds": opened - made,
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "walk_steps_per_second": walk(env, seconds),
        **{f"{who}_{key}": value for who, figures in played.items() for key, value in figures.items()},
        "episodes": episodes,
    }


def walk(env, seconds: float) -> float:
    """Steps a second of random legal actions; making up an action is not counted."""
    import numpy as np

    rng, steps, spent, seed, over = np.random.default_rng(0), 0, 0.0, 0, True
    while spent < seconds:
        if over:
            env.reset(seed=seed)
            seed += 1
        reply = f"<think>I walk.</think><answer>{env.random_action(rng)}</answer>"
        start = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(reply)
        spent += time.perf_counter() - start
        steps, over = steps + 1, terminated or truncated
    return steps / spent


def play(env, make_player, episodes: int) -> dict:
    """Success, score and purchases of a player, and the steps a second of the game under it."""
    sums, steps, spent = {"success": 0.0, "score": 0.0, "purchase": 0.0}, 0, 0.0
    for seed in range(episodes):
        act = make_player()
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            reply = f"<think>I play.</think><answer>{act(observation)}</answer>"
            start = time.perf_counter()
            observation, _, terminated, truncated, info = env.step(reply)
            spent += time.perf_counter() - start
            steps, over = steps + 1, terminated or truncated
        sums["success"] += info["success"]
        for key, value in info["figures"].items():
            sums[key] += value
    return {key: value / episodes for key, value in sums.items()} | {"steps_per_second": steps / spent}


def write_table(rows: list[dict]) -> None:
    head = (
        "# WebShop: speed, and scripted shoppers\n\n"
        f"Command: `python benchmarks/webshop.py {' '.join(sys.argv[1:])}`. Machine: {platform.machine()},"
        f" one core, Python {platform.python_version()}. Start-up with the index in the cache; evaluation"
        f" goals (seeds 0 to {rows[0]['episodes'] - 1}); the shopper reads what the agent reads, the expert"
        " knows the wanted product.\n\n"
        "| catalogue | products | goals | import s | open s | memory MiB | steps/s walk | steps/s shopper |"
        " expert success | shopper success | shopper score | shopper purchases |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    lines = [
        f"| {row['catalogue']} | {row['products']:,} | {row['goals']:,} |"
        f" {row['import_seconds']:.2f} |"
        f" {row['open_seconds']:.2f} | {row['memory_mib']:.0f} | {row['walk_steps_per_second']:,.0f} |"
        f" {row['shopper_steps_per_second']:,.0f} | {row['expert_success']:.1%} |"
        f" {row['shopper_success']:.1%} | {row['shopper_score']:.3f} | {row['shopper_purchase']:.1%} |"
        for row in rows
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "webshop.md").write_text(head + "\n".join(lines) + "\n")
    (RESULTS / "webshop.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
