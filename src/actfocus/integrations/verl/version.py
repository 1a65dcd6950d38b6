"""Which versions of verl this integration is written for. Imports no verl."""

from actfocus.integrations.versions import require_version

SUPPORTED = "==0.9.1"
"""verl's versions whose seams `tests/verl/test_contract.py` pins."""


def require_verl() -> None:
    """Raise `ImportError` if verl is missing, or is one that this integration was not written for."""
    install = f"pip install 'verl[verl-core]{SUPPORTED}' in a virtual environment of its own"
    require_version("verl", SUPPORTED, lambda found: found == "0.9.1", install)
