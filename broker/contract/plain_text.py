"""Text that others wrote, made fit to be shown: it cannot control a terminal, hide, or change the order of words.

What is replaced are control characters (also those from U+0080 to U+009F), format characters, which have no width or
turn the direction of writing (Unicode Technical Report 36 section 2.10), line and paragraph separators, surrogates,
and what is not assigned or for private use.
"""

import unicodedata
from collections.abc import MutableMapping
from typing import Any

__all__ = ["plain", "plain_event"]

_REPLACED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_KEPT = "\n\t"


def plain(text: str, kept: str = _KEPT) -> str:
    """Return the text with each character that could do harm replaced; those of `kept` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_harmless(character, kept) else _REPLACEMENT for character in text)


def plain_event(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make every text of a log line plain; a processor of structlog."""
    return {plain(str(name), ""): _plain_value(value) for name, value in event.items()}


def _is_harmless(character: str, kept: str) -> bool:
    return character in kept or unicodedata.category(character) not in _REPLACED


def _plain_value(value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    return plain(value if isinstance(value, str) else str(value))
