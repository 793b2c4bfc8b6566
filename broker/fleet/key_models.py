"""The signing keys as an operator sees them: the shapes that the API and its client share. Times are UTC."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from broker.fleet.described import says

__all__ = [
    "SigningKeyView",
    "SigningKeysView",
]


@dataclass(frozen=True)
class SigningKeyView:
    """A key that signs messages to agents, without its private part."""

    id: Annotated[str, says("The id of the key.", "3f9c2a7d5b1e8064")]
    state: Annotated[str, says("`active`: it signs, and agents trust it; or `revoked`.", "active")]
    created_at: Annotated[datetime, says("When it was created.")]
    revoked_at: Annotated[datetime | None, says("When it was revoked.")]
    public: Annotated[str, says("The public key in PEM.")]


@dataclass(frozen=True)
class SigningKeysView:
    """The list of signing keys, and how many of the enrolled agents have confirmed it."""

    version: Annotated[int, says("The version of the list; each change makes a greater one.")]
    announced: Annotated[bool, says("Whether this version was sent to the agents; false if that was interrupted.")]
    agents: Annotated[int, says("How many agents are enrolled.", 2)]
    confirmed: Annotated[int, says("How many of them have confirmed this version.", 1)]
    not_confirmed: Annotated[tuple[str, ...], says("The others, in order of name; at most 500.", ["web-02"])]
    keys: Annotated[tuple[SigningKeyView, ...], says("All keys, oldest first.")]
