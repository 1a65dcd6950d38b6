"""The figures of a comparison, all JSON: what `report.json` holds, and tables and pictures are made of."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from actfocus.compare import statistics as st
from actfocus.compare.arms import UNIFORM, canonical
from actfocus.compare.records import Group, Record, arms_of
from actfocus.compare.verdict import unknown, verdict

Measure = Callable[[Record], float]

MEASURES: dict[str, Measure] = {
    "final": lambda run: run.final,
    "peak": lambda run: run.peak,
    "drop": lambda run: run.peak - run.final,
}


def stratum_name(group: Group) -> str:
    """The name that decides a stratum's resamples."""
    return f"{group.env} {group.algorithm} {group.lr!r}"


def uniform_arm(groups: Sequence[Group]) -> str | None:
    """The name of the arm that the others are held against; None if there is none."""
    for arm in arms_of(groups):
        if canonical(arm.focus) == UNIFORM:
            return arm.name
    return None


def summarise(groups: Sequence[Group]) -> dict[str, Any]:
    """Every comparison and what they say together."""
    base = uniform_arm(groups)
    comparisons = [_comparison(group, base) | {"lr_varies": _is_swept(groups, group)} for group in groups]
    return {
        "comparisons": comparisons,
        "together": [_together(name, members, base) for name, members in _families(groups)],
        "rates": _best_rates(groups, base),
        "base": base,
        "arms": [{"name": arm.name} | arm.focus.model_dump() for arm in arms_of(groups)],
    }


def _comparison(group: Group, base: str | None) -> dict[str, Any]:
    names = [arm.name for arm in arms_of([group])]
    return {
        "env": group.env,
        "algorithm": group.algorithm,
        "lr": group.lr,
        "episodes": max(run.episodes for seeds in group.runs.values() for run in seeds.values()),
        "arms": {name: _arm(group, name) for name in names},
        "against_base": {name: against([group], name, base) for name in names if base and name != base},
        "curves": {name: _curve(group, name) for name in names},
    }


def _arm(group: Group, name: str) -> dict[str, Any]:
    seeds = group.runs[name]
    runs = list(seeds.values())
    before = [run.before for run in runs if run.before is not None]
    steps = [run.step_seconds for run in runs if run.step_seconds is not None]
    whole = [run.seconds for run in runs if run.step_seconds is not None]
    peaks = [run.peak_memory for run in runs if run.peak_memory]
    return {
        "focus": group.arms[name].model_dump(),
        "seeds": list(seeds),
        "before": fmean(before) if before else None,
        **estimates([group], name),
        "each": {measure: [get(run) for run in runs] for measure, get in MEASURES.items()},
        "seconds_per_run": fmean(whole) if whole else None,
        "seconds_per_step": median(steps) if steps else None,
        "peak_memory_bytes": max(peaks, default=None),
    }


def estimates(groups: Sequence[Group], name: str) -> dict[str, Any]:
    """Mean and inter-quartile mean of final and peak success and mean drop, over seeds within strata."""
    streams = [stratum_name(group) for group in groups]
    found: dict[str, Any] = {}
    for measure, get in MEASURES.items():
        values = [np.array([get(run) for run in group.runs[name].values()]) for group in groups]
        found[f"{measure}_mean"] = st.estimate(values, st.mean_of_strata, streams).to_json()
        if measure != "drop":
            found[f"{measure}_iqm"] = st.estimate(values, st.interquartile_mean, streams).to_json()
    return found


def against(groups: Sequence[Group], name: str, base: str | None) -> dict[str, Any]:
    """An arm against Uniform: paired by seed for the difference, all pairs for the probability."""
    streams = [stratum_name(group) for group in groups]
    empty: dict[int, Record] = {}
    ours = [group.runs.get(name, empty) for group in groups]
    theirs = [group.runs.get(base or "", empty) for group in groups]
    pairs = [[seed for seed in x if seed in y] for x, y in zip(ours, theirs, strict=True)]
    found: dict[str, Any] = {"pairs": [len(seeds) for seeds in pairs], "seeds": pairs}
    for measure in ("final", "peak"):
        get = MEASURES[measure]
        differences = [
            np.array([get(x[seed]) - get(y[seed]) for seed in seeds])
            for x, y, seeds in zip(ours, theirs, pairs, strict=True)
        ]
        found[f"{measure}_difference"] = {
            "each": [list(map(float, values)) for values in differences],
            "bootstrap": st.estimate(differences, st.mean_of_strata, streams).to_json(),
            "student": st.student(differences).to_json(),
        }
        found[f"{measure}_improvement"] = st.probability_of_improvement(
            [np.array([get(run) for run in x.values()]) for x in ours],
            [np.array([get(run) for run in y.values()]) for y in theirs],
            streams,
        ).to_json()
    return found | {"verdict": verdict(found["final_difference"], found["pairs"])}


def _curve(group: Group, name: str) -> dict[str, Any]:
    """Success at each evaluation: every seed, the mean, and its interval where there is one."""
    runs = list(group.runs[name].values())
    steps = [point.step for point in runs[0].points]
    success = [[point.success for point in run.points] for run in runs]  # equal settings, equal steps
    rows = [np.array(row) for row in zip(*success, strict=True)]
    bands = [st.estimate([row], st.mean_of_strata, [stratum_name(group)]) for row in rows]
    return {
        "steps": steps,
        "each": success,
        "mean": [band.value for band in bands],
        "low": [band.low for band in bands],
        "high": [band.high for band in bands],
    }


def _families(groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """What is worth summing up: each algorithm over environments, and everything; one learning rate each."""
    families = []
    rates = list(dict.fromkeys(group.lr for group in groups))
    # Recipes may have a learning rate of their own each: then it is no sweep, and all belong together.
    swept = any(_is_swept(groups, group) for group in groups)
    for lr in rates if swept else [None]:
        members = [group for group in groups if lr is None or group.lr == lr]
        suffix = "" if lr is None else f", learning rate {lr:g}"
        algorithms = list(dict.fromkeys(group.algorithm for group in members))
        for algorithm in algorithms:
            some = [group for group in members if group.algorithm == algorithm]
            if len(some) > 1:
                families.append((f"{algorithm}, {len(some)} environments{suffix}", some))
        if len(algorithms) > 1:
            families.append((f"all {len(members)} together{suffix}", members))
    return families


def _is_swept(groups: Sequence[Group], group: Group) -> bool:
    return sum((g.env, g.algorithm) == (group.env, group.algorithm) for g in groups) > 1


def _together(name: str, groups: Sequence[Group], base: str | None) -> dict[str, Any]:
    """Several comparisons as the strata of one; only arms that all of them have."""
    names = [arm.name for arm in arms_of(groups) if all(arm.name in group.runs for group in groups)]
    return {
        "name": name,
        "strata": [stratum_name(group) for group in groups],
        "arms": {arm: {"runs": [len(g.runs[arm]) for g in groups]} | estimates(groups, arm) for arm in names},
        "against_base": {arm: against(groups, arm, base) for arm in names if base in names and arm != base},
    }


def _best_rates(groups: Sequence[Group], base: str | None) -> list[dict[str, Any]]:
    """With several learning rates: every arm at its best one, against Uniform at its own best one."""
    found = []
    for env, algorithm in dict.fromkeys((group.env, group.algorithm) for group in groups):
        members = [group for group in groups if (group.env, group.algorithm) == (env, algorithm)]
        if len(members) < 2:
            continue
        best: dict[str, Group] = {}
        for arm in arms_of(members):
            having = [group for group in members if arm.name in group.runs]
            best[arm.name] = max(having, key=lambda group: _mean_final(group, arm.name))
        # One group made of each arm's best: the seeds pair as they do at one learning rate.
        chosen = Group(env, algorithm, math.nan, {}, {name: g.runs[name] for name, g in best.items()})
        names = [name for name in best if base in best and name != base]
        rows = {name: against([chosen], name, base) for name in names}
        for row in rows.values():
            row["verdict"] = unknown("the rates were chosen on these figures")
        found.append(
            {
                "env": env,
                "algorithm": algorithm,
                "best": {name: group.lr for name, group in best.items()},
                "against_base": rows,
            }
        )
    return found


def _mean_final(group: Group, name: str) -> float:
    return fmean(run.final for run in group.runs[name].values())
