"""Names and ids in the paths of more than one router."""

from typing import Annotated

from fastapi import Path

__all__ = [
    "AgentName",
    "TokenId",
]


AgentName = Annotated[str, Path(description="Name of the agent.", max_length=64, examples=["web-01"])]
TokenId = Annotated[
    str, Path(description="The id of the token.", max_length=64, examples=["0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"])
]
