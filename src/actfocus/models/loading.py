"""From a name to a model and its tokenizer: a hub id, a folder, a .gguf file."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from actfocus.config import ModelConfig
from actfocus.errors import ModelError
from actfocus.models import registry
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel


def load(config: ModelConfig, *, path: str | Path | None = None, device: str | torch.device = "cpu") -> tuple[LanguageModel, Chat]:
    """Load the policy in float32, with fresh LoRA adapters if the config asks for them.

    Args:
        config: The model's settings.
        path: Where the weights are, if not where `config.name` says (a built `tiny`, a checkpoint).
        device: Where they go.

    Raises:
        ModelError: If the files are missing or damaged, or the architecture is not supported.
    """
    source = str(path or (registry.smollm2_path() if config.name == registry.SMOLLM2 else config.name))
    model, tokenizer = _read(source)
    if config.lora_rank:
        model = _with_adapters(model, config)
    return LanguageModel(model.to(device), precision=config.precision), Chat(tokenizer)


def _read(source: str) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    where, options = source, {}
    if source.endswith(".gguf"):
        where, options = str(Path(source).parent), {"gguf_file": Path(source).name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **options)
    except Exception as error:  # transformers raises many kinds for what is one thing to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"cannot load the model {source}: {reason}") from error
    return model, tokenizer


def _with_adapters(model: nn.Module, config: ModelConfig) -> PeftModel:
    """LoRA on all linear layers but the head; B starts at 0, so the policy starts as the base model."""
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", lora_dropout=0.0
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.init_seed)
        return get_peft_model(model, lora)
