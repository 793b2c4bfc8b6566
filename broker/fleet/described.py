"""Descriptions of members of shapes, for the OpenAPI document."""

from typing import Any

import msgspec

__all__ = [
    "says",
]


def says(description: str, *examples: Any, **limits: Any) -> Any:
    """Return what belongs into `Annotated` for a member: its description, examples in JSON, and limits of msgspec."""
    return msgspec.Meta(description=description, examples=list(examples) or None, **limits)
