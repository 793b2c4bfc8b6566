"""Patterns of agents' names, as users write them."""

__all__ = [
    "is_pattern",
]


_WILDCARDS = frozenset("*?[")


def is_pattern(word: str) -> bool:
    """Return whether this is a pattern of names (fnmatch), not a name."""
    return not _WILDCARDS.isdisjoint(word)
