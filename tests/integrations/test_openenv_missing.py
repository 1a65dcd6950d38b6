"""Without OpenEnv, or with one out of range, the import says what to install. Runs without it."""

import subprocess
import sys

import pytest

PRETEND = """
import importlib.metadata as metadata
real = metadata.version
def version(name):
    if name != "openenv":
        return real(name)
    if not {found!r}:
        raise metadata.PackageNotFoundError(name)
    return {found!r}
metadata.version = version
import actfocus.integrations.openenv
"""


@pytest.mark.parametrize(
    ("found", "here"),
    [
        ("", "openenv is not installed"),
        ("0.9.0", "openenv 0.9.0 is installed"),
        ("0.11.0", "openenv 0.11.0 is installed"),
        ("1.10.0", "openenv 1.10.0 is installed"),
    ],
)
def test_the_import_names_the_extra(found: str, here: str) -> None:
    code = PRETEND.format(found=found)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: actfocus.integrations.openenv needs openenv>=0.10,<0.11, and {here}:"
        " pip install 'actfocus[openenv]'"
    )
