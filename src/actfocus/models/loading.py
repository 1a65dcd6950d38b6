"""From a name to a model and its tokenizer: a hub id, a folder, a .gguf file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from actfocus.config import ModelConfig
from actfocus.errors import ModelError
from actfocus.models import registry
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel


def load(
    config: ModelConfig, *, path: str | Path | None = None, device: str | torch.device = "cpu"
) -> tuple[LanguageModel, Chat]:
    """Load the policy in float32, with fresh LoRA adapters if the config asks for them.

    Args:
        config: The model's settings.
        path: Where the weights are, if not where `config.name` says (a built `tiny`, a checkpoint).
        device: Where they go.

    Raises:
        ModelError: If the files are missing or damaged, or the architecture is not supported.
    """
    model, tokenizer = _read(_source(config, path))
    if config.lora_rank:
        model = _with_adapters(model, config)
    return LanguageModel(model.to(device), precision=config.precision), Chat(tokenizer)


def skeleton(config: ModelConfig, *, path: str | Path | None = None) -> Any:
    """The model without its weights, for those who only want to know its size. Raises `ModelError`."""
    source = _source(config, path)
    where, options = _where(source)
    with _explained(source), torch.device("meta"):
        shape = AutoConfig.from_pretrained(where, **options)
        model = AutoModelForCausalLM.from_config(shape)
    return _with_adapters(model, config) if config.lora_rank else model


def _source(config: ModelConfig, path: str | Path | None) -> str:
    if path is None and config.name == registry.SMOLLM2:
        path = registry.smollm2_path()
    return os.path.expanduser(path or config.name)


def _where(source: str) -> tuple[str, dict[str, str]]:
    if source.endswith(".gguf"):
        return str(Path(source).parent), {"gguf_file": Path(source).name}
    return source, {}


# Its bars would stand between the lines of ours.
disable_progress_bar()


def _read(source: str) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    where, options = _where(source)
    with _explained(source):
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        model, report = AutoModelForCausalLM.from_pretrained(
            where, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    # Transformers draws such weights at random and goes on.
    unread = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if unread:
        raise ModelError(
            f"cannot load the model {source}: {len(unread)} of its weights are missing or have another shape"
            f" (the first is {unread[0]}); get the files again"
        )
    if (quantizer := getattr(model, "hf_quantizer", None)) is not None and source.endswith(".gguf"):
        # The weights are plain float32 by now; marked as quantised they could be trained but not saved.
        quantizer.remove_quantization_config(model)
    return model, tokenizer


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Transformers raises many kinds of error for what is one thing to the user."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"cannot load the model {source}: {reason}") from error


def _with_adapters(model: nn.Module, config: ModelConfig) -> PeftModel:
    """LoRA on all linear layers but the head; B starts at 0, so the policy starts as the base model."""
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", lora_dropout=0.0
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.init_seed)
        return get_peft_model(model, lora)
