"""verl's trainer with token weights: a mixin around `PPOTrainer._compute_advantage`, for PPO and GRPO alike.

Once verl has computed a step's advantages, the queue holds everything: the spans that the agent loop put into
`extra_fields`, the masks, the log-probabilities, and the reference's signal. The weighted advantages take the
place of the plain ones; nothing else of verl changes.

Legend: B rows, R tokens of the longest response, S tokens of prompt and response.
"""

import logging
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested, response_to_nested

from actfocus.errors import ConfigError
from actfocus.focus import Role, token_nll, token_shift
from actfocus.integrations.verl.reference import ASKED, ROLES, SIGNAL, ActFocusWorker
from actfocus.integrations.verl.settings import (
    SECTION,
    needs_engine,
    needs_reference,
    read_focus,
    refuse_unsuitable,
)
from actfocus.integrations.verl.spans import response_roles
from actfocus.integrations.verl.weighting import weigh

WEIGHTS = "focus_weights"
"""Field of the queue: the weight of each response token, [B, R]."""

_READ = (
    *("extra_fields", "response_mask", "loss_mask", "advantages", "old_log_probs", "ref_log_prob"),
    SIGNAL,
)

_log = logging.getLogger(__name__)

_Base: Any = object
"""What the mixin stands before, for the type checker: whatever that has."""


class FocusedAdvantages(_Base):
    """Mixin to stand before a `PPOTrainer` of verl's. Metrics gain `focus/…`."""

    def __init__(self, config: DictConfig) -> None:
        """Read the settings, and make verl's trainer.

        Raises:
            ConfigError: If a setting is wrong or does not suit.
        """
        self._focus = read_focus(config)
        refuse_unsuitable(config, self._focus)
        super().__init__(config)
        if needs_reference(self._focus) and not self.use_reference_policy:
            raise ConfigError(
                f"{SECTION}.signal={self._focus.signal} needs verl's reference worker: set"
                " actor_rollout_ref.actor.use_kl_loss=True (kl_loss_coef=0 leaves the loss as it is), or"
                f" {SECTION}.signal=nll"
            )
        self._all_weightless = False
        self._warned_of_no_action = False

    def _init_resource_pool_mgr(self) -> None:
        """Take verl's workers, or ours where the reference has to make the signal."""
        super()._init_resource_pool_mgr()
        if needs_engine(self._focus):
            for role in self.role_worker_mapping:
                if role.name != "Critic":
                    self.role_worker_mapping[role] = ray.remote(ActFocusWorker)

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Tell the reference where the actions are, and let verl make its pass."""
        if needs_engine(self._focus):
            data = _get(batch, "extra_fields", "response_mask")
            roles = torch.nested.as_nested_tensor(_roles(batch, data), layout=torch.jagged)
            batch.fields = _put(batch, {ROLES: roles}).fields
            batch.extra_info[ASKED] = self._focus.signal
        scored = super()._compute_ref_log_prob(batch, metrics)
        # The critic is sent the same batch. It is not asked for a signal, and has no adapters to switch off:
        # verl 0.9.1 leaves that order in the batch, so that PPO with LoRA and a reference breaks off.
        for order in (ASKED, "no_lora_adapter"):
            scored.extra_info.pop(order, None)
        return scored

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Weigh the advantages that verl computes; the returns stay as they are."""
        batch = super()._compute_advantage(batch, metrics)
        if self.config.trainer.critic_warmup > self.global_steps:
            return batch  # this step trains the critic alone
        data = _get(batch, *_READ)
        mini_batches = self._mini_batches(len(batch))
        # Not the roles of the reference's pass: verl's rejection may have masked tokens since.
        roles_BR = torch.nn.utils.rnn.pad_sequence(_roles(batch, data), batch_first=True)
        weighted = weigh(
            _padded(data["advantages"]),
            roles_BR,
            self._signal(data),
            _padded(data["loss_mask"]),
            mini_batches,
            self._focus,
        )
        metrics.update(weighted.metrics)
        if not (roles_BR == Role.ACTION).any():
            self._warn_of_no_action()
        self._all_weightless = weighted.metrics["focus/weightless_updates"] == len(mini_batches)
        mask = data["response_mask"]
        fields = {"advantages": weighted.advantages_BR, WEIGHTS: weighted.weights_BR}
        return _put(batch, {name: response_to_nested(value, mask) for name, value in fields.items()})

    def _warn_of_no_action(self) -> None:
        """Once: without an action all weights are alike, and nothing else would show that."""
        if self._warned_of_no_action or self._focus.is_uniform:  # as was asked for
            return
        self._warned_of_no_action = True
        _log.warning(
            "[actfocus] step %d has no action token: all of its tokens weigh alike (unless other_weight is"
            " set), so that it is trained as in plain verl, or not at all where alpha = 0. If"
            " focus/action_share stays at 0, the agent loop finds no action in what this model writes: look"
            " at replies (trainer.rollout_data_dir keeps them) and at 'Your own data' in docs/verl.md",
            self.global_steps,
        )

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Let verl update, unless no token of the step has a weight."""
        if self._all_weightless:
            return batch
        return super()._update_actor(batch, metrics)

    def _signal(self, data: TensorDict) -> torch.Tensor | None:
        """The raw score [B, R] of every token that has one."""
        if self._focus.beta == 0:
            return None
        if self._focus.signal == "nll":
            return token_nll(_padded(data["old_log_probs"]))
        if self._focus.signal == "shift":
            return token_shift(_padded(data["old_log_probs"]), _padded(data["ref_log_prob"]))
        if SIGNAL not in data:
            raise ConfigError(
                f"the reference worker returned no {self._focus.signal}: set {SECTION}.signal=shift or nll"
            )
        return _padded(response_from_nested(data[SIGNAL], data["response_mask"]))

    def _mini_batches(self, count: int) -> list[list[int]]:
        """The rows of each optimiser step that verl's actor is about to make, by verl's own splitting."""
        actor = self.config.actor_rollout_ref.actor
        dp_size = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
        size = actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n
        share = count // dp_size
        parts = [
            tu.make_iterator(
                TensorDict({"row": torch.arange(rank * share, (rank + 1) * share)}, batch_size=share),
                mini_batch_size=size // dp_size,
                epochs=1,
                seed=actor.data_loader_seed + rank,
                dataloader_kwargs={"shuffle": actor.shuffle},
            )
            for rank in range(dp_size)
        ]
        return [[row for part in step for row in part["row"].tolist()] for step in zip(*parts, strict=True)]


class ActFocusTrainer(FocusedAdvantages, PPOTrainerSync):  # type: ignore[misc, unused-ignore]
    """verl's synchronous trainer with ActFocus on."""


def _get(batch: KVBatchMeta, *fields: str) -> TensorDict:
    """Those of the fields that the queue has."""
    data: TensorDict = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields)
    )
    return data


def _put(batch: KVBatchMeta, fields: dict[str, torch.Tensor]) -> KVBatchMeta:
    return tq.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
    )


def _padded(nested: torch.Tensor) -> torch.Tensor:
    return torch.nested.to_padded_tensor(nested, 0.0) if nested.is_nested else nested


def _roles(batch: KVBatchMeta, data: TensorDict) -> list[torch.Tensor]:
    """The roles of each row's response; rows that verl pads the batch with have none."""
    found = data.get("extra_fields")
    if found is None:
        extra_fields = [None] * len(batch)
    else:  # a list or a stack, as the queue's storage has it
        extra_fields = found.tolist() if hasattr(found, "tolist") else list(found)
    masks = data["response_mask"].unbind()
    return [
        torch.full((len(mask_R),), Role.CONTEXT, dtype=torch.int8)
        if tag.get("is_padding", False)
        else response_roles(extra, mask_R, row=key)
        for key, tag, extra, mask_R in zip(batch.keys, batch.tags, extra_fields, masks, strict=True)
    ]
