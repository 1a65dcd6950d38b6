"""The whole diagnosis: episodes, signals, correlations, gradient share, verdict, picture.

Legend: B trajectories, T tokens.
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from actfocus.algorithms.grpo import grpo_advantages
from actfocus.diagnosis.agent import Subject
from actfocus.diagnosis.picture import draw_bottleneck
from actfocus.diagnosis.request import Request
from actfocus.diagnosis.signals import SIGNALS, signal_check, token_signals
from actfocus.diagnosis.subjects import subject_of
from actfocus.diagnosis.verdict import TESTED_SCOPE, TESTED_SIGNAL, verdict
from actfocus.errors import ConfigError, NonFiniteError, RunError
from actfocus.focus import Role, token_weights
from actfocus.focus.bottleneck import (
    RESAMPLES,
    SEED,
    GroupMeans,
    RankCorrelation,
    action_share,
    group_means,
    rank_correlation,
)
from actfocus.report.output import jsonable
from actfocus.report.progress import Progress
from actfocus.rollout.batch import Batch, collate
from actfocus.run_directory import write_whole
from actfocus.training.gradients import gradient_share

SCHEMA = 1
"""Version of `diagnosis.json`."""

Tables = dict[str, dict[str, GroupMeans]]
"""By signal and scope."""
Correlations = dict[str, dict[str, RankCorrelation]]


def diagnose(request: Request, out: Path, *, progress: Progress) -> dict[str, Any]:
    """Diagnose an agent; writes `diagnosis.json` and the picture into the new folder `out`.

    The gradient needs the most memory and comes last: should it fail, the rest is written already.

    Returns:
        What is in `diagnosis.json`, JSON-ready (a figure that is not defined is None); docs/diagnose.md
        names every key.

    Raises:
        ActfocusError: Whatever the user can put right; see `subject_of`.
    """
    with _new_folder(out):
        return _diagnose(request, out, progress)


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[None]:
    """Make the folder before the work is done; take it away again if nothing came to be in it."""
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise RunError(f"{out} exists already; choose another --out") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it holds something
            out.rmdir()


def _diagnose(request: Request, out: Path, progress: Progress) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject = subject_of(request, device, progress)
    _drop_single_episodes(subject)
    batch = collate(subject.records, device)
    if not batch.returns_B.isfinite().all():
        raise NonFiniteError("a return is not finite")
    signals = token_signals(
        subject.agent,
        batch,
        recorded=subject.recorded,
        micro_batch=request.micro_batch,
        progress=progress,
    )
    tables, correlations = correlate(batch, signals)
    result = _result(subject, batch, tables, correlations)
    result["signal_check"] = signal_check(subject.agent, batch, signals)
    result["gradient"] = None
    title = f"{_title(subject)}: does energy follow what is at stake?"
    pictures = draw_bottleneck(tables["energy"], correlations["energy"], title, out)
    result["pictures"] = [path.name for path in pictures]
    _write(result, out)
    if request.gradient_groups != 0:
        result["gradient"] = _gradient(request, subject, batch, signals, progress)
        if result["gradient"] is None:
            subject.notes.append("No gradient: fewer than two groups have returns that vary.")
    return _write(result, out)


def _write(result: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The result as JSON can hold it, and as it stands in the file."""
    written = {key: jsonable(value) for key, value in result.items()}
    write_whole(out / "diagnosis.json", json.dumps(written, indent=1, allow_nan=False).encode())
    return written


def correlate(batch: Batch, signals: Mapping[Any, torch.Tensor]) -> tuple[Tables, Correlations]:
    """Group variance against mean signal, for each signal [B, T] and each scope."""
    roles_BT, returns_B, groups_B = batch.roles_BT.cpu(), batch.returns_B.cpu(), batch.groups_B.cpu()
    tables: Tables = {}
    for name in SIGNALS:
        tables[name] = group_means(signals[name], roles_BT, returns_B, groups_B)
    correlations: Correlations = {
        name: {scope: rank_correlation(table.variances, table.means) for scope, table in by_scope.items()}
        for name, by_scope in tables.items()
    }
    return tables, correlations


def _drop_single_episodes(subject: Subject) -> None:
    """Leave out groups of one: the variance of their return is not 0 but unknown."""
    sizes = Counter(record.start.group for record in subject.records)
    kept = [record for record in subject.records if sizes[record.start.group] > 1]
    if not kept:
        raise ConfigError("every group has one episode only: there is no variance of the return to speak of")
    if dropped := len(subject.records) - len(kept):
        subject.notes.append(f"Left out: groups of a single episode ({dropped}).")
    subject.records = kept


def _result(subject: Subject, batch: Batch, tables: Tables, correlations: Correlations) -> dict[str, Any]:
    roles_BT = batch.roles_BT
    everyone = tables["energy"]["all"]
    silent = sum(variance == 0 for variance in everyone.variances)
    tested = tables[TESTED_SIGNAL][TESTED_SCOPE]
    tokens = {role.name.lower(): int((roles_BT == role).sum()) for role in Role}
    del tokens["context"]  # padding counts as context
    found = verdict(
        correlations[TESTED_SIGNAL][TESTED_SCOPE], tested.variances, tokens["action"], silent=silent
    )
    if subject.agent.is_reference and not subject.recorded:
        subject.notes.append("The policy is its own reference, so the shift is 0 at every token.")
    return {
        "schema": SCHEMA,
        "about": subject.about,
        "verdict": asdict(found),
        "tested": {"signal": TESTED_SIGNAL, "scope": TESTED_SCOPE},
        "groups": len(everyone.groups),
        "groups_without_variance": silent,
        "episodes": len(batch),
        "mean_return": math.fsum(batch.returns_B.tolist()) / len(batch),
        "tokens": tokens,
        "action_share": action_share(roles_BT),
        "correlations": {
            name: {scope: asdict(each) for scope, each in by_scope.items()}
            for name, by_scope in correlations.items()
        },
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "level": 0.95, "over": "groups"},
        "points": {scope: asdict(table) for scope, table in tables["energy"].items()},
        "notes": subject.notes,
    }


def _gradient(
    request: Request,
    subject: Subject,
    batch: Batch,
    signals: Mapping[Any, torch.Tensor],
    progress: Progress,
) -> dict[str, Any] | None:
    focus = subject.focus
    weights_BT = token_weights(
        batch.roles_BT,
        signals[focus.signal].to(batch.roles_BT.device),
        alpha=focus.alpha,
        beta=focus.beta,
        other_weight=focus.other_weight,
    )
    advantages_B = grpo_advantages(batch.returns_B, batch.groups_B)
    share = gradient_share(
        subject.agent.policy,
        batch,
        advantages_B[:, None].expand(batch.roles_BT.shape),
        weights_BT,
        micro_batch=request.micro_batch,
        most_groups=request.gradient_groups,
        progress=progress,
    )
    return None if share is None else asdict(share) | {"focus": focus.model_dump(mode="json")}


def _title(subject: Subject) -> str:
    about = subject.about
    if about["kind"] == "transcripts":
        return f"{Path(about['file']).name} under {about['model']}"
    if about["kind"] == "recorded":
        return f"{about['run']}, recorded episodes"
    if about["kind"] == "run":
        return f"{about['run']}, step {about['step']}"
    return f"{about['model']} on {about['env']['name']}"
