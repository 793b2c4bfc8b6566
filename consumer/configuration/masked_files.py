"""The files of the active generation as shown to users, with secrets masked."""

import contextlib
from pathlib import Path

import msgspec

from broker.contract.commands.get_agent_configuration import AppliedFile
from broker.system.text_files import read_text
from consumer.configuration.generations import Generations, Record, hash_of_file
from consumer.system.masking import mask_text

__all__ = [
    "MAX_FILES",
    "shown_files",
]


MAX_FILES = 100
_MAX_SHOWN_BYTES = 64 << 10
_MAX_SHOWN = 128 << 10  # the result must fit into one message


def shown_files(generations: Generations, record: Record) -> tuple[AppliedFile, ...]:
    """Return the first files of a generation in their current state, without missing and unreadable ones."""
    shown: list[AppliedFile] = []
    room = _MAX_SHOWN
    for name in sorted(record.files)[:MAX_FILES]:
        path = generations.directory(record.name) / name
        if not path.is_file():
            continue
        with contextlib.suppress(OSError):  # what cannot be read is in `altered`
            content = _text(path)
            room -= len(msgspec.json.encode(content))
            if room < 0:
                content = None
            shown.append(AppliedFile(name, path.stat().st_size, hash_of_file(path), content))
    return tuple(shown)


def _text(path: Path) -> str | None:
    if path.stat().st_size > _MAX_SHOWN_BYTES:
        return None
    try:
        return mask_text(path.name, read_text(path))
    except ValueError:  # not text, or not in the format of its suffix
        return None
