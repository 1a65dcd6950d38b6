"""What a run would need, before anything is trained: `actfocus train --dry-run`."""

from typing import Any

from actfocus.config import Config
from actfocus.models.language_model import LOGIT_CHUNK
from actfocus.models.loading import skeleton
from actfocus.training.initial import shipped_path

_FLOAT = 4
_HALF = 2
CACHE_COPIES = 2
"""Of the key-value cache, while rows are split off or joined; measured: 1.9."""
GRADIENTS_KEPT = 9
"""Of the trained parameters, while gradients are measured per role (`training.gradients`)."""
LOGIT_COPIES = 4
"""Logits, their log-softmax, probabilities and one gradient, at the peak of a backward pass."""
ACTIVATIONS_PER_LAYER = 16
"""Hidden-sized tensors that one transformer layer keeps for its backward pass, about."""


def plan(config: Config) -> dict[str, Any]:
    """Upper bounds of tokens and an estimate of memory, from the model's own shapes.

    Weights, gradients, Adam's two averages, the reference and the critic are exact; activations and the
    key-value cache are estimates for episodes that use the whole context.
    """
    model = skeleton(config.model, path=shipped_path(config.model, config.env))
    shape = model.config
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    rollout, optimizer = config.rollout, config.optimizer
    episodes = rollout.prompts * rollout.group
    kept = config.kept_groups * rollout.group
    half = _HALF if config.model.precision == "bfloat16" else _FLOAT
    head_size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    networks = 2 if config.algorithm.name == "ppo" else 1

    cache_of_a_token = shape.num_hidden_layers * 2 * heads * head_size * half
    needs_copy = config.needs_reference and not config.model.lora_rank
    sampling = {
        "cache": CACHE_COPIES * episodes * rollout.context * cache_of_a_token,
    }
    updating = {
        "activations": optimizer.micro_batch
        * rollout.context
        * shape.num_hidden_layers
        * ACTIVATIONS_PER_LAYER
        * shape.hidden_size
        * half,
        "logits": LOGIT_COPIES * LOGIT_CHUNK * shape.vocab_size * _FLOAT,
        # Measured between scoring and update, by passes like those of an update.
        "gradients_per_role": GRADIENTS_KEPT * trained * _FLOAT if config.gradients_every else 0,
    }
    parts = {
        "weights": networks * total * _FLOAT,
        "gradients_and_adam": networks * trained * 3 * _FLOAT,
        "reference": total * _FLOAT if needs_copy else 0,
        # The larger one alone: they do not happen at the same time.
        "larger_of_sampling_and_updating": max(sum(sampling.values()), sum(updating.values())),
    }
    return {
        "parameters": total,
        "trained_parameters": trained,
        "episodes_per_step": episodes,
        "trained_episodes_per_step": kept,
        "updates_per_step": optimizer.epochs * -(-kept // optimizer.mini_batch),
        "tokens_per_step_at_most": episodes * rollout.context,
        "trained_tokens_per_step_at_most": kept * rollout.context,
        "evaluation_episodes": config.evaluation.states * config.evaluation.samples,
        "memory_bytes": sum(parts.values()),
        "memory_parts": parts,
        "memory_while_sampling": sampling,
        "memory_while_updating": updating,
    }
