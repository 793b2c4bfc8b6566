"""structlog without rich, which it would load for the coloured console of a developer: 5 MB that no service uses."""

import sys

__all__ = ["load_structlog_without_rich"]


def load_structlog_without_rich() -> None:
    """Import structlog as if rich was not installed; if either was loaded before, this changes nothing."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
