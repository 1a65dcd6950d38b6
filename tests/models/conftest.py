"""The tiny agent that these tests share."""

from tests.fixtures import chat, chatml, lively, tiny, tokenizer

__all__ = ["chat", "chatml", "lively", "tiny", "tokenizer"]
