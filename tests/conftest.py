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


LONGEST = ("test_resume.py", "test_runner.py", "test_readme.py", "test_planted.py", "test_distributed.py")
"""Files of a minute: a file stays in one process, so they begin first and the others fill up."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
