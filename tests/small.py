"""A small model in float64 and ragged episodes of it, for gradients that are compared token by token."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from actfocus.models.language_model import LanguageModel
from actfocus.rollout.batch import Batch, collate
from actfocus.rollout.trajectory import Start, Trajectory

VOCABULARY = 23


def small_model(seed: int = 0) -> LanguageModel:
    """A model in float64 whose distributions depend on their contexts.

    No Llama: its norms are computed in float32 whatever its weights are.
    """
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=16,
        n_embd=8,
        n_layer=2,
        n_head=2,
        initializer_range=0.6,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LanguageModel(GPT2LMHeadModel(config).double())


def small_batch(groups: int = 4, size: int = 3) -> Batch:
    """Ragged random episodes with tokens of every role; the returns of the second group do not vary."""
    generator = torch.Generator().manual_seed(3)
    records = []
    for group in range(groups):
        for member in range(size):
            length = int(torch.randint(7, 13, (1,), generator=generator))
            roles = torch.randint(0, 4, (length,), generator=generator)
            roles[0], roles[-3:] = 0, torch.tensor([1, 2, 3])
            ids = torch.randint(0, VOCABULARY, (length,), generator=generator)
            total = 1.0 if group == 1 else float((member * (group + 2)) % 3) - 0.25
            logprobs = (-torch.rand(length, generator=generator) * (roles != 0)).tolist()
            start = Start(group, member, 0, 0, 0)
            record = Trajectory(start, rewards=[total])
            record.add_reply(ids.tolist(), roles.tolist(), logprobs, 0)
            records.append(record)
    return collate(records)


@pytest.fixture
def small() -> LanguageModel:
    return small_model()


@pytest.fixture
def small_episodes() -> Batch:
    return small_batch()
