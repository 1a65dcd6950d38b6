"""The four signals of given tokens, and a check of what energy is worth for this model.

Legend: B trajectories, T tokens, N chosen tokens, K contexts, D hidden size, V vocabulary.
"""

import math
from typing import get_args

import torch

from actfocus.diagnosis.agent import Agent
from actfocus.errors import NonFiniteError
from actfocus.focus import (
    Role,
    SignalName,
    token_energy,
    token_entropy,
    token_signal,
)
from actfocus.focus.bottleneck import spearman
from actfocus.models.language_model import predecessors
from actfocus.report.progress import Progress
from actfocus.rollout.batch import Batch
from actfocus.training.scoring import micro_batches

SIGNALS: tuple[SignalName, ...] = get_args(SignalName)
CHECKED_CONTEXTS = 64
"""Contexts of action tokens whose logits are moved."""
CONSTANT = 1.0
"""What is added to them, in nats."""


@torch.no_grad()
def token_signals(
    agent: Agent, batch: Batch, *, recorded: bool, micro_batch: int, progress: Progress
) -> dict[SignalName, torch.Tensor]:
    """Energy, entropy, nll and shift [B, T] of the sampled tokens, 0 elsewhere; on the CPU, float32 or more.

    Energy and entropy are the reference's, nll the policy's, shift that of the two; none has a temperature.

    Args:
        agent: Policy and reference.
        batch: What was written, on the device of both.
        recorded: Take log π_old from the record (`sampler_logprobs_BT`) and not from the policy.
        micro_batch: Trajectories per forward pass.
        progress: Hears of each pass.

    Raises:
        NonFiniteError: If a signal of a sampled token is not finite.
    """
    signals: dict[SignalName, torch.Tensor] = {}
    portions = list(micro_batches(batch, range(len(batch)), micro_batch))
    progress.begin("scoring", len(portions))
    for rows in portions:
        part = batch.rows(rows)
        sampled_BT = part.sampled_BT
        with agent.frozen() as reference:
            frozen = reference.token_scores(part.ids_BT, sampled_BT)
        if recorded:
            old_N = part.sampler_logprobs_BT[sampled_BT].to(frozen.logprobs.dtype)
        elif agent.is_reference:
            old_N = frozen.logprobs
        else:
            old_N = agent.policy.token_scores(part.ids_BT, sampled_BT).logprobs
        for name in SIGNALS:
            figures_N = token_signal(name, old_N, frozen)
            if name not in signals:
                signals[name] = torch.zeros(batch.ids_BT.shape, dtype=figures_N.dtype)
            padded = torch.zeros(sampled_BT.shape, dtype=figures_N.dtype)
            padded[sampled_BT.cpu()] = figures_N.cpu()
            signals[name][rows, : padded.shape[1]] = padded
        progress.advance({"episodes": float(len(rows))})
    for name, signal_BT in signals.items():
        if not signal_BT.isfinite().all():
            raise NonFiniteError(f"the signal {name} is not finite at some sampled token: check the weights")
    return signals


@torch.no_grad()
def signal_check(agent: Agent, batch: Batch, signals: dict[SignalName, torch.Tensor]) -> dict[str, float]:
    """What a constant added to all logits of one context does, and how alike energy and entropy rank actions.

    Such a constant changes no probability: entropy must not move, but energy moves by just that much. So
    energy means something only as far as training has tied the level of a model's logits down; where it
    ranks action tokens as entropy does, it says no less.

    Returns:
        `constant` (nats added); `energy_moved`, `entropy_moved`: the largest change at up to
        `CHECKED_CONTEXTS` action tokens of one trajectory, in nats; `energy_sd`: standard deviation of the
        energy over all action tokens, in nats; `energy_moved_in_sd`; `energy_entropy_rho`: Spearman's ρ of
        the two over all action tokens; `action_tokens`. NaN without action tokens.
    """
    is_action_BT = batch.roles_BT.cpu() == Role.ACTION
    energy_N, entropy_N = signals["energy"][is_action_BT], signals["entropy"][is_action_BT]
    count = len(energy_N)
    moved = _move_logits(agent, batch) if count else (math.nan, math.nan)
    spread = float(energy_N.double().std(correction=0)) if count else math.nan
    rho, _ = spearman(energy_N.tolist(), entropy_N.tolist())
    return {
        "constant": CONSTANT,
        "energy_moved": moved[0],
        "entropy_moved": moved[1],
        "energy_sd": spread,
        "energy_moved_in_sd": moved[0] / spread if spread else math.nan,
        "energy_entropy_rho": rho,
        "action_tokens": float(count),
    }


def _move_logits(agent: Agent, batch: Batch) -> tuple[float, float]:
    is_action_BT = batch.roles_BT == Role.ACTION
    row = int(is_action_BT.sum(1).argmax())
    part = batch.rows([row])
    chosen_BT = part.roles_BT == Role.ACTION
    with agent.frozen() as reference:
        hidden_KD = predecessors(reference.hidden(part.ids_BT), chosen_BT)[:CHECKED_CONTEXTS]
        logits_KV = reference.head(hidden_KD)
    logits_KV = logits_KV if logits_KV.dtype == torch.float64 else logits_KV.float()
    moved_KV = logits_KV + CONSTANT
    energy_K = token_energy(moved_KV) - token_energy(logits_KV)
    entropy_K = token_entropy(moved_KV) - token_entropy(logits_KV)
    return float(energy_K.abs().max()), float(entropy_K.abs().max())
