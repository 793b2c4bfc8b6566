"""Running a part of a test as a user without privileges, who cannot remove what belongs to root."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["as_nobody", "directory_of_nobody", "let_others_pass"]

_NOBODY = "nobody"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give this process the effective user `nobody` while the block runs."""
    assert os.geteuid() == 0, "run this test as root: it becomes another user"
    os.seteuid(pwd.getpwnam(_NOBODY).pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def directory_of_nobody() -> Iterator[Path]:
    """Yield a new directory of the user `nobody`, which tmp_path would hide from that user."""
    directory = Path(tempfile.mkdtemp())
    try:
        os.chown(directory, pwd.getpwnam(_NOBODY).pw_uid, -1)
        yield directory
    finally:
        shutil.rmtree(directory)


def let_others_pass(directory: Path) -> None:
    """Let other users enter a directory of pytest, and those above it."""
    temporary = Path(tempfile.gettempdir())
    for place in (directory, *directory.parents):
        if temporary in place.parents:
            place.chmod(0o755)
