"""What a grid costs, before it is run: runs, steps, seconds, memory, and what of it is not known."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from actfocus.compare.directory import CompareDirectory
from actfocus.compare.grid import Cell
from actfocus.compare.records import Record, evaluation_steps
from actfocus.config import Config

PROCESS_BYTES = 600 * 2**20
"""What a process needs before it has a model: Python, torch, transformers. Measured, rounded up."""
START_SECONDS = 10.0
"""Until a process has imported torch and loaded `tiny`, and after its last step. Measured on two cores."""

Work = Callable[[Config], int | None]
"""Bytes that a run's tensors need; None if that cannot be told."""


def tensor_bytes(config: Config) -> int | None:
    """The estimate of `actfocus train --dry-run`; None where the model's shapes are not at hand."""
    from actfocus.training.plan import plan

    try:
        return int(plan(config)["memory_bytes"])
    except Exception:  # a model that is not here, an own game: an estimate must not stop a comparison
        return None


def measured(records: Sequence[Record], config: Config) -> tuple[float, float] | None:
    """Seconds of one step and of one evaluation, from runs whose settings cost the same; None if none do."""
    alike = [r for r in records if _cost_settings(r.config) == _cost_settings(config)]
    steps = [r.step_seconds for r in alike if r.step_seconds is not None]
    evaluations = [r.evaluation_seconds for r in alike if r.evaluation_seconds is not None]
    return (mean(steps), mean(evaluations) if evaluations else 0.0) if steps else None


def _cost_settings(config: Config) -> dict[str, Any]:
    """The settings that a step's seconds depend on.

    Neither its number nor the seed; nor the weights, though they may need a pass of the reference: what that
    adds is less than equal runs differ by, and a plan is wanted before every arm has a run.
    """
    optimizer = {"epochs", "mini_batch", "micro_batch"}
    return config.model_dump(include={"env", "model", "rollout", "gradients_every"}) | {
        "algorithm": config.algorithm.name,
        "optimizer": config.optimizer.model_dump(include=optimizer),
        "evaluation": config.evaluation.model_dump(include={"states", "samples"}),
    }


def _memory_settings(config: Config) -> dict[str, Any]:
    """Those that a process's memory depends on: a reference is a second model."""
    return _cost_settings(config) | {"reference": config.needs_reference}


def evaluations_left(config: Config, after: int) -> int:
    """Evaluations after a step; -1 means that the one before training is to come too."""
    return sum(step > after for step in evaluation_steps(config))


def cost(
    directory: CompareDirectory | None,
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    *,
    jobs: int,
    others: Sequence[Record] = (),
    step_seconds: float | None = None,
) -> dict[str, Any]:
    """What is left to do for some cells, and how long it takes with `jobs` processes.

    Args:
        directory: Where the cells run; None if that is not decided.
        cells: The grid.
        records: What is done of them, by the cells' names.
        jobs: Processes at once.
        others: Runs from elsewhere whose seconds may be used.
        step_seconds: A declared figure for steps that no run tells of, its share of evaluation included.
    """
    state = {"done": 0, "to_resume": 0, "to_start": 0}
    steps, seconds, sources, unknown = 0, [], set(), []
    for cell in cells:
        record = records.get(cell.name)
        if directory is not None and directory.is_done(cell, record):
            state["done"] += 1
            continue
        state["to_start" if record is None else "to_resume"] += 1
        after = directory.resumes_after(cell) if directory and record else -1
        left = cell.config.steps - max(0, after)
        steps += left
        figures, source = measured(list(records.values()), cell.config), "this directory's runs"
        if figures is None:
            figures, source = measured(others, cell.config), "the runs of --timing"
        if figures is None and step_seconds is not None:
            figures, source = (step_seconds, 0.0), "--step-seconds"
        if figures is None:
            unknown.append(f"{cell.config.env.name}, {cell.config.algorithm.name}")
            continue
        sources.add(source)
        seconds.append(START_SECONDS + left * figures[0] + evaluations_left(cell.config, after) * figures[1])
    return {
        "runs": len(cells),
        **state,
        "steps_left": steps,
        "jobs": jobs,
        "seconds_of_processes": None if unknown else sum(seconds),
        "seconds": None if unknown else _makespan(seconds, jobs),
        "seconds_from": sorted(sources),
        "seconds_unknown_for": list(dict.fromkeys(unknown)),
    }


def _makespan(seconds: Sequence[float], jobs: int) -> float:
    """When the last of some runs ends if they are started in order, `jobs` at once."""
    free = [0.0] * jobs
    for each in seconds:
        first = free.index(min(free))
        free[first] += each
    return max(free)


def memory_of_a_run(
    cells: Sequence[Cell], records: Sequence[Record], tensors: Work = tensor_bytes
) -> tuple[int | None, str]:
    """Bytes of the largest process of a grid, and where that is known from."""
    needs, sources = [], set()
    plans: dict[str, int | None] = {}
    for cell in cells:
        alike = [r for r in records if _memory_settings(r.config) == _memory_settings(cell.config)]
        # One that has not trained yet has not held what training holds.
        peaks = [r.peak_memory for r in alike if r.peak_memory and r.step_seconds is not None]
        if peaks:
            needs.append(max(peaks))
            sources.add("measured")
            continue
        key = repr(_memory_settings(cell.config))
        if key not in plans:
            plans[key] = tensors(cell.config)
        planned = plans[key]
        if planned is None:
            return None, "the model's shapes are not at hand"
        needs.append(planned + PROCESS_BYTES)
        sources.add("estimated")
    return max(needs, default=0), " and ".join(sorted(sources))


def jobs_that_fit(need: int | None, free: int | None, cores: int) -> int:
    """Processes at once: one a core, and no more than the memory holds; at least one."""
    if not need or free is None:
        return cores
    return max(1, min(cores, free // need))


def cores_here() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that torch would use, as CUDA names them; none on a machine without a driver."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    import torch

    count = torch.cuda.device_count()  # fewer than are named if one of the names is none, such as -1
    chosen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return chosen[:count] or [str(number) for number in range(count)]


def free_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that may be used without swapping; None where the system does not tell."""
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
