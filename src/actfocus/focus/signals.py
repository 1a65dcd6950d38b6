"""Signals: one raw score per token, of which the action weights are made.

| signal  | score of token y_t in context c_t                      | drifts in training |
|---------|---------------------------------------------------------|--------------------|
| energy  | −logsumexp f_ref(c_t)                                    | no                 |
| entropy | entropy of softmax f_ref(c_t)                            | no                 |
| nll     | −log π_old(y_t)                                          | yes                |
| shift   | log π_old(y_t) − log π_ref(y_t)                          | partly             |

f_ref are the logits of the frozen reference that *predict* y_t, those at position t − 1.
Source: arXiv 2605.14558; no temperature anywhere.

Legend: B trajectories, T tokens, V vocabulary, N chosen positions, D hidden size.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch.utils.checkpoint import checkpoint

SignalName = Literal["energy", "entropy", "nll", "shift"]
REFERENCE_SIGNALS: frozenset[SignalName] = frozenset({"energy", "entropy", "shift"})
"""The signals that need a pass of the reference model."""

Head = Callable[[torch.Tensor], torch.Tensor]
"""Maps hidden states [N, D] to logits [N, V]."""


def _at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def token_energy(logits_BTV: Float[torch.Tensor, "*B V"]) -> Float[torch.Tensor, "*B"]:
    """Free energy E = −log Σ_v exp(f_v) of the logits that predict each token; higher = less certain."""
    return -_at_least_float32(logits_BTV).logsumexp(dim=-1)


def token_entropy(logits_BTV: Float[torch.Tensor, "*B V"]) -> Float[torch.Tensor, "*B"]:
    """Entropy in nats of the distribution that each token was drawn from."""
    logprobs_BTV = _at_least_float32(logits_BTV).log_softmax(dim=-1)
    # A token of probability 0 adds 0, not 0 · −inf.
    return -(logprobs_BTV.exp() * logprobs_BTV.clamp(min=torch.finfo(logprobs_BTV.dtype).min)).sum(-1)


def token_nll(old_logprobs_BT: Float[torch.Tensor, "*B"]) -> Float[torch.Tensor, "*B"]:
    """Surprise −log π_old(y_t) of each token under the policy that sampled it."""
    return -old_logprobs_BT


def token_shift(
    old_logprobs_BT: Float[torch.Tensor, "*B"], ref_logprobs_BT: Float[torch.Tensor, "*B"]
) -> Float[torch.Tensor, "*B"]:
    """How far the policy has moved from the reference: log π_old(y_t) − log π_ref(y_t)."""
    return old_logprobs_BT - ref_logprobs_BT


class TokenScores(NamedTuple):
    """What one distribution says of one token, [N] each; energy and entropy are those of the context."""

    logprobs: torch.Tensor
    energy: torch.Tensor
    entropy: torch.Tensor


def token_signal(
    name: SignalName, old_logprobs: torch.Tensor | None, reference: TokenScores | None
) -> torch.Tensor:
    """The score that a signal gives each token, of the shape of what it is made of.

    Args:
        name: The signal.
        old_logprobs: log π_old of the tokens; only `nll` and `shift` read it.
        reference: What the frozen reference says of them; `nll` does not read it.

    Raises:
        ValueError: If what the signal reads is None.
    """
    if name == "nll" and old_logprobs is not None:
        return token_nll(old_logprobs)
    if name == "energy" and reference is not None:
        return reference.energy
    if name == "entropy" and reference is not None:
        return reference.entropy
    if name == "shift" and old_logprobs is not None and reference is not None:
        return token_shift(old_logprobs, reference.logprobs)
    raise ValueError(f"the signal {name} needs a pass that was not made")


def score_logits(logits_NV: Float[torch.Tensor, "N V"], targets_N: Int[torch.Tensor, " N"]) -> TokenScores:
    """Log-probability of each target, energy and entropy, from the logits that predict it."""
    logits_NV = _at_least_float32(logits_NV)
    energy_N = token_energy(logits_NV)
    logprobs_N = logits_NV.gather(-1, targets_N[:, None]).squeeze(-1) + energy_N
    return TokenScores(logprobs_N, energy_N, token_entropy(logits_NV))


def score_hidden(
    hidden_ND: Float[torch.Tensor, "N D"],
    head: Head,
    targets_N: Int[torch.Tensor, " N"],
    *,
    chunk: int = 1024,
) -> TokenScores:
    """`score_logits` of `head(hidden)`, `chunk` rows at a time.

    Logits are the largest tensor of a language model (V is 50 to 150 thousand), so no more than
    [chunk, V] of them ever exist: choose the positions first, then score them. With gradients, each
    chunk's logits are computed again in the backward pass instead of being kept.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")

    def score(hidden_CD: torch.Tensor, targets_C: torch.Tensor) -> TokenScores:
        return score_logits(head(hidden_CD), targets_C)

    parts = []
    for start in range(0, max(len(targets_N), 1), chunk):
        rows = slice(start, start + chunk)
        if torch.is_grad_enabled() and len(targets_N) > chunk:
            part = checkpoint(score, hidden_ND[rows], targets_N[rows], use_reentrant=False)
        else:
            part = score(hidden_ND[rows], targets_N[rows])
        parts.append(part)
    return TokenScores(*(torch.cat(column) for column in zip(*parts, strict=True)))
