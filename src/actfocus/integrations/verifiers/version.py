"""Which versions of verifiers this integration is written for. Imports no verifiers."""

from actfocus.integrations.versions import is_of, require_version

SUPPORTED = ">=0.4,<0.5"
"""Versions of verifiers whose seams `tests/integrations/test_verifiers_contract.py` pins."""


def require_verifiers() -> None:
    """Raise `ImportError` if verifiers is missing, or is one that this integration was not written for."""
    require_version("verifiers", SUPPORTED, is_of(0, 4), "pip install 'actfocus[verifiers]'")
