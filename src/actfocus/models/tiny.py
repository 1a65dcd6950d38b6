"""`tiny`: a Llama of 0.64 million parameters with a tokenizer of its own, for training on a laptop's CPU.

Four heads share two key-value heads, because on a CPU sampling is bound by reading the cache.
"""

from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from actfocus.envs.protocol import ACTION_SEPARATOR, REPLY_TAGS

VOCABULARY = 1024

TINY_TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>"
    "{% if message['role'] == 'system' %}{{ message['content'].split('.')[0] }}"
    "{% else %}{{ message['content'] }}{% endif %}{{ eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Of the system message the first sentence is kept, which names the game: a model of this size knows the
rules from its warm start and does not read them, and every episode is shorter by a quarter."""


_WORD = r" ?\(\d,\d\)| ?\d,\d| ?\d|\n| ?\p{L}+| ?[^\s\p{L}\d]+|\s+"
"""Coordinates, digit, line end, word, punctuation, blanks: no token reaches over the end of one of these."""

_ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]


def tiny_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts`; it can write any text, and the format in single tokens.

    A cell's coordinates are one word, so that to repeat them is to copy one token: what a model of this
    size learns last is to copy several in a row.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|pad|>", "<|end|>", *_ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
    )
    # Ordinary tokens and not special ones: they are text, and text must decode.
    fast.add_tokens([*REPLY_TAGS, ACTION_SEPARATOR])
    fast.chat_template = TINY_TEMPLATE
    return fast


def tiny_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    """A freshly initialised model for `tokenizer`; the seed alone decides its weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        # About 1 / sqrt(hidden size); with the 0.02 of large models a small one learns to copy far later.
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
