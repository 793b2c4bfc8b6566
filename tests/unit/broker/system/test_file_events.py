"""A file that tells when it was written."""

import select
from pathlib import Path

import pytest

from broker.system.file_events import FileEvents


def test_file_is_readable_once_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.touch()
    events = FileEvents(file)
    assert not events.take()
    with file.open("ab") as writer:
        for _ in range(3):
            writer.write(b"x")
            writer.flush()
    assert select.select([events], [], [], 20)[0] == [events]
    assert events.take()
    assert not events.take()
    events.close()


def test_missing_file_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileEvents(tmp_path / "log")
