"""A real trainer of verl's in a real Ray actor: real workers, agent loops and queue, held in mid-step.

The actor takes a step as far as the advantages and waits; tests send it functions of the trainer and the
batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import torch
import transfer_queue as tq
from verl.trainer.ppo.v1 import AgentLoopManagerTQ

from actfocus.integrations.verl.runner import prepare
from actfocus.integrations.verl.trainer import ActFocusTrainer
from tests.verl.config import composed

_SHORT = ["data.max_prompt_length=400", "data.max_response_length=240"]
# So that the losses that verl reports are those of the policy that sampled.
_STILL = ["actor_rollout_ref.actor.optim.lr=0", "actor_rollout_ref.actor.entropy_coeff=0"]
GRPO = [
    *_SHORT,
    *_STILL,
    "algorithm.adv_estimator=grpo",
    "trainer.n_gpus_per_node=2",
    "data.train_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.actor.shuffle=True",
    "actor_rollout_ref.rollout.calculate_log_probs=True",
    "+actfocus.alpha=0.1",
    "+actfocus.beta=0.5",
]
PPO = [
    *_SHORT,
    *_STILL,
    "algorithm.adv_estimator=gae",
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "critic.ppo_mini_batch_size=4",
    "critic.optim.lr=0",
    "+actfocus.signal=nll",
    "+actfocus.other_weight=0.3",
]
# With `model.lora_adapter_path` beside it, which verl reads only where a rank is given: the actor without its
# adapters is the reference.
LORA = [
    *_SHORT,
    *_STILL,
    "algorithm.adv_estimator=gae",
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "critic.ppo_mini_batch_size=4",
    "actor_rollout_ref.model.lora_rank=4",
    "+actfocus.signal=energy",
]


class _Stage:
    def __init__(self, overrides: Sequence[str]) -> None:
        torch.set_num_threads(1)
        config = composed(*overrides)
        prepare(config)
        config.transfer_queue.enable = True
        tq.init(config.transfer_queue)
        self.trainer = ActFocusTrainer(config)
        self.trainer.init()
        self.trainer.agent_loop_manager = AgentLoopManagerTQ.create(
            config=config,
            llm_client=self.trainer.get_llm_client(),
            teacher_client=None,
            reward_loop_worker_handles=self.trainer.get_reward_handles(),
        )
        self.trainer.global_steps, self.trainer.curr_step_profile = 1, False
        self.trainer.timing_raw = {}
        self.batch, self.metrics = self._before_the_advantages(), {}

    def _before_the_advantages(self) -> Any:
        """The first steps of `PPOTrainer._step_once`."""
        trainer, metrics = self.trainer, {}
        batch = self._rollout()
        if trainer.config.actor_rollout_ref.rollout.n > 1:
            batch = batch.select_keys(batch.keys[:-1])  # an episode that failed: verl pads the batch
        batch.extra_info["temperature"] = trainer.config.actor_rollout_ref.rollout.temperature
        batch = trainer._balance_batch(batch, metrics=metrics)
        batch = trainer._compute_old_log_prob(batch, metrics=metrics)
        if trainer.use_reference_policy:
            batch = trainer._compute_ref_log_prob(batch, metrics=metrics)
        if trainer.use_critic:
            batch = trainer._compute_values(batch, metrics=metrics)
        return batch

    def _rollout(self) -> Any:
        """Episodes that differ in their returns: tiny's luck hangs on the order of the server's requests."""
        trainer = self.trainer
        for _ in range(6):
            trainer.prepare_step()
            batch, _ = trainer.replay_buffer.sample(
                global_steps=1, partition_id="train", batch_size=trainer.config.data.train_batch_size
            )
            scores: dict[str, set[float]] = {}
            for key, rm_scores in zip(batch.keys, fields_of(batch, "rm_scores")["rm_scores"], strict=True):
                group = key.rsplit("_", 2)[0] if trainer.config.actor_rollout_ref.rollout.n > 1 else ""
                scores.setdefault(group, set()).add(round(rm_scores.sum().item(), 3))
            if sum(len(each) > 1 for each in scores.values()) > len(scores) // 2:
                return batch
            tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
        raise RuntimeError("the returns of six rollouts do not differ")

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(self, *args)

    def close(self) -> None:
        tq.close()


class Stage:
    """The actor's handle."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """What `function(stage, *args)` returns in the actor."""
        return ray.get(self._actor.call.remote(function, *args))


@contextmanager
def staged(overrides: Sequence[str]) -> Iterator[Stage]:
    """On a local Ray that is told of two devices, for which nothing looks."""
    ray.init(num_cpus=16, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        actor = ray.remote(_Stage).options(num_cpus=1).remote(list(overrides))
        ray.get(actor.call.remote(_nothing))  # what goes wrong while it starts is said here
        yield Stage(actor)
        ray.get(actor.close.remote())
    finally:
        ray.shutdown()


def _nothing(stage: Any) -> None:
    return None


def fields(stage: Any, *names: str) -> dict[str, Any]:
    """Fields of the held batch, row by row; with the tags and keys of the rows."""
    return fields_of(stage.batch, *names)


def fields_of(batch: Any, *names: str) -> dict[str, Any]:
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(names))
    rows: dict[str, Any] = {"keys": batch.keys, "tags": batch.tags}
    for name in sorted(data.keys()):
        column = data[name]
        rows[name] = list(column.unbind()) if isinstance(column, torch.Tensor) else list(column)
    return rows
