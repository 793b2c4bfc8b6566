"""Files that are not needed any more and could not be removed: they stop nothing, and are named until they are gone."""

from collections.abc import Iterable
from pathlib import Path

import structlog

from broker.system.trees import remove_tree
from broker.text import printable_line

__all__ = [
    "Leftovers",
]


_log = structlog.get_logger(__name__)
_MAX_NAMED = 3


class Leftovers:
    """What could not be removed, by path. It may be used by several threads."""

    def __init__(self) -> None:
        self._reasons: dict[Path, str] = {}

    def remove(self, path: Path) -> bool:
        """Remove a file, or a directory with everything below it; return whether nothing of it is left.

        What stays is logged, and named by `problem`.
        """
        try:
            remove_tree(path)
        except OSError as error:
            reason = f"{printable_line(str(error.filename or path))}: {error.strerror or error}"
            if self._reasons.get(path) != reason:
                _log.warning("not_removed", path=printable_line(str(path)), reason=reason)
            self._reasons[path] = reason
            return False
        self._reasons.pop(path, None)
        return True

    def remove_all(self, paths: Iterable[Path]) -> None:
        """Remove each of them; one that stays stops no other."""
        for path in paths:
            self.remove(path)

    @property
    def problem(self) -> str | None:
        """What is still there and why, in one sentence; None if nothing is."""
        for path in list(self._reasons):
            if not _is_there(path):
                self._reasons.pop(path, None)
        reasons = list(self._reasons.values())
        if not reasons:
            return None
        more = f"; and {len(reasons) - _MAX_NAMED} more" if len(reasons) > _MAX_NAMED else ""
        return f"Files that are not needed any more must be removed by hand: {'; '.join(reasons[:_MAX_NAMED])}{more}."


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True
