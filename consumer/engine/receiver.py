"""Takes deliveries in: verify, decode, dedupe, sequence; store them; they may be PUBACKed once that is committed."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from broker.contract.codec import DecodeError, decode_commands
from broker.contract.commands import COMMAND_TYPES, InvalidParameters, parse_parameters
from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys
from broker.contract.dsse import RefusedMessage, SignatureError
from broker.contract.messages import Command, Feedback, SequenceNumber
from broker.contract.states import ErrorCode
from broker.contract.topics import Channel
from broker.mqtt.delivery import Delivery
from broker.system.log_throttle import LogThrottle
from consumer.engine.feedback import FeedbackFactory
from consumer.errors import EnrolmentError
from consumer.handler import Result, expired
from consumer.ports import Clock, CommandStore
from consumer.trust.plausibility import epoch_too_far, version_too_far
from consumer.trust.ports import KeyKeeper
from consumer.trust.verification import ReceivedFrame, Verifier

__all__ = [
    "CommandReceiver",
    "Receipt",
]


_log = structlog.get_logger(__name__)


@dataclass
class Receipt:
    """What became of a batch: feedback to publish, and why messages were refused, one sentence each.

    `taken` counts the messages that were not refused as a whole.
    """

    feedback: list[Feedback] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    taken: int = 0


class CommandReceiver:
    """Decides about each arriving command. A bad message is refused alone and never blocks the one behind it."""

    def __init__(
        self,
        store: CommandStore,
        reports: FeedbackFactory,
        clock: Clock,
        verifier: Verifier,
        keeper: KeyKeeper,
    ) -> None:
        self._store = store
        self._reports = reports
        self._clock = clock
        self._verifier = verifier
        self._keeper = keeper
        self._seldom = LogThrottle(clock.monotonic)

    def receive(self, deliveries: Sequence[Delivery]) -> Receipt:
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
            opened = self._open(delivery)
            commands = self._decode(delivery, opened)
        except (DecodeError, SignatureError) as error:
            self._warn("message_refused", topic=delivery.topic, reason=str(error))
            receipt.refused.append(str(error))
            return
        if opened.refusal is not None:
            self._warn("message_refused", topic=delivery.topic, reason=opened.refusal)
            receipt.refused.append(opened.refusal)
        else:
            receipt.taken += 1
        for command in commands:
            said = self._admit(command, opened)
            if said is not None:
                receipt.feedback.append(said)
                if said.code is ErrorCode.REJECTED and opened.refusal is None:
                    receipt.refused.append(said.message)
            elif command.sequence is not None:
                reason = f"A command of epoch {command.sequence.epoch} was ignored: that epoch has ended here."
                self._warn("command_of_an_ended_epoch", command_id=command.id, epoch=command.sequence.epoch)
                receipt.refused.append(reason)

    def _warn(self, event: str, **facts: Any) -> None:
        held_back = self._seldom.due(event)
        if held_back is not None:
            _log.warning(event, **facts, suppressed=held_back)

    def _open(self, delivery: Delivery) -> ReceivedFrame:
        if delivery.retained:
            raise DecodeError("A retained message on the command topic was refused: publish commands without retain.")
        return self._verifier.open(Channel.COMMAND, delivery.payload)

    def _decode(self, delivery: Delivery, opened: ReceivedFrame) -> list[Command]:
        return decode_commands(opened.frame, received_at=self._clock.now(), new_id=lambda: self._id_for(delivery))

    def _id_for(self, delivery: Delivery) -> str:
        """Name a command that has no id so that its redelivery (MQTT 5 section 3.3.1.1) is known again."""
        fingerprint = hashlib.sha256(delivery.payload).hexdigest()[:16]
        stem = f"mqtt-{delivery.mid}-{fingerprint}-"
        known = self._store.find_id(stem) if delivery.duplicate else None
        return known or stem + uuid.uuid4().hex[:12]

    def _admit(self, command: Command, opened: ReceivedFrame) -> Feedback | None:
        known = self._known(command)
        disbelief = opened.refusal or self._unsigned_though_it_must_be(command, opened)
        if disbelief is not None:
            return known or self._refuse(command, ErrorCode.REJECTED, disbelief, RefusedMessage())
        far = self._trust_at_once(command, opened.signed_at) if opened.signed_at is not None else None
        if known is not None:
            self._count(command)
            return known
        if far is not None:
            return self._refuse(command, ErrorCode.REJECTED, far)
        return self._admit_in_turn(command, opened)

    def _admit_in_turn(self, command: Command, opened: ReceivedFrame) -> Feedback | None:
        if self._is_of_an_ended_epoch(command):
            return None
        refusal = self._out_of_sequence(command, opened) if command.sequence else self._unnumbered(command, opened)
        if refusal is not None:
            return refusal
        self._store.store_command(command, self._clock.now(), opened.signed_by)
        return self._reports.accepted(command)

    def _unsigned_though_it_must_be(self, command: Command, opened: ReceivedFrame) -> str | None:
        kind = COMMAND_TYPES.get(command.type)
        if opened.signed or kind is None or not kind.signed_only:
            return None
        return f"{command.type} is taken only from a server that signs it, whatever else this agent accepts."

    def _trust_at_once(self, command: Command, signed_at: datetime) -> str | None:
        """Let keys that a command brings be trusted before what came behind it is opened; the handler reports on it.

        What is behind it may be signed by the new keys alone. And whoever has stolen a key can use up numbers and ids,
        end epochs and cancel: none of that may hold up the list that revokes it, whose version alone says whether it
        is new. Returns why the command must be refused, if it must.
        """
        if command.type != UPDATE_SIGNING_KEYS or expired(command, max(self._clock.now(), signed_at)):
            return None
        try:
            said = parse_parameters(command.type, UpdateSigningKeys, command.parameters)
            far = version_too_far(said, signed_at)
            if far is None:
                self._keeper.update(said)
            return far
        except (InvalidParameters, SignatureError, EnrolmentError) as error:
            _log.warning("signing_keys_not_updated", command_id=command.id, reason=str(error))
            return None

    def _is_of_an_ended_epoch(self, command: Command) -> bool:
        """A command that is still open comes again under a new number: an answer now would be a second result."""
        last = self._store.last_sequence
        ended = max(self._store.closed_epoch, last.epoch - 1 if last else 0)
        return command.sequence is not None and command.sequence.epoch <= ended

    def _leads_too_far(self, asked: SequenceNumber, opened: ReceivedFrame) -> str | None:
        last = self._store.last_sequence
        known = max(self._store.closed_epoch, last.epoch if last else 0)
        return epoch_too_far(asked, known, opened.signed_at) if opened.signed_at is not None else None

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

    def _unnumbered(self, command: Command, opened: ReceivedFrame) -> Feedback | None:
        """Refuse a signed command without a number: it could be sent again once its id is forgotten."""
        if not opened.signed:
            return None
        return self._refuse(command, ErrorCode.REJECTED, "The command is signed, but has no sequence number.")

    def _out_of_sequence(self, command: Command, opened: ReceivedFrame) -> Feedback | None:
        asked, last = command.sequence, self._store.last_sequence
        assert asked is not None
        far = self._leads_too_far(asked, opened)
        if far is not None:
            return self._refuse(command, ErrorCode.REJECTED, far, RefusedMessage())
        expected = last.number + 1 if last and asked.epoch == last.epoch else 1
        if asked.number < expected:
            return self._refuse(
                command,
                ErrorCode.SUPERSEDED,
                f"Number {asked.number} of epoch {asked.epoch} is in the past for this agent; {self._advice(command)}.",
            )
        return self._reports.gap(asked, expected) if asked.number > expected else None

    def _advice(self, command: Command) -> str:
        if command.type == UPDATE_SIGNING_KEYS:
            return f"of the lists of signing keys it goes by version {self._keeper.version}"
        return "send a new command"

    def _refuse(self, command: Command, code: ErrorCode, message: str, data: RefusedMessage | None = None) -> Feedback:
        return self._reports.result(command, Result(message, data, code=code), self._clock.now())
