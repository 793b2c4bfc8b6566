"""Counts in words."""

__all__ = ["counted"]


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return the count before its word, as in `1 agent` and `2 agents`; `many` where it is not `one` with an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"
