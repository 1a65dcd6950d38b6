"""For all tests: shapes and types of the public functions are checked, and torch keeps to one thread."""

import os

import jaxtyping
import pytest

# Before torch is imported. The tensors of the tests are small: more threads only wait for each other, forty
# times as long where the cores are busy. Processes that the tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The hooks must stand before the first import of what they watch, so nothing above imports actfocus.
jaxtyping.install_import_hook("actfocus.focus", "beartype.beartype")
jaxtyping.install_import_hook("actfocus.algorithms", "beartype.beartype")
jaxtyping.install_import_hook("actfocus.training.gradients", "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The README's commands first: they take minutes, in which other processes run all else."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")
