"""Which versions of TRL this integration is written for. Imports no trl."""

import re
from importlib.metadata import PackageNotFoundError, version

SUPPORTED = ">=1.16,<1.17"
"""TRL's versions whose seams `tests/integrations/trl/test_contract.py` pins."""
_MAJOR_MINOR = ("1", "16")


def require_trl() -> None:
    """Refuse a TRL that is missing or that this integration was not written for.

    Raises:
        ImportError: Saying which versions are supported, which one is here, and what to do.
    """
    try:
        found = version("trl")
    except PackageNotFoundError:
        found = ""
    if tuple(re.findall(r"\d+", found)[:2]) == _MAJOR_MINOR:
        return
    here = f"trl {found} is installed" if found else "trl is not installed"
    raise ImportError(
        f"actfocus.integrations.trl needs trl{SUPPORTED}, and {here}: pip install 'actfocus[trl]'"
        f" (or pip install 'trl{SUPPORTED}')"
    )
