"""Which versions of TRL this integration is written for. Imports no trl."""

from actfocus.integrations.versions import is_of, require_version

SUPPORTED = ">=1.16,<1.17"
"""TRL's versions whose seams `tests/integrations/trl/test_contract.py` pins."""


def require_trl() -> None:
    """Raise `ImportError` if TRL is missing, or is one that this integration was not written for."""
    install = f"pip install 'actfocus[trl]' (or pip install 'trl{SUPPORTED}')"
    require_version("trl", SUPPORTED, is_of(1, 16), install)
