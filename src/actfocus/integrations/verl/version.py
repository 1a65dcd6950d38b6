"""Which versions of verl this integration is written for. Imports no verl."""

from importlib.metadata import PackageNotFoundError, version

SUPPORTED = "==0.9.1"
"""verl's versions whose seams `tests/verl/test_contract.py` pins."""
_SUPPORTED = ("0.9.1",)


def require_verl() -> None:
    """Refuse a verl that is missing or that this integration was not written for.

    Raises:
        ImportError: Saying which versions are supported, which one is here, and what to do.
    """
    try:
        found = version("verl")
    except PackageNotFoundError:
        found = ""
    if found in _SUPPORTED:
        return
    here = f"verl {found} is installed" if found else "verl is not installed"
    raise ImportError(
        f"actfocus.integrations.verl needs verl{SUPPORTED}, and {here}: pip install"
        f" 'verl[verl-core]{SUPPORTED}' in a virtual environment of its own"
    )
