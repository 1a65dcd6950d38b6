"""A tiny agent without any training, for the tests of models and rollouts: tokenizer, model, chat."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from actfocus.config import EnvConfig, WarmstartConfig
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.models.tiny import tiny_model, tiny_tokenizer
from actfocus.training.demonstrations import demonstration_texts

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Ends a turn with another token than the tokenizer ends a text with."""

_BYTE = {character: byte for byte, character in bytes_to_unicode().items()}


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    texts = [
        text
        for name in ("frozen-lake", "sokoban", "sudoku")
        for episode in range(8)
        for pair in demonstration_texts(WarmstartConfig(env=EnvConfig(name=name)), episode)
        for text in pair
    ]
    return tiny_tokenizer(texts)


def fresh_tokenizer() -> PreTrainedTokenizerFast:
    """A copy, for tests that change it."""
    return copy.deepcopy(_tokenizer())


def token_bytes(chat: Chat, token_id: int) -> bytes:
    """What a token writes, read off the byte-level alphabet and not decoded."""
    token = chat.tokenizer.convert_ids_to_tokens(token_id)
    return b"" if token_id in chat.end_ids else bytes(_BYTE[character] for character in token)


@cache
def lively_weights() -> LlamaForCausalLM:
    """Weights so large that every token of the context tells in the next one's distribution."""
    model = tiny_model(_tokenizer())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter *= (0.1 if "embed" in name else 0.2) / parameter.std()
    return model


class Brief(LanguageModel):
    """A model with a liking for the end of the turn, so that replies differ in length."""

    liking: tuple[int, float] | None = None

    def head(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        logits_NV = super().head(hidden_ND)
        if self.liking is not None:
            token_id, bonus = self.liking
            logits_NV = logits_NV.clone()
            logits_NV[..., token_id] += bonus
        return logits_NV


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return _tokenizer()


@pytest.fixture(scope="session")
def chat() -> Chat:
    return Chat(fresh_tokenizer())


@pytest.fixture(scope="session")
def chatml() -> Chat:
    tokenizer = fresh_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return Chat(tokenizer)


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    """Freshly initialised: nearly uniform replies. Not to be changed."""
    return LanguageModel(tiny_model(_tokenizer()))


@pytest.fixture(scope="session")
def lively(chat: Chat) -> LanguageModel:
    """Replies that depend on the context and differ in length. Not to be changed."""
    model = Brief(lively_weights())
    model.liking = (chat.tokenizer.eos_token_id, 4.5)
    return model


def random_ids(vocabulary: int, rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, vocabulary, (rows, length)))
