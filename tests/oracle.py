"""What ActFocus computes, written down a second time: slowly, plainly, and on its own.

Plain loops over float64 numbers, one token after the other, no tensor operation that could share a mistake
with the implementation. Nothing here imports `actfocus`; roles are the bare numbers below. The formulas are
those of He et al., "Resolving Action Bottleneck" (the paper, arXiv 2605.14558); "ours" marks a choice that
the paper leaves open. Shapes by suffix: B trajectories, T tokens, V vocabulary.

`random_batch` at the end makes the ragged batches that the tests feed to both sides.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

CONTEXT, REASONING, ACTION, OTHER = range(4)


# Roles ---------------------------------------------------------------------------------------------------


def roles(offsets, spans, sampled):
    """Ours: what the policy did not sample is CONTEXT; of what it did, a token with at least one character
    in an action span is ACTION, else one with at least one in a reasoning span is REASONING, else OTHER.
    Looked up character by character."""
    found = []
    for (start, end), is_sampled in zip(offsets, sampled, strict=True):
        touched = set()
        for character in range(start, end):
            for span_start, span_end, role in spans:
                if span_start <= character < span_end:
                    touched.add(int(role))
        if not is_sampled:
            found.append(CONTEXT)
        elif ACTION in touched:
            found.append(ACTION)
        elif REASONING in touched:
            found.append(REASONING)
        else:
            found.append(OTHER)
    return found


# Signals -------------------------------------------------------------------------------------------------


def log_sum_exp(row_V):
    """log Σ_v exp(f_v), the largest logit taken out so that exp cannot overflow."""
    largest = max(float(f) for f in row_V)
    return largest + math.log(math.fsum(math.exp(float(f) - largest) for f in row_V))


def energy(logits_BTV):
    """The paper's token energy: E_t = − log Σ_v exp(f_t,v), without temperature."""
    energies_BT = np.zeros(logits_BTV.shape[:2])
    for b, t in np.ndindex(*energies_BT.shape):
        energies_BT[b, t] = -log_sum_exp(logits_BTV[b, t])
    return energies_BT


def entropy(logits_BTV):
    """The alternative signal "entropy": H_t = − Σ_v p_v log p_v with p = softmax(f_t)."""
    entropies_BT = np.zeros(logits_BTV.shape[:2])
    for b, t in np.ndindex(*entropies_BT.shape):
        total = log_sum_exp(logits_BTV[b, t])
        log_p_V = [float(f) - total for f in logits_BTV[b, t]]
        entropies_BT[b, t] = -math.fsum(math.exp(log_p) * log_p for log_p in log_p_V)
    return entropies_BT


def log_probability(row_V, target):
    """log softmax(f)_target."""
    return float(row_V[target]) - log_sum_exp(row_V)


# Weights -------------------------------------------------------------------------------------------------


def sigmoid(x):
    """1 / (1 + exp(−x)), without overflow on either side."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


def weights(roles_BT, signal_BT, *, alpha, beta, other_weight=None, eps=1e-6):
    """The paper's token weights: α in a reasoning span, 1 + β · sigmoid((E − μ) / σ) in an action span.

    μ and σ over all action tokens of the batch, σ = sqrt(population variance + ε). Ours: ε = 1e-6, a sampled
    token outside both spans weighs `other_weight` (default α), a token that was not sampled weighs 0.
    """
    action_signals = []
    for b, t in np.ndindex(*roles_BT.shape):
        if roles_BT[b, t] == ACTION and beta > 0:
            action_signals.append(float(signal_BT[b, t]))
    if action_signals:
        mean = math.fsum(action_signals) / len(action_signals)
        variance = math.fsum((s - mean) ** 2 for s in action_signals) / len(action_signals)
        deviation = math.sqrt(variance + eps)
    weights_BT = np.zeros(roles_BT.shape)
    for b, t in np.ndindex(*roles_BT.shape):
        role = roles_BT[b, t]
        if role == REASONING:
            weights_BT[b, t] = alpha
        elif role == ACTION:
            weights_BT[b, t] = 1.0
            if beta > 0:
                weights_BT[b, t] += beta * sigmoid((float(signal_BT[b, t]) - mean) / deviation)
        elif role == OTHER:
            weights_BT[b, t] = alpha if other_weight is None else other_weight
    return weights_BT


# Objective -----------------------------------------------------------------------------------------------


def policy_loss(
    logprobs_BT, old_logprobs_BT, advantages_BT, weights_BT, *, clip_low, clip_high, normalizer=None
):
    """The paper's objective, L = − (1 / Σw) Σ w · min(ρA, clip(ρ, 1 − ε_low, 1 + ε_high) A), and ∂L/∂log π.

    ρ = π / π_old, so ∂ρ/∂log π = ρ; where the clipped product is the smaller one, the gradient is 0. Ours: a
    token of weight 0 is not looked at, and the loss is 0 when every weight is.
    """
    if normalizer is None:
        normalizer = math.fsum(float(w) for w in weights_BT.flat)
    terms, gradient_BT = [], np.zeros(weights_BT.shape)
    for b, t in np.ndindex(*weights_BT.shape):
        weight = float(weights_BT[b, t])
        if weight == 0.0:
            continue
        advantage = float(advantages_BT[b, t])
        ratio = math.exp(float(logprobs_BT[b, t]) - float(old_logprobs_BT[b, t]))
        clipped = min(max(ratio, 1.0 - clip_low), 1.0 + clip_high)
        terms.append(weight * min(ratio * advantage, clipped * advantage))
        if ratio * advantage <= clipped * advantage:
            gradient_BT[b, t] = -weight * ratio * advantage / normalizer
    return (-math.fsum(terms) / normalizer if terms else 0.0), gradient_BT


def kl_penalty(logprobs_BT, ref_logprobs_BT, kind):
    """Per token, of samples from π: k1 = log π − log π_ref; k3 = exp(−k1) − 1 + k1."""
    penalties_BT = np.zeros(logprobs_BT.shape)
    for b, t in np.ndindex(*logprobs_BT.shape):
        k1 = float(logprobs_BT[b, t]) - float(ref_logprobs_BT[b, t])
        penalties_BT[b, t] = {"k1": k1, "k3": math.expm1(-k1) + k1}[kind]
    return penalties_BT


# PPO -----------------------------------------------------------------------------------------------------


def gae(rewards_BT, values_BT, sampled_BT, *, gamma, lam):
    """Generalised advantage estimation over sampled tokens only (the paper's PPO, a token-level critic).

    With k counting the sampled tokens of a row: δ_k = r_k + γ v_{k+1} − v_k, v after the last is 0,
    A_k = Σ_l (γλ)^l δ_{k+l}, return = A + v. Both are 0 at other tokens. A sum for each token, no recursion.
    """
    advantages_BT, returns_BT = np.zeros(rewards_BT.shape), np.zeros(rewards_BT.shape)
    for b in range(rewards_BT.shape[0]):
        places = [t for t in range(rewards_BT.shape[1]) if sampled_BT[b, t]]
        deltas = []
        for k, t in enumerate(places):
            following = float(values_BT[b, places[k + 1]]) if k + 1 < len(places) else 0.0
            deltas.append(float(rewards_BT[b, t]) + gamma * following - float(values_BT[b, t]))
        for k, t in enumerate(places):
            discounted = [(gamma * lam) ** step * delta for step, delta in enumerate(deltas[k:])]
            advantages_BT[b, t] = math.fsum(discounted)
            returns_BT[b, t] = advantages_BT[b, t] + float(values_BT[b, t])
    return advantages_BT, returns_BT


def whiten(advantages_BT, sampled_BT):
    """Ours: (A − mean) / sqrt(population variance + 1e-8) over the sampled tokens, 0 elsewhere."""
    places = [place for place in np.ndindex(*sampled_BT.shape) if sampled_BT[place]]
    whitened_BT = np.zeros(sampled_BT.shape)
    if places:
        mean = math.fsum(float(advantages_BT[place]) for place in places) / len(places)
        variance = math.fsum((float(advantages_BT[place]) - mean) ** 2 for place in places) / len(places)
        for place in places:
            whitened_BT[place] = (float(advantages_BT[place]) - mean) / math.sqrt(variance + 1e-8)
    return whitened_BT


def value_loss(values_BT, old_values_BT, returns_BT, sampled_BT, *, clip, normalizer=None):
    """Half the mean over sampled tokens of max((v − R)², (clip(v, v_old − c, v_old + c) − R)²), and ∂/∂v.

    Weight 1 on every sampled token (ours): token weights do not enter here.
    """
    if normalizer is None:
        normalizer = float(sum(bool(s) for s in sampled_BT.flat))
    terms, gradient_BT = [], np.zeros(values_BT.shape)
    for b, t in np.ndindex(*values_BT.shape):
        if not sampled_BT[b, t]:
            continue
        value, old, target = (float(x[b, t]) for x in (values_BT, old_values_BT, returns_BT))
        clipped = min(max(value, old - clip), old + clip)
        terms.append(0.5 * max((value - target) ** 2, (clipped - target) ** 2))
        if (value - target) ** 2 >= (clipped - target) ** 2:
            gradient_BT[b, t] = (value - target) / normalizer
    return (math.fsum(terms) / normalizer if terms else 0.0), gradient_BT


# GRPO ----------------------------------------------------------------------------------------------------


def grpo_advantages(returns_B, groups_B, *, eps=1e-6):
    """The paper's A = (R − mean_group) / std_group. Ours: the sample deviation, plus ε; 0 in a group of 1."""
    advantages_B = np.zeros(len(returns_B))
    for b in range(len(returns_B)):
        members = [float(returns_B[c]) for c in range(len(returns_B)) if groups_B[c] == groups_B[b]]
        if len(members) > 1:
            mean = math.fsum(members) / len(members)
            deviation = math.sqrt(math.fsum((m - mean) ** 2 for m in members) / (len(members) - 1))
            advantages_B[b] = (float(returns_B[b]) - mean) / (deviation + eps)
    return advantages_B


# The diagnosis -------------------------------------------------------------------------------------------


def ranks(numbers):
    """1 for the smallest; equal numbers share the mean of their places."""
    return [
        sum(other < number for other in numbers) + (sum(other == number for other in numbers) + 1) / 2
        for number in numbers
    ]


def spearman(xs, ys):
    """Spearman's ρ: Pearson's correlation of the ranks, NaN where one side is constant."""
    rx, ry = ranks(xs), ranks(ys)
    mean_x, mean_y = sum(rx) / len(rx), sum(ry) / len(ry)
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(rx, ry, strict=True))
    spread_x = math.fsum((x - mean_x) ** 2 for x in rx)
    spread_y = math.fsum((y - mean_y) ** 2 for y in ry)
    return covariance / math.sqrt(spread_x * spread_y) if spread_x * spread_y > 0 else math.nan


def group_table(energies_BT, roles_BT, returns_B, groups_B):
    """For each group v_g = Var(R) (population) and the mean energy of its tokens in each scope.

    The paper's diagnosis; the scopes are all sampled, reasoning and action tokens, None where there is none.
    In exact fractions: equal groups must tie, whatever order their numbers come in.
    """
    scopes = {"all": {REASONING, ACTION, OTHER}, "reasoning": {REASONING}, "action": {ACTION}}
    table = []
    for group in sorted({int(g) for g in groups_B}):
        rows = [b for b in range(len(groups_B)) if groups_B[b] == group]
        returns = [Fraction(float(returns_B[b])) for b in rows]
        mean_return = sum(returns) / len(returns)
        line = {"variance": float(sum((r - mean_return) ** 2 for r in returns) / len(returns))}
        for scope, wanted in scopes.items():
            inside = [
                Fraction(float(energies_BT[b, t]))
                for b in rows
                for t in range(roles_BT.shape[1])
                if int(roles_BT[b, t]) in wanted
            ]
            line[scope] = float(sum(inside) / len(inside)) if inside else None
        table.append(line)
    return table


# Random batches ------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """One ragged batch. Float arrays hold NaN or infinity wherever nothing may look."""

    roles_BT: np.ndarray
    signal_BT: np.ndarray
    logprobs_BT: np.ndarray
    old_logprobs_BT: np.ndarray
    ref_logprobs_BT: np.ndarray
    advantages_BT: np.ndarray
    rewards_BT: np.ndarray
    values_BT: np.ndarray
    old_values_BT: np.ndarray
    returns_BT: np.ndarray
    alpha: float
    beta: float
    other_weight: float | None

    @property
    def sampled_BT(self):
        return self.roles_BT != CONTEXT


KINDS = ["mixed", "mixed", "mixed", "no action", "one action", "context rows", "all context"]


def random_batch(seed, dtype=np.float64, *, kind=None, junk=True):
    """Rows of several turns (context, reasoning, action, others), ragged at the end; `seed` picks the kind.

    With `junk`, tokens at which a number means nothing carry NaN and infinities.
    """
    rng = np.random.default_rng(seed)
    kind = kind or KINDS[seed % len(KINDS)]
    rows, length = int(rng.integers(1, 7)), int(rng.integers(1, 48))
    roles_BT = np.zeros((rows, length), dtype=np.int8)
    for b in range(rows):
        if kind == "all context" or (kind == "context rows" and b % 2):
            continue
        stop = int(rng.integers(0, length + 1))
        t = int(rng.integers(0, 4))
        without_action = kind in {"no action", "one action"} or rng.random() < 0.2
        while t < stop:
            for role in [OTHER, REASONING, OTHER, OTHER, ACTION, OTHER, CONTEXT]:
                run = int(rng.integers(0, 5))
                wanted = OTHER if role == ACTION and without_action else role
                roles_BT[b, t : min(t + run, stop)] = wanted
                t += run
    if kind == "one action":
        roles_BT[int(rng.integers(rows)), int(rng.integers(length))] = ACTION
    sampled_BT = roles_BT != CONTEXT
    shape = roles_BT.shape

    def numbers(scale, centre=0.0):
        return (centre + scale * rng.standard_normal(shape)).astype(dtype)

    def spoil(array_BT, used_BT):
        if junk:
            bad_BT = rng.choice(np.array([np.nan, np.inf, -np.inf, 1e30]), size=shape).astype(dtype)
            array_BT[~used_BT] = bad_BT[~used_BT]
        return array_BT

    old_logprobs_BT = -np.abs(numbers(1.5))
    values_BT = numbers(1.0)
    at_end_BT = np.zeros(shape, dtype=bool)
    for b in range(rows):
        if sampled_BT[b].any():
            at_end_BT[b, np.flatnonzero(sampled_BT[b])[-1]] = True
    rewards_BT = np.where(at_end_BT, numbers(1.0), 0.0 if rng.random() < 0.5 else numbers(0.1)).astype(dtype)
    return Batch(
        roles_BT=roles_BT,
        signal_BT=spoil(numbers(2.0, centre=-25.0), roles_BT == ACTION),
        # A third of the ratios leave the clip range on either side.
        logprobs_BT=spoil(old_logprobs_BT + numbers(0.25), sampled_BT),
        old_logprobs_BT=spoil(old_logprobs_BT.copy(), sampled_BT),
        ref_logprobs_BT=old_logprobs_BT + numbers(0.3),
        advantages_BT=spoil(numbers(1.0), sampled_BT),
        rewards_BT=spoil(rewards_BT, sampled_BT),
        values_BT=spoil(values_BT.copy(), sampled_BT),
        old_values_BT=spoil(values_BT + numbers(0.3), sampled_BT),
        returns_BT=spoil(numbers(1.0), sampled_BT),
        alpha=[0.1, 0.0, 1.0, float(rng.random())][int(rng.integers(4))],
        beta=[0.5, 0.0, 2.0, float(rng.random())][int(rng.integers(4))],
        other_weight=[None, 0.0, 0.3, 1.0][int(rng.integers(4))],
    )
