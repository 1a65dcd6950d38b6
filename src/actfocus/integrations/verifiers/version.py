"""Which versions of verifiers this integration is written for. Imports no verifiers."""

import re
from importlib.metadata import PackageNotFoundError, version

SUPPORTED = ">=0.4,<0.5"
"""Versions of verifiers whose seams `tests/integrations/test_verifiers_contract.py` pins."""
_MAJOR_MINOR = ("0", "4")


def require_verifiers() -> None:
    """Refuse a verifiers that is missing or that this integration was not written for.

    Raises:
        ImportError: Saying which versions are supported, which one is here, and what to do.
    """
    try:
        found = version("verifiers")
    except PackageNotFoundError:
        found = ""
    if tuple(re.findall(r"\d+", found)[:2]) == _MAJOR_MINOR:
        return
    here = f"verifiers {found} is installed" if found else "verifiers is not installed"
    raise ImportError(
        f"actfocus.integrations.verifiers needs verifiers{SUPPORTED}, and {here}:"
        " pip install 'actfocus[verifiers]'"
    )
