"""The method: roles, signals, weights, objective, diagnosis. Imports nothing of ours."""

from actfocus.focus.bottleneck import Bottleneck, bottleneck
from actfocus.focus.objective import PolicyStatistics, kl_penalty, policy_loss
from actfocus.focus.roles import SAMPLED_ROLES, Role, token_roles
from actfocus.focus.signals import (
    REFERENCE_SIGNALS,
    SignalName,
    TokenScores,
    score_hidden,
    score_logits,
    token_energy,
    token_entropy,
    token_nll,
    token_shift,
    token_signal,
)
from actfocus.focus.weights import token_weights

__all__ = [
    "REFERENCE_SIGNALS",
    "SAMPLED_ROLES",
    "Bottleneck",
    "PolicyStatistics",
    "Role",
    "SignalName",
    "TokenScores",
    "bottleneck",
    "kl_penalty",
    "policy_loss",
    "score_hidden",
    "score_logits",
    "token_energy",
    "token_entropy",
    "token_nll",
    "token_roles",
    "token_shift",
    "token_signal",
    "token_weights",
]
