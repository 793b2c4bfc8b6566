"""Received messages between the wire and the commit: sorted by channel once, opened and decoded here.

Commands are opened by the receiver, which also answers those that it refuses.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from broker.contract.codec import DecodeError, decode_acks, decode_blob_chunks, decode_controls
from broker.contract.dsse import SignatureError
from broker.contract.messages import Ack, BlobChunk, Control
from broker.contract.topics import Channel
from broker.mqtt.inbound import Inbound
from consumer.engine.refusals import Refusals
from consumer.trust.refusal import Refusal
from consumer.trust.verification import Verifier

__all__ = [
    "AgentInbox",
    "SignedAck",
]


_T = TypeVar("_T")


class SignedAck(msgspec.Struct, frozen=True):
    """An ack from the server; `signed_at` is when it was signed by the server's clock, None if it is unsigned."""

    ack: Ack
    signed_at: datetime | None


class AgentInbox:
    """Holds commands, acks and controls until they are committed. An invalid message is refused by itself.

    What one connection has delivered and this agent has not acknowledged comes again on the next one: it is held once.
    """

    def __init__(self, verifier: Verifier, refusals: Refusals) -> None:
        self._verifier = verifier
        self._refusals = refusals
        self._arrived: list[Inbound] = []
        self._held: dict[Channel, list[Inbound]] = {
            Channel.COMMAND: [],
            Channel.ACK: [],
            Channel.CONTROL: [],
        }

    def put(self, arrived: Sequence[Inbound]) -> list[Inbound]:
        """Hold the messages that need a commit, and return the others: chunks of blobs."""
        chunks: list[Inbound] = []
        for message in arrived:
            held = self._held.get(message.channel)
            if held is None:
                chunks.append(message)
            else:
                held.append(message)
                self._arrived.append(message)
        return chunks

    def __len__(self) -> int:
        return len(self._arrived)

    def commands(self) -> list[Inbound]:
        """Return the held commands, still unopened."""
        return self._held[Channel.COMMAND]

    def acks(self) -> list[SignedAck]:
        """Return the held acks that are authentic."""
        return [SignedAck(*opened) for opened in self._opened(Channel.ACK, decode_acks)]

    def controls(self) -> list[Control]:
        """Return the held controls that are authentic."""
        return [control for control, _ in self._opened(Channel.CONTROL, decode_controls)]

    def chunks(self, messages: Sequence[Inbound]) -> list[BlobChunk]:
        """Return the chunks in these messages. They need no signature: a signed command names the blob's hash."""
        return [chunk for message in messages for chunk in self._readable(message, decode_blob_chunks)]

    def take(self) -> list[Inbound]:
        """Release and return all held messages, in order of arrival, as their PUBACKs must be (MQTT 5 section 4.6)."""
        held = self._arrived
        self._held = {channel: [] for channel in self._held}
        self._arrived = []
        return held

    def _opened(self, channel: Channel, decode: Callable[[bytes], list[_T]]) -> list[tuple[_T, datetime | None]]:
        def read(payload: bytes) -> list[tuple[_T, datetime | None]]:
            opened = self._verifier.open(channel, payload)
            return [(message, opened.signed_at) for message in decode(opened.trusted())]

        found = [item for message in self._held[channel] for item in self._readable(message, read)]
        if found:
            self._refusals.accepted()
        return found

    def _readable(self, message: Inbound, read: Callable[[bytes], list[_T]]) -> list[_T]:
        topic = message.delivery.topic
        try:
            if message.retained:
                raise DecodeError(
                    f"A retained message on {topic} was refused; publish without retain.", code="retained"
                )
            return read(message.payload)
        except (DecodeError, SignatureError) as error:
            self._refusals.refuse(Refusal(error.code, str(error)), topic=topic)
            return []
