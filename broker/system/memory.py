"""Memory that the process no longer uses."""

import ctypes

__all__ = [
    "return_free_memory",
]


def return_free_memory() -> None:
    """Return what the C library has free to the system; without effect where the library cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
