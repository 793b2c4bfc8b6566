"""Takes deliveries in: size, decode, dedupe, sequence; store them; they may be PUBACKed once that is committed."""

import hashlib
import uuid
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field
from typing import Any

import structlog

from broker.contract.codec import DecodeError, decode_commands
from broker.contract.messages import Command, Feedback
from broker.contract.seldom import Seldom
from broker.contract.states import ErrorCode
from broker.mqtt import Delivery
from consumer.handlers.base import Result
from consumer.ports import Clock, CommandStore
from consumer.reports import Reports

__all__ = ["CommandReceiver", "Receipt"]

_log = structlog.get_logger(__name__)


@dataclass
class Receipt:
    """What became of a batch: feedback to publish, and why messages were refused, one sentence each."""

    feedback: list[Feedback] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class CommandReceiver:
    """Decides about each arriving command. A bad message is refused alone and never blocks the one behind it."""

    def __init__(self, store: CommandStore, reports: Reports, clock: Clock, *, accept_unsigned: bool) -> None:
        self._store = store
        self._reports = reports
        self._clock = clock
        self._accept_unsigned = accept_unsigned
        self._seldom = Seldom(clock.monotonic)

    def receive(self, deliveries: Listing[Delivery]) -> Receipt:
        """Store what must be stored, all or nothing. Once that is committed, all deliveries may be acknowledged.

        Raises StoreFull or StoreError, and then nothing was stored and nothing may be acknowledged.
        """
        receipt = Receipt()
        with self._store.transaction():
            for delivery in deliveries:
                self._receive_one(delivery, receipt)
        return receipt

    def _receive_one(self, delivery: Delivery, receipt: Receipt) -> None:
        try:
            commands = self._decode(delivery)
        except DecodeError as error:
            self._warn("message_refused", topic=delivery.topic, reason=str(error))
            receipt.refused.append(str(error))
            return
        for command in commands:
            said = self._admit(command)
            if said is not None:
                receipt.feedback.append(said)
            elif command.sequence is not None:
                reason = f"A command of epoch {command.sequence.epoch} was ignored: that epoch has ended here."
                self._warn("command_of_an_ended_epoch", command_id=command.id, epoch=command.sequence.epoch)
                receipt.refused.append(reason)

    def _warn(self, event: str, **facts: Any) -> None:
        held_back = self._seldom.due(event)
        if held_back is not None:
            _log.warning(event, **facts, like_it_since=held_back)

    def _decode(self, delivery: Delivery) -> list[Command]:
        if delivery.retained:
            raise DecodeError("A retained message on the command topic was refused: publish commands without retain.")
        return decode_commands(delivery.payload, received_at=self._clock.now(), new_id=lambda: self._id_for(delivery))

    def _id_for(self, delivery: Delivery) -> str:
        """Name a command that has no id so that its redelivery (MQTT 5 section 3.3.1.1) is known again."""
        fingerprint = hashlib.sha256(delivery.payload).hexdigest()[:16]
        stem = f"mqtt-{delivery.mid}-{fingerprint}-"
        known = self._store.find_id(stem) if delivery.duplicate else None
        return known or stem + uuid.uuid4().hex[:12]

    def _admit(self, command: Command) -> Feedback | None:
        known = self._known(command)
        if known is not None:
            self._count(command)
            return known
        if self._is_of_an_ended_epoch(command):
            return None
        refusal = self._out_of_sequence(command) if command.sequence else self._unsigned(command)
        if refusal is not None:
            return refusal
        self._store.store_command(command, self._clock.now())
        return self._reports.accepted(command)

    def _is_of_an_ended_epoch(self, command: Command) -> bool:
        """A command that is still open comes again under a new number: an answer now would be a second result."""
        last = self._store.last_sequence
        ended = max(self._store.closed_epoch, last.epoch - 1 if last else 0)
        return command.sequence is not None and command.sequence.epoch <= ended

    def _known(self, command: Command) -> Feedback | None:
        stored = self._store.find(command.id)
        if stored is not None:
            return self._reports.state_of(stored)
        tombstone = self._store.find_tombstone(command.id)
        return tombstone.result if tombstone else None

    def _count(self, command: Command) -> None:
        """Let a known command that was numbered anew use up its number, or those behind it would wait for ever."""
        sequence, last = command.sequence, self._store.last_sequence
        if sequence is None:
            return
        newer_epoch = last is None or sequence.epoch > last.epoch
        same_epoch = last is not None and sequence.epoch == last.epoch
        if (newer_epoch and sequence.number == 1) or (same_epoch and last and sequence.number == last.number + 1):
            self._store.advance_sequence(sequence)

    def _unsigned(self, command: Command) -> Feedback | None:
        if self._accept_unsigned:
            return None
        return self._refuse(
            command,
            ErrorCode.REJECTED,
            "This agent refuses commands that did not come through its server; "
            "send it with `acm send`, or run the agent with --accept-unsigned.",
        )

    def _out_of_sequence(self, command: Command) -> Feedback | None:
        asked, last = command.sequence, self._store.last_sequence
        assert asked is not None
        expected = last.number + 1 if last and asked.epoch == last.epoch else 1
        if asked.number < expected:
            return self._refuse(
                command,
                ErrorCode.SUPERSEDED,
                f"Number {asked.number} of epoch {asked.epoch} is in the past for this agent; send a new command.",
            )
        return self._reports.gap(asked, expected) if asked.number > expected else None

    def _refuse(self, command: Command, code: ErrorCode, message: str) -> Feedback:
        return self._reports.result(command, Result(message, code=code), self._clock.now())
