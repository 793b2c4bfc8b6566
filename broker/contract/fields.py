"""Types of fields that several messages share. Each text pattern is declared here, once.

msgspec searches for a pattern anywhere in the text, and `$` also matches before a final line feed, so every pattern
goes through `_matching`.
"""

from typing import Annotated

from msgspec import Meta

__all__ = [
    "NAME_PATTERN",
    "DelayS",
    "FileName",
    "GroupName",
    "Name",
    "Sha256",
]


NAME_PATTERN = "[a-z0-9][a-z0-9._-]{0,62}"
"""The name of an agent, a group, a product or a platform, as a regular expression for the whole text."""


def _matching(pattern: str, description: str) -> Meta:
    """Return the constraint that the whole text matches; valid in Python and in JSON Schema (ECMA-262), without \\Z."""
    return Meta(pattern=rf"^{pattern}$(?!\n)", description=description)


Sha256 = Annotated[str, _matching("[0-9a-f]{64}", "A SHA-256 in lower-case hexadecimal.")]
DelayS = Annotated[float, Meta(ge=0, le=86400)]
"""How many seconds to wait, on the agent, before the command acts."""
Name = Annotated[str, _matching(NAME_PATTERN, "A name: 1 to 63 of a-z, 0-9, `.`, `_`, `-`.")]
GroupName = Annotated[
    str, _matching(NAME_PATTERN, "The name of a group of agents: 1 to 63 of a-z, 0-9, `.`, `_`, `-`.")
]
FileName = Annotated[
    str,
    _matching("[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", "The name of a file, not a path: letters, digits and `.`, `_`, `-`."),
]
