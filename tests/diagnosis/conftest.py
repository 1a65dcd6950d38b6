"""The tests' model and its runs, from tests/training; a small model in float64."""

from tests.fixtures import chat, chatml
from tests.small import small, small_episodes
from tests.training.conftest import finished, make_config, model_folder

__all__ = ["chat", "chatml", "finished", "make_config", "model_folder", "small", "small_episodes"]
