"""Without verifiers, or with one out of range, the import says what to install. Runs without it."""

import subprocess
import sys

import pytest

PRETEND = """
import importlib.metadata as metadata
real = metadata.version
def version(name):
    if name != "verifiers":
        return real(name)
    if not {found!r}:
        raise metadata.PackageNotFoundError(name)
    return {found!r}
metadata.version = version
import actfocus.integrations.verifiers
"""


@pytest.mark.parametrize(
    ("found", "here"),
    [
        ("", "verifiers is not installed"),
        ("0.3.1", "verifiers 0.3.1 is installed"),
        ("0.5.0", "verifiers 0.5.0 is installed"),
        ("1.4.0", "verifiers 1.4.0 is installed"),
    ],
)
def test_the_import_names_the_extra(found: str, here: str) -> None:
    code = PRETEND.format(found=found)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: actfocus.integrations.verifiers needs verifiers>=0.4,<0.5, and {here}:"
        " pip install 'actfocus[verifiers]'"
    )
