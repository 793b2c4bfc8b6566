"""Reads text files as people's editors write them: UTF-8, with or without a byte order mark."""

import codecs
from pathlib import Path

__all__ = [
    "NotText",
    "decode_text",
    "read_text",
]


_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # those of UTF-32 begin like the first


class NotText(ValueError):
    """A file is not UTF-8; the text says why, as the part of a sentence after a colon."""


def read_text(path: Path) -> str:
    """Return the file's text without a byte order mark, its line ends unchanged; raises NotText and OSError."""
    return decode_text(path.read_bytes())


def decode_text(content: bytes) -> str:
    """Return the text without a byte order mark; raises NotText."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith(_WIDE_MARKS):
            raise NotText("it is UTF-16 text; save it as UTF-8") from error
        raise NotText(f"it is not UTF-8 text (byte {error.start + 1} is 0x{content[error.start]:02x})") from error
