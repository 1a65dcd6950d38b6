"""Uniform against ActFocus: final and peak success of the tiny model, with equal settings in both arms.

    python benchmarks/success_table.py --env frozen-lake --seeds 0 1 2 --out runs/table
    python benchmarks/success_table.py --env sokoban sudoku --seeds 0 --out runs/table

Runs that are done are skipped and runs that were broken off are resumed, so the command can be stopped at any
time and given again. Each run is one process with one thread; `--jobs` of them go on at once. The table is
written to `benchmarks/results/`.
"""

import argparse
import itertools
import json
import math
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from matplotlib.figure import Figure
from scipy.stats import t as student

ARMS = {"uniform": ["--focus.alpha", "1", "--focus.beta", "0"], "actfocus": []}
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    options = parse_arguments()
    RESULTS.mkdir(exist_ok=True)
    # Seed by seed, so that a table that is broken off has all arms of the first seeds.
    order = itertools.product(options.seeds, options.env, options.algorithm, ARMS)
    cells = [(env, algorithm, arm, seed) for seed, env, algorithm, arm in order]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda cell: train(*cell, options), cells))
    write_table(cells, options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env", nargs="+", default=["frozen-lake"])
    parser.add_argument("--algorithm", nargs="+", default=["grpo", "ppo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--name", default="success", help="file name of the table, without ending")
    parser.add_argument("rest", nargs="*", help="further options of `actfocus train`, after --")
    return parser.parse_args()


def run_folder(env: str, algorithm: str, arm: str, seed: int, out: Path) -> Path:
    return out / f"{env}-{algorithm}-{arm}-{seed}"


def train(env: str, algorithm: str, arm: str, seed: int, options: argparse.Namespace) -> None:
    folder = run_folder(env, algorithm, arm, seed, options.out)
    recipe = ROOT / "recipes" / f"{env}-{algorithm}.toml"
    command = [sys.executable, "-m", "actfocus", "train", "--config", str(recipe), "--seed", str(seed)]
    # Resuming with the same options makes sure that they are the ones the run was started with.
    command += [*ARMS[arm], *options.rest, "--resume" if folder.exists() else "--out", str(folder)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("a") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, stdout=log, stderr=log, env=environment, check=True)
    print("done:", folder.name, flush=True)


def evaluations(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{"step": line["step"], **line["evaluation"]} for line in lines if "evaluation" in line]


def seconds(folder: Path) -> float:
    lines = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    return sum(line["seconds"].get("step", 0.0) for line in lines)


def interval(values: list[float]) -> str:
    """Mean over seeds with its Student-t 95 % interval, in percent; the values alone below two seeds."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.1%}"
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    half = spread * float(student.ppf(0.975, len(values) - 1))
    return f"{mean:.1%} ± {100 * half:.1f}"


def write_table(cells: list[tuple[str, str, str, int]], options: argparse.Namespace) -> None:
    groups: dict[tuple[str, str, str], list[Path]] = {}
    for env, algorithm, arm, seed in cells:
        groups.setdefault((env, algorithm, arm), []).append(
            run_folder(env, algorithm, arm, seed, options.out)
        )
    environment = json.loads((groups[next(iter(groups))][0] / "environment.json").read_text())
    rows, lines = [], []
    for (env, algorithm, arm), folders in groups.items():
        found = [evaluations(folder) for folder in folders]
        row = {
            "env": env,
            "algorithm": algorithm,
            "arm": arm,
            "before": [each[0]["success"] for each in found],
            "final": [each[-1]["success"] for each in found],
            "peak": [max(e["success"] for e in each) for each in found],
            "final_interval": [[each[-1]["low"], each[-1]["high"]] for each in found],
            "seconds": [seconds(folder) for folder in folders],
        }
        rows.append(row)
        seeds = " ".join(f"{value:.1%}" for value in row["final"])
        lines.append(
            f"| {env} | {algorithm} | {arm} | {interval(row['before'])} | {interval(row['final'])} |"
            f" {seeds} | {interval(row['peak'])} | {sum(row['seconds']) / len(folders):.0f} |"
        )
    head = (
        "# Success of the tiny model: Uniform and ActFocus, equal settings\n\n"
        f"Command: `python benchmarks/success_table.py --env {' '.join(options.env)} --algorithm"
        f" {' '.join(options.algorithm)} --seeds {' '.join(map(str, options.seeds))}"
        f"{' -- ' + ' '.join(options.rest) if options.rest else ''}`\n\n"
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {options.jobs} runs at once, one thread"
        f" each; torch {environment['torch']}, transformers {environment['transformers']}, Python"
        f" {environment['python']}. Seeds: {', '.join(map(str, options.seeds))}. Success on"
        f" {found[0][0]['episodes']} evaluation episodes; ± is Student's 95 % interval over seeds (the few"
        " seeds make it wide).\n\n"
        "| environment | algorithm | arm | before | final | final, each seed | peak | seconds per run |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    lines += ["", *differences(rows)]
    (RESULTS / f"{options.name}.md").write_text(head + "\n".join(lines) + "\n")
    draw_curves(groups, RESULTS / f"{options.name}.png")
    record = {"environment": environment, "seeds": options.seeds, "rows": rows}
    (RESULTS / f"{options.name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(lines))


def differences(rows: list[dict]) -> list[str]:
    """ActFocus minus Uniform, seed by seed: equal seeds share start states and luck."""
    final = {(row["env"], row["algorithm"], row["arm"]): row["final"] for row in rows}
    cells = dict.fromkeys((env, algorithm) for env, algorithm, _ in final)
    found = []
    for env, algorithm in cells:
        pairs = zip(final[env, algorithm, "actfocus"], final[env, algorithm, "uniform"], strict=True)
        gain = interval([actfocus - uniform for actfocus, uniform in pairs])
        found.append(f"- {env}, {algorithm}: ActFocus minus Uniform at the end, in points: {gain}")
    return found


def draw_curves(groups: dict[tuple[str, str, str], list[Path]], path: Path) -> None:
    """One panel per environment and algorithm: each seed's evaluations thin, their mean thick."""
    panels = list(dict.fromkeys((env, algorithm) for env, algorithm, _ in groups))
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    colours = {"uniform": "0.45", "actfocus": "#0b5fa5"}
    for axes, (env, algorithm) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for arm, colour in colours.items():
            curves = [evaluations(folder) for folder in groups[env, algorithm, arm]]
            steps = [each["step"] for each in curves[0]]
            heights = [[100 * each["success"] for each in curve] for curve in curves]
            for each in heights:
                axes.plot(steps, each, color=colour, linewidth=0.8, alpha=0.5)
            mean = [sum(column) / len(column) for column in zip(*heights, strict=True)]
            axes.plot(steps, mean, "o-", color=colour, linewidth=2, label=arm)
        axes.set(title=f"{env}, {algorithm}", xlabel="step", ylabel="success, %", ylim=(0, 100))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
