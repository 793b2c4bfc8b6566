"""The files of the active generation as shown to users, with secrets masked."""

import contextlib
from pathlib import Path

import msgspec

from broker.contract.commands.get_agent_configuration import AppliedFile
from broker.system.text_files import decode_text
from consumer.configuration.found_files import hash_of_file, names_below, open_regular
from consumer.configuration.generations import Generations, Record

__all__ = [
    "MAX_FILES",
    "shown_files",
]


MAX_FILES = 100
_MAX_SHOWN_BYTES = 64 << 10
_MAX_SHOWN = 128 << 10  # the result must fit into one message


def shown_files(generations: Generations, record: Record) -> tuple[AppliedFile, ...]:
    """Return the first files of a generation in their current state, without those that are missing or unreadable,
    that became links, and that have grown beyond what is shown.
    """
    found = names_below(generations.directory(record.name))
    shown: list[AppliedFile] = []
    room = _MAX_SHOWN
    for name in sorted(record.files)[:MAX_FILES]:
        path = generations.directory(record.name) / name
        with contextlib.suppress(OSError):  # what cannot be read is in `altered`
            size = path.lstat().st_size
            if not found.get(name) or size > max(record.sizes.get(name, size), _MAX_SHOWN_BYTES):
                continue  # a sparse file of any size would be read for hours
            content = _text(path, size)
            room -= len(msgspec.json.encode(content))
            if room < 0:
                content = None
            shown.append(AppliedFile(name, size, hash_of_file(path), content))
    return tuple(shown)


def _text(path: Path, size: int) -> str | None:
    if size > _MAX_SHOWN_BYTES:
        return None
    from consumer.system.masking import mask_text  # the formats' parsers are 1 MB

    try:
        with open_regular(path) as file:
            return mask_text(path.name, decode_text(file.read(_MAX_SHOWN_BYTES)))
    except ValueError:  # not text, or not in the format of its suffix
        return None
