"""What the programs that write one generated document have in common."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["write_document"]


def write_document(program: str, arguments: Sequence[str], render: Callable[[], str]) -> int:
    """Write what `render` returns to the only argument, a path; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write(f"usage: python -m {program} PATH\n")
        return 2
    Path(arguments[0]).write_text(render(), encoding="utf-8")
    return 0
