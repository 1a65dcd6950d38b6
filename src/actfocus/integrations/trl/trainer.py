"""`GRPOTrainer` with token weights: A becomes A · w_t, divided by the mean of w over the optimiser step.

TRL's loss is a sum over tokens of a term that is linear in the advantage, and since it accepts advantages of
shape [B, T], the weights need no loss of their own. Where TRL divides by the number of tokens (`dapo`, the
default, `cispo`, `vespo`), dividing by the mean weight as well makes that Σw. The KL term and the entropy
bonus keep the weight 1.

Legend: B completions, T tokens of the longest of them.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from actfocus.config import FocusConfig
from actfocus.errors import ConfigError
from actfocus.focus import Role, token_weights
from actfocus.integrations.trl.chat import quiet_chat
from actfocus.integrations.trl.settings import refuse_unsuitable
from actfocus.integrations.trl.signal import TokenSignal, copy_before_training
from actfocus.integrations.trl.spans import Roles, completion_roles, span_finder


class ActFocusGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer` that follows action tokens more than reasoning tokens.

    `focus=FocusConfig(alpha=1, beta=0)` is `GRPOTrainer`, bit for bit. The metrics gain `focus/…`.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        *,
        focus: FocusConfig | None = None,
        roles: Roles = "tags",
        **kwargs: Any,
    ) -> None:
        """Make the trainer; what is not listed here is TRL's, by keyword.

        Args:
            model: As TRL takes it.
            reward_funcs: As TRL takes it.
            args: As TRL takes it.
            train_dataset: As TRL takes it.
            focus: The token weights; by default those of ActFocus, (0.1, 0.5) with the energy.
            roles: What is reasoning and what is action: `tags` (<think>, <answer>), `tools` (arguments of
                tool calls are actions, other text is reasoning), or a function (text, ids) -> spans.
            kwargs: Passed to `GRPOTrainer`.

        Raises:
            ConfigError: If a setting would make the weights vanish, or roles cannot be told.
        """
        focus = focus or FocusConfig()
        if args is not None:
            refuse_unsuitable(focus, args)
        beta = 0.0 if args is None else args.beta
        frozen = copy_before_training(model, focus, beta, kwargs.get("peft_config"))
        super().__init__(model, reward_funcs, args, train_dataset, **kwargs)
        if self._is_vlm:
            raise ConfigError("ActFocus trains models of text alone: use GRPOTrainer for this one")
        self._focus = focus
        self._focus_chat = quiet_chat(self._tokenizer, self.eos_token_ids)
        self._find_spans = span_finder(roles, self.chat_template or self._tokenizer.chat_template)
        self._roles = roles
        self._warned_of_no_action = False
        self._signal = TokenSignal(self, focus, frozen)
        self._weightless_windows: list[bool] = []
        self.add_callback(_SkipWeightlessUpdates(self))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch with roles and weights [B, T] beside it; TRL shuffles and splits them with the rest."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        prompt = torch.zeros_like(output["prompt_mask"], dtype=torch.bool)
        sampled = torch.cat([prompt, loss_mask(output)], dim=1)
        # With the prompt, because its last words may open the reasoning of the first reply.
        roles_BT = completion_roles(self._focus_chat, self._find_spans, ids, sampled)[:, prompt.shape[1] :]
        output["focus_roles"] = roles_BT
        output["focus_weights"] = token_weights(
            roles_BT,
            self._action_signal(output, roles_BT),
            alpha=self._focus.alpha,
            beta=self._focus.beta,
            other_weight=self._focus.other_weight,
            all_reduce=self._sum_over_ranks,
        )
        self._log_focus(roles_BT, output["focus_weights"])
        return output

    def _action_signal(self, output: dict[str, Any], roles_BT: torch.Tensor) -> torch.Tensor | None:
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        real = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        prompt = torch.zeros_like(output["prompt_mask"], dtype=torch.bool)
        signal = self._signal(ids, real, torch.cat([prompt, roles_BT == Role.ACTION], dim=1))
        return None if signal is None else signal[:, prompt.shape[1] :]

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """TRL's next micro-batch, its advantages weighted; those of a whole update share one Σw."""
        held: Any = self._buffered_inputs
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            self._weigh([inputs])
        elif self._buffered_inputs is not held:
            size = self.args.gradient_accumulation_steps
            starts = range(0, len(self._buffered_inputs), size)
            windows = [self._buffered_inputs[start : start + size] for start in starts]
            self._weightless_windows = [self._weigh(window) for window in windows]
        return inputs

    @torch.no_grad()
    def _weigh(self, batches: Sequence[dict[str, Any]]) -> bool:
        """Weigh the advantages of one update, in place; returns whether it has tokens but no weight."""
        own = [
            torch.stack([loss_mask(batch).double().sum(), batch["focus_weights"].double().sum()])
            for batch in batches
        ]
        tokens, weight = self._sum_over_ranks(torch.stack(own).sum(0)).tolist()
        scale = tokens / weight if weight else 0.0
        for batch in batches:
            advantages_B = batch["advantages"]
            weights_BT = (batch["focus_weights"].double() * scale).to(advantages_B.dtype)
            batch["advantages"] = advantages_B[:, None] * weights_BT
        return bool(tokens and not weight)

    def _sum_over_ranks(self, tensor: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return summed

    def _log_focus(self, roles_BT: torch.Tensor, weights_BT: torch.Tensor) -> None:
        counts = [(roles_BT == role).sum() for role in (Role.REASONING, Role.ACTION, Role.OTHER)]
        is_action = roles_BT == Role.ACTION
        sums = torch.stack([*counts, weights_BT.sum(), weights_BT[is_action].sum()]).double()
        reasoning, action, other, weight, action_weight = self._sum_over_ranks(sums).tolist()
        sampled = max(1.0, reasoning + action + other)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["focus/reasoning_share"].append(reasoning / sampled)
        metrics["focus/action_share"].append(action / sampled)
        metrics["focus/weight_per_token"].append(weight / sampled)
        metrics["focus/action_weight"].append(action_weight / action if action else float("nan"))
        if not action and self.model.training:
            self._warn_of_no_action()

    def _warn_of_no_action(self) -> None:
        """Once: without an action all weights are alike, and nothing else would show that."""
        # Uniform weights were asked for where the settings say so.
        if self._warned_of_no_action or self._focus.is_uniform or not self.accelerator.is_main_process:
            return
        self._warned_of_no_action = True
        warnings.warn(
            "a generation batch has no action token: all of its tokens weigh alike (unless other_weight is"
            " set), so that it is trained as in plain GRPO, or not at all where alpha = 0. If"
            f" focus/action_share stays at 0, roles = {self._roles!r} does not find the actions in what this"
            " model writes: print a completion, and see 'Roles' in docs/trl.md",
            stacklevel=2,
        )

    def _finished_window_is_weightless(self) -> bool:
        """Whether the update that is about to be made has no weight."""
        last = (self._step - 1) % self.args.steps_per_generation
        window = last // self.args.gradient_accumulation_steps
        weightless: bool = self._weightless_windows[window]
        self._metrics["train"]["focus/skipped_updates"].append(float(weightless))
        return weightless


def loss_mask(batch: dict[str, Any]) -> torch.Tensor:
    """The tokens [B, T] that TRL's loss reads: sampled by the model, in a completion that counts."""
    mask: torch.Tensor = batch["completion_mask"]
    return (mask if batch.get("tool_mask") is None else mask * batch["tool_mask"]).bool()


class _SkipWeightlessUpdates(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Where Σw = 0 no update is made: not even one that Adam's averages would make of a gradient of 0."""

    def __init__(self, trainer: ActFocusGRPOTrainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An optimiser passes over parameters without a gradient."""
        if self._trainer._finished_window_is_weightless():
            kwargs["model"].zero_grad(set_to_none=True)
