"""Refusing to live by files that another user of the machine could change, or secrets that one could read."""

from collections.abc import Collection
from pathlib import Path

from broker.system.permissions import changed_by_others, read_by_others
from consumer.errors import ExposedError

__all__ = [
    "refuse_changeable",
    "refuse_readable",
]


def refuse_changeable(path: Path, *, owners: Collection[int] = ()) -> None:
    """Raise ExposedError unless root, our user and `owners` are the only ones that could change it; raises OSError.

    It is refused and not repaired: what others could write to until now may hold what they have put there.
    """
    problem = changed_by_others(path, owners=owners)
    if problem is not None:
        raise ExposedError(problem)


def refuse_readable(path: Path) -> None:
    """Raise ExposedError if another user could read or change this secret; raises OSError.

    It is refused and not repaired: a secret that could be read must be replaced.
    """
    problem = read_by_others(path)
    if problem is not None:
        raise ExposedError(problem)
