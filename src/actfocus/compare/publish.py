"""From runs to a report: `report.json`, `report.md` and the pictures in one folder."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actfocus.compare import statistics as st
from actfocus.compare.directory import SCHEMA
from actfocus.compare.records import Record, group_runs
from actfocus.compare.report import markdown
from actfocus.compare.summary import summarise
from actfocus.errors import ConfigError, RunError
from actfocus.run_directory import write_whole

VERSIONS = ("actfocus", "python", "torch", "transformers", "numpy", "device", "threads", "processes")


def check_report_folder(folder: Path) -> None:
    """Refuse a folder whose `report.md` is not ours: it would be written over.

    Raises:
        ConfigError: If there is one without a `report.json` of `publish` beside it.
    """
    if not (folder / "report.md").exists():
        return
    try:
        ours = json.loads((folder / "report.json").read_text())["schema"] == SCHEMA
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise ConfigError(
            f"--out: {folder / 'report.md'} is not a report of actfocus compare; choose another folder"
        )


def publish(
    folder: Path,
    records: Mapping[str, Record],
    *,
    commands: Sequence[str],
    failed: Mapping[str, str],
    missing: Sequence[str] = (),
    jobs: int | None = None,
    lr_varies: bool | None = None,
) -> dict[str, Any]:
    """Write the report of some runs; returns what `report.json` holds.

    Args:
        folder: Where it goes.
        records: Name → run; unfinished ones are named in the report and are in none of its figures.
        commands: What made the runs and the report.
        failed: Name → why a run failed; they are in no figure, finished or not.
        missing: Names of runs that have not begun.
        jobs: Runs at once, if they were run here.
        lr_varies: Whether learning rates differ by plan; None lets the runs tell.

    Raises:
        RunError: If no run is finished, or runs do not compare.
    """
    finished = [record for name, record in records.items() if record.finished and name not in failed]
    unfinished = {
        name: f"step {record.last_step} of {record.config.steps}"
        for name, record in records.items()
        if not record.finished and name not in failed
    }
    unfinished |= {name: "not begun" for name in missing if name not in failed}
    if not finished:
        states = "; ".join(f"{name}: {state}" for name, state in [*unfinished.items(), *failed.items()][:3])
        raise RunError(f"no run is finished, so there is nothing to report ({states or 'there is no run'})")
    report = summarise(group_runs(finished, lr_varies=lr_varies))
    report |= {
        "schema": SCHEMA,
        "commands": list(commands),
        "resamples": st.RESAMPLES,
        "bootstrap_seed": st.BOOTSTRAP_SEED,
        "confidence": st.CONFIDENCE,
        "seeds": sorted({record.config.seed for record in finished}),
        "runs": len(finished),
        "failed": dict(failed),
        "unfinished": unfinished,
        "machine": {"platform": platform.machine(), "cores": os.cpu_count(), "jobs": jobs},
        "versions": _versions(finished),
        "not_alike": _not_alike(finished),
        "run_directories": {name: str(records[name].path) for name in sorted(records)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    from actfocus.compare.figures import draw_all  # matplotlib takes a second to import

    report["pictures"] = draw_all(report, folder)
    write_whole(folder / "report.json", (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    write_whole(folder / "report.md", markdown(report).encode())
    return report


def _versions(records: Sequence[Record]) -> dict[str, list[str]]:
    """What the runs were made with; more than one value where they differ."""
    found: dict[str, list[str]] = {}
    for key in VERSIONS:
        values = [str(r.environment[key]) for r in records if key in r.environment]
        if values:
            found[key] = sorted(set(values))
    return found


def _not_alike(records: Sequence[Record]) -> dict[str, dict[str, list[str]]]:
    """What runs were made with where it differs: key → value → the arms that have such runs."""
    found: dict[str, dict[str, list[str]]] = {}
    for key in VERSIONS:
        arms: dict[str, set[str]] = {}
        for record in records:
            arms.setdefault(str(record.environment.get(key, "unknown")), set()).add(record.arm)
        if len(arms) > 1:
            found[key] = {value: sorted(arms[value]) for value in sorted(arms)}
    return found
