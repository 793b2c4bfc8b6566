"""How long something is valid, for people."""

__all__ = [
    "shown_days",
]


def shown_days(days: float) -> str:
    """Return how long something is still valid, or how long it is not any more, in whole days."""
    count = int(abs(days))
    unit = "day" if count == 1 else "days"
    return f"for {count} {unit}" if days >= 0 else f"since {count} {unit}"
