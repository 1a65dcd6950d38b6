"""The tiny agent that these tests share, and some episodes of it."""

import pytest

from tests.fixtures import chat, chatml, lively, tiny, tokenizer
from tests.rollout.scripts import play

__all__ = ["chat", "chatml", "lively", "tiny", "tokenizer"]


@pytest.fixture(scope="module")
def records(lively, chat):
    return play(lively, chat)
