"""Which version of another package is here, and whether an integration was written for it."""

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version


def require_version(name: str, supported: str, suits: Callable[[str], bool], install: str) -> None:
    """Refuse a package that is missing or that its integration was not written for.

    Args:
        name: Of the package, and of the module in `actfocus.integrations`.
        supported: The versions whose seams the integration's contract tests pin, as pip writes them.
        suits: Whether a version is one of them.
        install: What to do about it.

    Raises:
        ImportError: Saying which versions are supported, which one is here, and what to do.
    """
    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    if suits(found):
        return
    here = f"{name} {found} is installed" if found else f"{name} is not installed"
    raise ImportError(f"actfocus.integrations.{name} needs {name}{supported}, and {here}: {install}")


def is_of(major: int, minor: int) -> Callable[[str], bool]:
    """Whether a version is one of MAJOR.MINOR."""
    return lambda found: re.findall(r"\d+", found)[:2] == [str(major), str(minor)]
