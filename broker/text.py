"""Text: times and strings in their written forms, counts, and text from others made safe to show."""

import json
import unicodedata
from collections.abc import Sequence
from datetime import datetime

__all__ = [
    "counted",
    "encodable",
    "printable",
    "printable_line",
    "rfc3339",
    "some_of",
    "toml_string",
]


_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # controls, direction marks, surrogates, unassigned …
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_ELLIPSIS = "…"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return the count with its noun, as in `1 agent` and `2 agents`; `many` is the plural if it is not `one` + s."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def rfc3339(moment: datetime | None) -> str | None:
    """Return a time in UTC in the form of RFC 3339, or None."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def some_of(names: Sequence[str], most: int = 5, *, of: int | None = None) -> str:
    """Return the first names of a list, at most so many, and how many more there are; of `of` ones in all, if given."""
    more = (len(names) if of is None else of) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def toml_string(text: str) -> str:
    """Return printable text as a basic string of TOML, which for such text is a JSON string without `\\u` escapes."""
    return json.dumps(text, ensure_ascii=False)


def encodable(text: str) -> str:
    """Return the text with lone surrogates, as in names of files that are not UTF-8, written as `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Return the text with each character replaced that could control a terminal; line feeds and tabs stay."""
    return _replaced(text, "\n\t")


def printable_line(text: str, max_length: int | None = None) -> str:
    """As `printable`, but replace line feeds and tabs too; a text longer than `max_length` is cut and ends in `…`."""
    if max_length is not None and len(text) > max_length:
        text = text[: max_length - len(_ELLIPSIS)] + _ELLIPSIS
    return _replaced(text, "")


def _replaced(text: str, kept: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_safe(character, kept) else _REPLACEMENT for character in text)


def _is_safe(character: str, kept: str) -> bool:
    return character in kept or unicodedata.category(character) not in _UNSAFE
