"""The action bottleneck as far as recorded episodes show it: no model is loaded, nothing is sampled.

Legend: B trajectories, T tokens.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from actfocus.diagnosis.verdict import TESTED_SCOPE, TESTED_SIGNAL, verdict
from actfocus.focus.bottleneck import SCOPES, group_means, rank_correlation
from actfocus.focus.roles import Role
from actfocus.report.summary.record import RunRecord
from actfocus.report.viewer.records import Episode


def recorded_diagnosis(record: RunRecord) -> dict[str, Any]:
    """The correlations at the first and the last recorded step, and what they lack."""
    files = sorted(record.episode_files)
    steps = [_step(record, step) for step in dict.fromkeys([files[0], files[-1]])] if files else []
    return {
        "signal": record.config.focus.signal,
        "tested": {"signal": TESTED_SIGNAL, "scope": TESTED_SCOPE},
        "steps": steps,
        "missing": _missing(record),
    }


def _missing(record: RunRecord) -> str | None:
    """Why there is nothing at all."""
    if not record.episode_files:
        every = record.config.save_episodes_every
        if every == 0:
            return "No episodes are recorded: save_episodes_every is 0."
        return f"No episodes are recorded yet: save_episodes_every is {every}."
    if record.config.focus.beta == 0:
        return "The recorded tokens carry no signal: with beta = 0 the weights need none, nor did a KL loss."
    return None


def _step(record: RunRecord, step: int) -> dict[str, Any]:
    episodes = [episode for episode in record.episodes(step) if episode.ids]
    groups = {episode.group for episode in episodes}
    scored = [e for e in episodes if "signal" in e.figures and e.total_return is not None]
    sizes = Counter(episode.group for episode in scored)
    scored = [episode for episode in scored if sizes[episode.group] > 1]  # one return has no variance
    found: dict[str, Any] = {
        "step": step,
        "episodes": len(episodes),
        "groups": len(groups),
        "groups_with_signal": len({episode.group for episode in scored}),
        "scopes": [],
        "verdict": None,
        "notes": [],
    }
    if scored:
        _correlate(found, scored, record.config.focus.signal)
    return found


def _correlate(found: dict[str, Any], episodes: Sequence[Episode], signal: str) -> None:
    signal_BT, roles_BT, unknown_BT = _tensors(episodes)
    if signal == "energy":
        # Runs of before 2026-11-25 without a KL term have 0 where the reference was not asked.
        unknown_BT |= (signal_BT == 0) & (roles_BT != Role.CONTEXT)
    # In single precision, as in training: sums of the same rewards in another order are equal returns.
    returns_B = torch.tensor([episode.total_return for episode in episodes], dtype=torch.float32)
    numbers = {group: place for place, group in enumerate(sorted({e.group for e in episodes}))}
    groups_B = torch.tensor([numbers[episode.group] for episode in episodes])
    tables = group_means(signal_BT, roles_BT, returns_B, groups_B)
    for scope, roles in SCOPES.items():
        in_scope_BT = torch.isin(roles_BT, torch.tensor(roles, dtype=torch.int8))
        tokens, missing = int(in_scope_BT.sum()), int((in_scope_BT & unknown_BT).sum())
        row: dict[str, Any] = {"scope": scope, "tokens": tokens, "missing": missing, "correlation": None}
        found["scopes"].append(row)
        if missing:
            found["notes"].append(
                f"{scope}: {missing} of {tokens} tokens carry no signal, so there is no mean to compare."
            )
            continue
        table = tables[scope]
        correlation = rank_correlation(table.variances, table.means)
        row["correlation"] = {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(correlation).items()
        }
        if (signal, scope) == (TESTED_SIGNAL, TESTED_SCOPE):
            silent = sum(variance == 0 for variance in tables["all"].variances)
            found["verdict"] = asdict(verdict(correlation, table.variances, tokens, silent=silent))


def _tensors(episodes: Sequence[Episode]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Signal and role of each token, padded with context, and where a sampled token has no signal."""
    longest = max(len(episode.ids) for episode in episodes)
    shape = (len(episodes), longest)
    signal_BT = torch.zeros(shape, dtype=torch.float64)
    roles_BT = torch.zeros(shape, dtype=torch.int8)
    for row, episode in enumerate(episodes):
        values = [math.nan if value is None else value for value in episode.figures["signal"]]
        signal_BT[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
        # What nobody knows the role of counts in no scope.
        roles = [role if role in range(len(Role)) else 0 for role in episode.roles]
        roles_BT[row, : len(roles)] = torch.tensor(roles, dtype=torch.int8)
    return signal_BT, roles_BT, signal_BT.isnan() & (roles_BT != Role.CONTEXT)
