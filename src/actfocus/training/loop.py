"""The training loop: rollout → advantage → weight → loss → update, once per step.

Legend: B trajectories, T tokens.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from actfocus.algorithms import Algorithm
from actfocus.config import Config
from actfocus.distributed import Processes
from actfocus.envs import configured_env
from actfocus.errors import NonFiniteError
from actfocus.focus import SAMPLED_ROLES, Role, token_weights
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.report.progress import SilentProgress
from actfocus.rollout.batch import Batch, collate, keep_varied_groups
from actfocus.rollout.sampler import BrokenSampling, Limits, sample_episodes
from actfocus.rollout.seeds import training_starts
from actfocus.rollout.trajectory import Trajectory, mean_figures
from actfocus.training.gradients import gradient_share
from actfocus.training.scoring import Scorer
from actfocus.training.update import Updater

RECORDED = (
    *("old_logprobs", "ref_logprobs", "entropy", "signal", "values"),
    *("advantages", "weights", "ratio"),
)
"""Figures of a batch that are recorded, token by token; those that it has."""
MEASURED_GROUPS = 4
"""Groups whose gradients are measured, at most: it costs four to five times an update of theirs."""


class Stopwatch:
    """Seconds spent in each part of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time what happens inside `with`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = time.perf_counter() - start


class Step:
    """What one step leaves behind, also when it breaks off half-way."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.episodes: list[Trajectory] = []
        self.kept: list[Trajectory] = []
        self.batch: Batch | None = None
        self.metrics: dict[str, Any] = {}
        self.watch = Stopwatch()

    def records(self) -> Iterator[dict[str, Any]]:
        """Every episode with all that is known of its tokens, for `episodes/`."""
        row_of = {id(trajectory): row for row, trajectory in enumerate(self.kept)}
        for trajectory in self.episodes:
            record = trajectory.to_json() | {"return": trajectory.total_return}
            if self.batch is not None and id(trajectory) in row_of:
                record |= self._figures(row_of[id(trajectory)], len(trajectory.ids))
            yield record

    def _figures(self, row: int, length: int) -> dict[str, list[float]]:
        tensors = {name: getattr(self.batch, f"{name}_BT") for name in RECORDED}
        return {name: t[row, :length].tolist() for name, t in tensors.items() if t is not None}


class Loop:
    """Runs single steps; knows nothing of files, checkpoints or how many steps there are."""

    def __init__(
        self,
        config: Config,
        processes: Processes,
        policy: LanguageModel,
        chat: Chat,
        algorithm: Algorithm,
        scorer: Scorer,
        updater: Updater,
    ) -> None:
        self._config, self._processes = config, processes
        self._policy, self._chat = policy, chat
        self._algorithm, self._scorer, self._updater = algorithm, scorer, updater

    def run(self, step: Step) -> None:
        """One step, recorded in `step` as far as it comes.

        Raises:
            NonFiniteError: If a reward, log-probability, value, signal, loss or gradient is not finite; the
                update that it would have gone into has not been made.
            GameError: If a game of the user's own raises.
        """
        with step.watch("rollout"):
            self._rollout(step)
            step.kept = keep_varied_groups(step.episodes, self._config.kept_groups)
            step.batch = collate(step.kept, self._processes.device)
        with step.watch("score"):
            self._scorer.score(step.batch)
            _require_finite(step.batch)
        step.batch.advantages_BT = self._algorithm.advantages(step.batch)
        step.batch.weights_BT = self._weights(step.batch)
        measured = {}
        every = self._config.gradients_every
        if every and (step.number == 1 or step.number % every == 0):
            with step.watch("gradients"):
                measured = self._gradient_share(step.batch)
        with step.watch("update"):
            updates = self._updater.update(step.batch, step.number)
        step.metrics = rollout_metrics(step.episodes) | batch_metrics(step.batch) | measured | updates

    def _rollout(self, step: Step) -> None:
        settings, env = self._config.rollout, self._config.env
        starts = training_starts(self._config.seed, step.number, settings.prompts, settings.group)
        # Whole groups go to one rank: their first prompt is computed once.
        groups = [starts[i : i + settings.group] for i in range(0, len(starts), settings.group)]
        own = [start for group in self._processes.share(groups) for start in group]
        records: list[Trajectory] = []
        broken: BrokenSampling | None = None
        with self._processes.together():
            try:
                records = sample_episodes(
                    self._policy,
                    self._chat,
                    lambda: configured_env(env),
                    own,
                    limits=Limits(settings.context, settings.response),
                )
            except BrokenSampling as error:
                # Raised below: first the episodes of all ranks are put together, for `failed/`.
                records, broken = error.records, error
        step.episodes = sorted(self._processes.gather(records), key=lambda record: record.start)
        with self._processes.together():
            if broken is not None:
                raise broken
        # Of all episodes, for all are in the metrics; and a game may have a `step` of its own.
        if not all(math.isfinite(record.total_return) for record in step.episodes):
            raise NonFiniteError("rewards not finite")

    def _weights(self, batch: Batch) -> torch.Tensor:
        focus = self._config.focus
        return token_weights(
            batch.roles_BT,
            batch.signal_BT,
            alpha=focus.alpha,
            beta=focus.beta,
            other_weight=focus.other_weight,
        )

    def _gradient_share(self, batch: Batch) -> dict[str, Any]:
        """How the policy gradient of this step divides among the roles, before and after weighting."""
        assert batch.advantages_BT is not None and batch.weights_BT is not None
        share = gradient_share(
            self._policy,
            batch,
            batch.advantages_BT,
            batch.weights_BT,
            micro_batch=self._config.optimizer.micro_batch,
            most_groups=MEASURED_GROUPS,
            progress=SilentProgress(),
        )
        shares = None if share is None else share.shares()
        return {} if shares is None else {"gradient_share": shares}


def _require_finite(batch: Batch) -> None:
    """Refuse figures that would poison every weight of the model."""
    sampled_BT = batch.sampled_BT
    figures = {
        "the policy's log-probabilities": batch.old_logprobs_BT,
        "the reference's log-probabilities": batch.ref_logprobs_BT,
        "the reference's energy": batch.energy_BT,
        "the critic's values": batch.values_BT,
    }
    for name, tensor in figures.items():
        if tensor is None:
            continue
        if not tensor[sampled_BT].isfinite().all():
            raise NonFiniteError(f"{name} not finite")
    is_action_BT = batch.roles_BT == Role.ACTION
    if batch.signal_BT is not None and not batch.signal_BT[is_action_BT].isfinite().all():
        raise NonFiniteError("the signal of action tokens not finite")


def rollout_metrics(episodes: Sequence[Trajectory]) -> dict[str, float]:
    """Figures of all episodes of a step, kept or not."""
    returns = torch.tensor([episode.total_return for episode in episodes], dtype=torch.float64)
    problems = [problem is not None for episode in episodes for problem in episode.problems]
    roles = torch.tensor([role for episode in episodes for role in episode.roles], dtype=torch.int8)
    sampled = int((roles != Role.CONTEXT).sum())
    return {
        **mean_figures(episodes),  # first: the game's own names give way to ours
        "return": float(returns.mean()),
        "return_std": float(returns.std(correction=0)),
        "success": sum(episode.success for episode in episodes) / len(episodes),
        "turns": sum(len(episode.rewards) for episode in episodes) / len(episodes),
        "problem_share": sum(problems) / max(1, len(problems)),
        "tokens": len(roles),
        "sampled_tokens": sampled,
        "reply_tokens": sampled / max(1, len(problems)),
        "reasoning_share": int((roles == Role.REASONING).sum()) / max(1, sampled),
        "action_share": int((roles == Role.ACTION).sum()) / max(1, sampled),
        "cut_by_context": sum(episode.ended == "context" for episode in episodes),
    }


def batch_metrics(batch: Batch) -> dict[str, float]:
    """Figures of the trajectories that the step trains on."""
    sampled_BT = batch.sampled_BT
    assert batch.old_logprobs_BT is not None and batch.weights_BT is not None
    assert batch.advantages_BT is not None
    difference = (batch.old_logprobs_BT - batch.sampler_logprobs_BT)[sampled_BT].abs()
    actions_N = batch.weights_BT[batch.roles_BT == Role.ACTION]
    metrics = {
        "trained_episodes": float(len(batch)),
        "trained_return_std": float(batch.returns_B.double().std(correction=0)),
        "sampler_trainer_difference": float(difference.max()) if len(difference) else 0.0,
        "action_weight": float(actions_N.double().mean()) if len(actions_N) else 0.0,
    }
    weights_N = batch.weights_BT[sampled_BT].double()
    if len(weights_N) > 1 and weights_N.any():
        # 1: all sampled tokens weigh the same; near 0: a few have it all.
        even = math.log(len(weights_N))
        metrics["weight_entropy"] = float(torch.special.entr(weights_N / weights_N.sum()).sum()) / even
    for name, role in SAMPLED_ROLES.items():
        chosen_BT = batch.roles_BT == role
        if batch.energy_BT is not None and chosen_BT.any():
            metrics[f"energy_{name}"] = float(batch.energy_BT[chosen_BT].double().mean())
    if batch.signal_BT is not None and len(actions_N):
        metrics["action_signal"] = float(batch.signal_BT[batch.roles_BT == Role.ACTION].double().mean())
    return metrics
