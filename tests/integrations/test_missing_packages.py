"""Without the package, or with one out of range, the import says what to install. Needs neither package."""

import subprocess
import sys

import pytest

PRETEND = """
import importlib.metadata as metadata
real = metadata.version
def version(name):
    if name != {name!r}:
        return real(name)
    if not {found!r}:
        raise metadata.PackageNotFoundError(name)
    return {found!r}
metadata.version = version
import actfocus.integrations.{name}
"""


@pytest.mark.parametrize(
    ("name", "supported", "found"),
    [
        *(("openenv", ">=0.10,<0.11", found) for found in ("", "0.9.0", "0.11.0", "1.10.0")),
        *(("verifiers", ">=0.4,<0.5", found) for found in ("", "0.3.1", "0.5.0", "1.4.0")),
    ],
)
def test_the_import_names_the_extra(name: str, supported: str, found: str) -> None:
    here = f"{name} {found} is installed" if found else f"{name} is not installed"
    code = PRETEND.format(name=name, found=found)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: actfocus.integrations.{name} needs {name}{supported}, and {here}:"
        f" pip install 'actfocus[{name}]'"
    )
