"""TRL is real in all of these tests; nothing is fetched, and its notes on what is experimental are known."""

import os

import pytest

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """For processes that a test starts. Not for good: what a tokenizer saves tells whether this is set."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
