"""Text columns whose bytes are not UTF-8, since a bit has flipped on the disk: one row must not stop a query."""

__all__ = [
    "DAMAGED_BYTE",
    "text_of_bytes",
]


# What `text_of_bytes` writes for a byte that is not UTF-8. JSON has no such escape, so a text of JSON stays unreadable.
DAMAGED_BYTE = r"\\x[89a-f][0-9a-f]"


def text_of_bytes(content: bytes) -> str:
    """Return the text in a column; bytes that are not UTF-8 are written as escapes, such as \\xff."""
    return content.decode("utf-8", "backslashreplace")
