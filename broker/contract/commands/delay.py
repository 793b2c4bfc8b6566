"""What the commands that act on the managed service have in common."""

from typing import Annotated

from msgspec import Meta

__all__ = ["DelayS"]

DelayS = Annotated[float, Meta(ge=0, le=86400)]
"""How many seconds to wait, on the agent, before the command acts."""
