"""Updates: the mini-batches of one step, each with its losses, its gradient and one move of Adam.

Legend: B trajectories, T tokens, N sampled tokens of a micro-batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int

from actfocus.algorithms import Algorithm
from actfocus.config import Config
from actfocus.distributed import Processes
from actfocus.errors import NonFiniteError
from actfocus.focus import SAMPLED_ROLES, PolicyStatistics, kl_penalty, policy_loss
from actfocus.models.critic import Critic
from actfocus.models.language_model import LanguageModel
from actfocus.rollout.batch import Batch
from actfocus.rollout.seeds import Stream, derive_seed
from actfocus.training.scoring import micro_batches


def learning_rate_factor(config: Config, step: int) -> float:
    """What the learning rate is multiplied with in step 1, 2, …: a linear rise, then the schedule."""
    warmup, last = config.optimizer.warmup_steps, config.steps
    if step <= warmup:
        return step / (warmup + 1)
    progress = (step - warmup - 1) / max(1, last - warmup)
    if config.optimizer.schedule == "linear":
        return 1 - progress
    if config.optimizer.schedule == "cosine":
        return 0.5 * (1 + float(np.cos(np.pi * progress)))
    return 1.0


@dataclass
class Tally:
    """Sums over micro-batches (and ranks), of which the step's metrics are made."""

    sums: dict[str, float] = field(default_factory=dict)

    def add(self, **figures: float | torch.Tensor) -> None:
        """Add figures to their sums."""
        for name, figure in figures.items():
            value = figure.item() if isinstance(figure, torch.Tensor) else figure
            self.sums[name] = self.sums.get(name, 0.0) + value


class Updater:
    """Moves policy and critic on a scored and weighted batch."""

    def __init__(
        self,
        config: Config,
        processes: Processes,
        algorithm: Algorithm,
        policy: LanguageModel,
        critic: Critic | None,
    ) -> None:
        self._config, self._processes, self._algorithm = config, processes, algorithm
        self._policy, self._critic = policy, critic
        self._policy_parameters = policy.parameters()
        self._critic_parameters = critic.trained_parameters() if critic is not None else []
        groups = [{"params": self._policy_parameters, "initial_lr": config.optimizer.lr}]
        if critic is not None:
            groups.append({"params": self._critic_parameters, "initial_lr": config.algorithm.critic_lr})
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=config.optimizer.lr,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
        )

    def update(self, batch: Batch, step: int) -> dict[str, float]:
        """All epochs and mini-batches of one step.

        Returns:
            The step's metrics of losses, ratios and gradients.

        Raises:
            NonFiniteError: Before the optimiser moves, if a loss or a gradient is not finite.
        """
        factor = learning_rate_factor(self._config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        tally = Tally()
        assert batch.old_logprobs_BT is not None
        # Each rank fills in its own rows. A mini-batch that is skipped leaves the ratio at 1.
        rows_B = torch.arange(len(batch), device=batch.roles_BT.device)
        is_own_B = rows_B % self._processes.count == self._processes.rank
        batch.ratio_BT = (batch.sampled_BT & is_own_B[:, None]).to(batch.old_logprobs_BT.dtype)
        for rows in self._mini_batches(len(batch), step):
            self._update_on(batch, rows, tally)
        batch.ratio_BT = self._processes.sum(batch.ratio_BT)
        return self._metrics(tally) | {"lr": self.optimizer.param_groups[0]["lr"]}

    @torch.no_grad()
    def require_healthy(self, batch: Batch) -> None:
        """Refuse weights that a finite but far too wide update has broken. Raises `NonFiniteError`."""
        part = batch.rows([0])
        scores = self._policy.token_scores(part.ids_BT, part.sampled_BT)
        figures = {"the policy's log-probabilities": scores.logprobs}
        if self._critic is not None:
            figures["the critic's values"] = self._critic(part.ids_BT, part.sampled_BT)
        for name, figures_N in figures.items():
            if not figures_N.isfinite().all():
                raise NonFiniteError(f"{name} not finite")

    def _mini_batches(self, count: int, step: int) -> Iterator[list[int]]:
        """Rows of each mini-batch: a new random order in each epoch, the same on every rank."""
        rng = np.random.default_rng(derive_seed(Stream.MINI_BATCHES, self._config.seed, step))
        size = self._config.optimizer.mini_batch
        for _ in range(self._config.optimizer.epochs):
            order = rng.permutation(count).tolist()
            for start in range(0, count, size):
                yield sorted(order[start : start + size])

    def _update_on(self, batch: Batch, rows: list[int], tally: Tally) -> None:
        """One optimiser step. Normalisers are those of the whole mini-batch, so no split changes it."""
        assert batch.weights_BT is not None
        total_weight = float(batch.weights_BT[rows].double().sum())
        total_tokens = float(batch.sampled_BT[rows].sum())
        if total_weight == 0:
            tally.add(skipped_updates=1)
            return
        self.optimizer.zero_grad()
        local = Tally()
        own_rows = [row for row in rows if row % self._processes.count == self._processes.rank]
        for micro in micro_batches(batch, own_rows, self._config.optimizer.micro_batch):
            part = batch.rows(micro)
            self._loss(part, total_weight, total_tokens, local).backward()
            assert batch.ratio_BT is not None and part.ratio_BT is not None
            batch.ratio_BT[micro, : part.ratio_BT.shape[1]] = part.ratio_BT
        self._move(local, tally)

    def _loss(self, part: Batch, total_weight: float, total_tokens: float, tally: Tally) -> torch.Tensor:
        """This micro-batch's part of the mini-batch's loss, policy and critic; fills in its `ratio_BT`."""
        settings = self._config.algorithm
        sampled_BT = part.sampled_BT
        assert part.old_logprobs_BT is not None and part.advantages_BT is not None
        assert part.weights_BT is not None
        scores = self._policy.token_scores(part.ids_BT, sampled_BT)
        loss, statistics = policy_loss(
            scores.logprobs,
            part.old_logprobs_BT[sampled_BT],
            part.advantages_BT[sampled_BT],
            part.weights_BT[sampled_BT],
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
            normalizer=total_weight,
        )
        entropy = scores.entropy.sum() / total_tokens
        assert part.ratio_BT is not None
        # Not that of the statistics, which is 1 where the weight is 0.
        part.ratio_BT[sampled_BT] = (scores.logprobs.detach() - part.old_logprobs_BT[sampled_BT]).exp()
        tally.add(policy_loss=loss, entropy=entropy, weight=part.weights_BT.sum())
        tally.add(**sums_per_role(statistics, part.roles_BT[sampled_BT]))
        loss = loss - settings.entropy_bonus * entropy
        if settings.kl_coefficient > 0:
            assert part.ref_logprobs_BT is not None
            penalty_N = kl_penalty(scores.logprobs, part.ref_logprobs_BT[sampled_BT], settings.kl_estimator)
            kl_loss = penalty_N.sum() / total_tokens
            tally.add(kl_loss=kl_loss)
            loss = loss + settings.kl_coefficient * kl_loss
        if self._critic is not None:
            values_N = self._critic(part.ids_BT, sampled_BT)
            value_loss = self._algorithm.value_loss(part, values_N, total_tokens)
            tally.add(value_loss=value_loss)
            loss = loss + value_loss
        return loss

    def _move(self, local: Tally, tally: Tally) -> None:
        """Add up the ranks, check, clip each network's gradient, move."""
        parameters = [*self._policy_parameters, *self._critic_parameters]
        self._processes.sum_gradients(parameters)
        clip = self._config.optimizer.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(self._policy_parameters, clip))
        local.add(grad_norm=norm / self._processes.count)
        if self._critic_parameters:
            critic_norm = float(torch.nn.utils.clip_grad_norm_(self._critic_parameters, clip))
            local.add(critic_grad_norm=critic_norm / self._processes.count)
        sums = self._processes.sum_figures(local.sums)
        broken = [name for name, figure in sums.items() if not np.isfinite(figure)]
        if broken:
            raise NonFiniteError(f"{', '.join(sorted(broken))} not finite")
        self.optimizer.step()
        tally.add(updates=1, **sums)

    @staticmethod
    def _metrics(tally: Tally) -> dict[str, float]:
        """Means per update, and per token where the figure is one of tokens."""
        sums = dict(tally.sums)
        updates, skipped = sums.pop("updates", 0.0), sums.pop("skipped_updates", 0.0)
        metrics = {"updates": updates, "skipped_updates": skipped}
        if not updates:
            return metrics
        weight, kl = sums.pop("weight"), sums.pop("kl")
        counts = {name: sums.pop(f"tokens{name}") for name in ["", *(f"_{role}" for role in SAMPLED_ROLES)]}
        for name, tokens in counts.items():
            clipped, ratio = sums.pop(f"clipped{name}"), sums.pop(f"ratio{name}")
            if tokens:
                metrics |= {f"clip_fraction{name}": clipped / tokens, f"ratio{name}": ratio / tokens}
        metrics |= {name: figure / updates for name, figure in sums.items()}
        tokens = max(counts[""], 1)
        return metrics | {"kl_old": kl / tokens, "weight_per_token": weight / tokens}


def sums_per_role(statistics: PolicyStatistics, roles_N: Int[torch.Tensor, " N"]) -> dict[str, torch.Tensor]:
    """Sums over the tokens of weight > 0, of all and of each role: micro-batches and ranks add up."""
    sums = {"kl": statistics.kl_BT.sum()}
    chosen = {f"_{name}": roles_N == role for name, role in SAMPLED_ROLES.items()}
    for name, chosen_N in {"": torch.ones_like(roles_N, dtype=torch.bool), **chosen}.items():
        used_N = statistics.used_BT & chosen_N
        sums[f"tokens{name}"] = used_N.sum()
        sums[f"clipped{name}"] = statistics.clipped_BT[used_N].sum()
        sums[f"ratio{name}"] = statistics.ratio_BT[used_N].sum()
    return sums
