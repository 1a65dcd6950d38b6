"""TRL is real in all of these tests; nothing is fetched, and its notes on what is experimental are known."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
