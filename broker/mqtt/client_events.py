"""What the client behind a connection is asked for, and what it reports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from broker.contract.trace_context import TraceContext
from broker.mqtt.broker_limits import BrokerLimits

__all__ = ["ClientSession", "Events", "Message"]


class Message(msgspec.Struct, frozen=True):
    """A message as received; `mid` is its packet id, 0 at QoS 0; `trace` is in its user properties, if it is valid."""

    topic: str
    payload: bytes
    retain: bool
    dup: bool
    mid: int
    trace: TraceContext | None = None


@dataclass(frozen=True)
class ClientSession:
    """What the client requests when it connects: `will` makes the last will of each attempt, in the network thread."""

    client_id: str
    clean_start: bool
    expiry_s: int
    will: tuple[str, Callable[[], bytes]] | None


class Events(Protocol):
    """What happens on the connection, called in the network thread. Reasons are texts for people."""

    def accepted(self, limits: BrokerLimits, *, session_present: bool) -> None:
        """The broker has accepted this client."""

    def not_accepted(self, reason: str) -> None:
        """An attempt to connect has failed."""

    def lost(self, code: int | None, reason: str, *, abandoned: bool) -> None:
        """An accepted connection has ended; `code` is that of the broker's DISCONNECT, or None.

        `abandoned` is whether `PahoClient.abandon` has ended it.
        """

    def subscribed(self, failures: Sequence[str | None]) -> None:
        """The broker has answered the SUBSCRIBE: why each topic was refused, or None."""

    def published(self, topic: str, failure: str | None) -> None:
        """The broker has answered one or more messages on this topic."""

    def received(self, messages: Sequence[Message]) -> None:
        """These messages have arrived, in this order."""

    def failed(self, error: Exception) -> None:
        """One of these methods has raised this error."""
