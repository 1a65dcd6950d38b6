"""The loss once more, token by token from full logits in float64, as the method states it.

Nothing here is batched, padded, chunked or shared with the code under test: rows are read one at a time,
and a token's figures come from the logits one position before it.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from actfocus.algorithms import ALGORITHMS
from actfocus.config import Config
from actfocus.distributed import Processes
from actfocus.focus import Role
from actfocus.models.chat import Chat
from actfocus.models.critic import Critic
from actfocus.models.language_model import LanguageModel
from actfocus.models.reference import make_reference
from actfocus.rollout.batch import Batch
from actfocus.training.loop import Loop
from actfocus.training.scoring import Scorer
from actfocus.training.update import Updater

Roles = list[list[int]]


def perturb(module: torch.nn.Module, seed: int, scale: float = 0.02) -> None:
    """Move every weight a little: what an update would have done."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


class Figures:
    """What a model says of each sampled token of each row: [row][k] for its k-th sampled token."""

    def __init__(self, policy: LanguageModel, critic: Critic | None, batch: Batch) -> None:
        self.logprobs, self.energies, self.entropies, self.values = [], [], [], []
        for row, length in enumerate(batch.lengths_B.tolist()):
            ids = batch.ids_BT[row, :length]
            where = [t for t in range(length) if batch.roles_BT[row, t] != Role.CONTEXT]
            logits = policy.causal_lm(input_ids=ids[None]).logits[0]
            before = [logits[t - 1] for t in where]
            self.energies.append(-torch.stack([f.exp().sum().log() for f in before]))
            logprobs = [f - f.exp().sum().log() for f in before]
            self.logprobs.append(torch.stack([each[ids[t]] for each, t in zip(logprobs, where, strict=True)]))
            self.entropies.append(torch.stack([-(each.exp() * each).sum() for each in logprobs]))
            if critic is not None:
                hidden = critic.trunk(input_ids=ids[None]).last_hidden_state[0]
                values = [hidden[t - 1] @ critic.value.weight[0] + critic.value.bias[0] for t in where]
                self.values.append(torch.stack(values))

    def detached(self) -> "Figures":
        for name, rows in vars(self).items():
            setattr(self, name, [row.detach() for row in rows])
        return self


@dataclass
class Scene:
    """A policy (and critic) that moved between scoring and update, so that no ratio is 1."""

    config: Config
    policy: LanguageModel
    critic: Critic | None
    batch: Batch
    updater: Updater
    reference: Any
    """Figures of the reference by hand, if wanted."""
    old: Any
    """Those of policy and critic when the batch was scored."""

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [*self.policy.parameters(), *(self.critic.trained_parameters() if self.critic else [])]

    def gradients(self) -> torch.Tensor:
        """All gradients that the last update left behind."""
        return torch.cat([parameter.grad.flatten() for parameter in self.parameters])  # type: ignore[union-attr]

    def roles(self) -> Roles:
        """Roles of the sampled tokens, row by row."""
        return [[r for r in row if r != Role.CONTEXT] for row in self.batch.roles_BT.tolist()]


def set_scene(
    config: Config,
    loaded: tuple[LanguageModel, Chat],
    processes: Processes,
    batch: Batch,
    *,
    by_hand: bool = True,
) -> Scene:
    """Score and weigh the batch with the code under test, everything in float64."""
    policy, chat = loaded
    policy.model.double()
    algorithm = ALGORITHMS[config.algorithm.name](config.algorithm)
    critic = Critic(policy).double() if algorithm.uses_critic else None
    if critic is not None:
        perturb(critic, 1)
    reference = make_reference(policy)
    reference_figures = Figures(policy, None, batch).detached() if by_hand else None
    perturb(policy.model, 2)
    updater = Updater(config, processes, algorithm, policy, critic)
    scorer = Scorer(config, processes, policy, critic, reference)
    loop = Loop(config, processes, policy, chat, algorithm, scorer, updater)
    scorer.score(batch)
    batch.advantages_BT = algorithm.advantages(batch)
    batch.weights_BT = loop._weights(batch)
    old = Figures(policy, critic, batch).detached() if by_hand else None
    perturb(policy.model, 3)
    if critic is not None:
        perturb(critic, 4)
    return Scene(config, policy, critic, batch, updater, reference_figures, old)


def weights(config: Config, roles: Roles, energies: list[torch.Tensor]) -> list[list[float]]:
    """α on reasoning and in neither span; 1 + β · sigmoid of the standardised energy on actions."""
    of_actions = [
        float(e)
        for row, es in zip(roles, energies, strict=True)
        for r, e in zip(row, es, strict=True)
        if r == 2
    ]
    mean = sum(of_actions) / len(of_actions)
    deviation = math.sqrt(sum((e - mean) ** 2 for e in of_actions) / len(of_actions) + 1e-6)

    def weight(role: int, energy: float) -> float:
        if role == 2:
            return 1 + config.focus.beta / (1 + math.exp(-(energy - mean) / deviation))
        return config.focus.alpha

    return [
        [weight(r, float(e)) for r, e in zip(row, es, strict=True)]
        for row, es in zip(roles, energies, strict=True)
    ]


def advantages(scene: Scene) -> list[list[float]]:
    """GRPO: (R − mean) / standard deviation of the group. PPO with γ = λ = 1: R − V, whitened."""
    batch, roles = scene.batch, scene.roles()
    returns = batch.returns_B.tolist()
    if scene.config.algorithm.name == "grpo":
        found = []
        for row, group in enumerate(batch.groups_B.tolist()):
            others = [r for r, g in zip(returns, batch.groups_B.tolist(), strict=True) if g == group]
            mean = sum(others) / len(others)
            deviation = math.sqrt(sum((r - mean) ** 2 for r in others) / (len(others) - 1))
            found.append([(returns[row] - mean) / (deviation + 1e-6)] * len(roles[row]))
        return found
    raw = [[r - float(v) for v in values] for r, values in zip(returns, scene.old.values, strict=True)]
    flat = [a for row in raw for a in row]
    mean = sum(flat) / len(flat)
    deviation = math.sqrt(sum((a - mean) ** 2 for a in flat) / len(flat) + 1e-8)
    return [[(a - mean) / deviation for a in row] for row in raw]


def ratios(scene: Scene, roles: Roles) -> dict[str, dict[str, float]]:
    """Mean ratio and share of clipped tokens, of all tokens (`""`) and of each role (`"_action"`, …)."""
    settings = scene.config.algorithm
    now, each_advantage = Figures(scene.policy, scene.critic, scene.batch).detached(), advantages(scene)
    found: dict[str, list[tuple[float, bool]]] = {"": [], "_reasoning": [], "_action": [], "_other": []}
    for b, row in enumerate(roles):
        for k, role in enumerate(row):
            ratio = math.exp(float(now.logprobs[b][k] - scene.old.logprobs[b][k]))
            clipped = min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high)
            advantage = each_advantage[b][k]
            figures = ratio, clipped * advantage < ratio * advantage
            found[""].append(figures)
            found[["", "_reasoning", "_action", "_other"][role]].append(figures)
    means = {}
    for name, tokens in found.items():
        clip_fraction = sum(is_clipped for _, is_clipped in tokens) / len(tokens)
        means[name] = {"ratio": sum(r for r, _ in tokens) / len(tokens), "clip_fraction": clip_fraction}
    return means


def loss_of(scene: Scene, rows: list[int], roles: Roles) -> dict[str, Any]:
    """Every term of one mini-batch's loss, and `total`, with gradient."""
    settings = scene.config.algorithm
    now = Figures(scene.policy, scene.critic, scene.batch)
    each_weight, each_advantage = weights(scene.config, roles, scene.reference.energies), advantages(scene)
    surrogate: Any = 0
    entropy: Any = 0
    kl: Any = 0
    value: Any = 0
    weight_sum, tokens = 0.0, 0
    for b in rows:
        for k in range(len(roles[b])):
            weight, advantage, tokens = each_weight[b][k], each_advantage[b][k], tokens + 1
            ratio = (now.logprobs[b][k] - scene.old.logprobs[b][k]).exp()
            clipped = min(max(ratio.item(), 1 - settings.clip_low), 1 + settings.clip_high)
            follows = ratio.item() * advantage <= clipped * advantage
            surrogate = surrogate + weight * (ratio * advantage if follows else clipped * advantage)
            weight_sum += weight
            entropy = entropy + now.entropies[b][k]
            log_ratio = scene.reference.logprobs[b][k] - now.logprobs[b][k]
            kl = kl + (-log_ratio if settings.kl_estimator == "k1" else log_ratio.exp() - 1 - log_ratio)
            if scene.critic is not None:
                new, old = now.values[b][k], scene.old.values[b][k]
                target = float(scene.batch.returns_B[b])
                moved = old + (new - old).clamp(-settings.value_clip, settings.value_clip)
                value = value + 0.5 * torch.maximum((new - target) ** 2, (moved - target) ** 2)
    terms = {
        "policy_loss": -surrogate / weight_sum,
        "entropy": entropy / tokens,
        "kl_loss": kl / tokens,
        "value_loss": value / tokens,
    }
    terms["total"] = (
        terms["policy_loss"]
        - settings.entropy_bonus * terms["entropy"]
        + settings.kl_coefficient * terms["kl_loss"]
        + terms["value_loss"]
    )
    return terms


def gradients_of(scene: Scene, total: torch.Tensor) -> torch.Tensor:
    """The gradient of a loss in all parameters, flat."""
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(total, scene.parameters)])
