"""Words for people: counts, and text that others wrote, made fit to be shown."""

import unicodedata

__all__ = [
    "counted",
    "plain",
]


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return the count before its word, as in `1 agent` and `2 agents`; `many` where it is not `one` with an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"


_REPLACED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_KEPT = "\n\t"


def plain(text: str, kept: str = _KEPT) -> str:
    """Return the text with each character that could do harm replaced; those of `kept` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_harmless(character, kept) else _REPLACEMENT for character in text)


def _is_harmless(character: str, kept: str) -> bool:
    return character in kept or unicodedata.category(character) not in _REPLACED
