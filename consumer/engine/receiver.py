"""Receives commands: verify, decode, deduplicate, check the sequence, store; acknowledged once that is committed."""

import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime

import structlog

from broker.contract.codec import DecodeError, decode_commands
from broker.contract.commands import COMMAND_TYPES, InvalidParameters, parse_parameters
from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys
from broker.contract.dsse import SignatureError
from broker.contract.messages import Command, RefusedMessage, SequenceNumber
from broker.contract.states import ErrorCode
from broker.contract.topics import Channel
from broker.mqtt.inbound import Inbound
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.gaps import Gaps
from consumer.engine.refusals import Refusals
from consumer.errors import EnrolmentError, StoreFull
from consumer.handler import Result, check_expiry
from consumer.ports import Clock, CommandStore, EncodedFeedback, Notice, StoredCommand
from consumer.trust.plausibility import check_epoch, check_version
from consumer.trust.ports import TrustedKeys
from consumer.trust.refusal import Refusal
from consumer.trust.verification import ReceivedFrame, Verifier

__all__ = [
    "CommandReceiver",
]


_log = structlog.get_logger(__name__)


class CommandReceiver:
    """Decides whether to store each received command. An invalid message is refused and never blocks the next one.

    `stored` are the commands that the last call of `receive` has stored; with `keeps_traces`, they have the contexts of
    their messages.
    """

    def __init__(
        self,
        store: CommandStore,
        feedback: FeedbackFactory,
        clock: Clock,
        verifier: Verifier,
        trusted_keys: TrustedKeys,
        refusals: Refusals,
        gaps: Gaps,
        *,
        keeps_traces: bool = False,
    ) -> None:
        self._store = store
        self._feedback = feedback
        self._clock = clock
        self._verifier = verifier
        self._trusted_keys = trusted_keys
        self._refusals = refusals
        self._gaps = gaps
        self._keeps_traces = keeps_traces
        self.stored: list[StoredCommand] = []

    def receive(self, messages: Sequence[Inbound]) -> list[Notice]:
        """Store the accepted commands, all or none, and return the feedback to send after the commit.

        A command that finds no room is dropped: it was not accepted, so its server sends it again; `gaps` asks for it
        once there is room. Raises StoreFull if there is no room at all, and StoreError; then nothing was stored, and no
        message may be acknowledged.
        """
        feedback: list[Notice] = []
        self.stored = []
        self._verifier.verify_ahead(Channel.COMMAND, [message.payload for message in messages])
        with self._store.transaction():
            for message in messages:
                feedback += self._receive_one(message)
        return feedback

    def _receive_one(self, message: Inbound) -> list[Notice]:
        topic = message.delivery.topic
        try:
            opened = self._open(message)
            now = self._clock.now()
            commands = self._decode(message, opened, now)
        except (DecodeError, SignatureError) as error:
            self._refusals.refuse(Refusal(error.code, str(error)), topic=topic)
            return []
        if opened.refusal is not None:
            self._refusals.refuse(opened.refusal, topic=topic)
        else:
            self._refusals.accepted()
        trace = self._trace_of(message) if message.delivery.trace is not None else None
        answers = [self._admit(command, opened, now, trace) for command in commands]
        return [answer for answer in answers if answer is not None]

    def _trace_of(self, message: Inbound) -> str | None:
        trace = message.delivery.trace
        return trace.text if trace is not None and trace.is_sampled and self._keeps_traces else None

    def _open(self, message: Inbound) -> ReceivedFrame:
        if message.retained:
            raise DecodeError("A retained command was refused; publish commands without retain.", code="retained")
        return self._verifier.open(Channel.COMMAND, message.payload)

    def _decode(self, message: Inbound, opened: ReceivedFrame, now: datetime) -> list[Command]:
        return decode_commands(opened.frame, received_at=now, new_id=lambda: self._id_for(message))

    def _id_for(self, message: Inbound) -> str:
        """Return an id for a command without one; its redelivery (MQTT 5 section 3.3.1.1) gets the same id."""
        delivery = message.delivery
        fingerprint = hashlib.sha256(delivery.payload).hexdigest()[:16]
        stem = f"mqtt-{delivery.mid}-{fingerprint}-"
        known = self._store.find_id(stem) if delivery.duplicate else None
        return known or stem + uuid.uuid4().hex[:12]

    def _admit(self, command: Command, opened: ReceivedFrame, now: datetime, trace: str | None) -> Notice | None:
        known = self._answer_if_known(command)
        if opened.refusal is not None:
            return known or self._refuse(command, ErrorCode.REJECTED, opened.refusal.message, RefusedMessage())
        refusal = self._check_signed(command, opened)
        if refusal is not None:
            return known or self._reject(command, refusal, RefusedMessage())
        refusal = self._update_keys(command, opened.signed_at) if opened.signed_at is not None else None
        if known is not None:
            self._use_up_number(command)
            return known
        if refusal is not None:
            return self._reject(command, refusal)
        return self._admit_new(command, opened, now, trace)

    def _admit_new(self, command: Command, opened: ReceivedFrame, now: datetime, trace: str | None) -> Notice | None:
        if self._has_ended_epoch(command):
            self._ignore(command)
            return None
        check = self._check_sequence if command.sequence else self._check_unnumbered
        answer = check(command, opened)
        if answer is not None:
            return answer
        if command.sequence is not None and command.sequence.number > self._expected(command.sequence.epoch):
            self._gaps.note(command.sequence)
            return None
        try:
            # design.md: "The signers of a command are stored with it"
            self.stored.append(self._store.store_command(command, now, opened.signed_by, trace))
        except StoreFull as error:
            return self._turn_away(command, str(error))
        return self._feedback.accepted(command)

    # design.md: "A full disk stops new commands, not the reporting of old ones"
    def _turn_away(self, command: Command, reason: str) -> Notice | None:
        if command.sequence is None:  # no server sends it again
            return self._reject(command, Refusal("store_full", f"{reason} Send the command again then."))
        self._gaps.note(command.sequence)
        return None

    def _expected(self, epoch: int) -> int:
        last = self._store.last_sequence
        return last.number + 1 if last and epoch == last.epoch else 1

    def _check_signed(self, command: Command, opened: ReceivedFrame) -> Refusal | None:
        kind = COMMAND_TYPES.get(command.type)
        if opened.signed or kind is None or not kind.signed_only:
            return None
        return Refusal(
            "unsigned",
            f"{command.type} is accepted only if a server signed it, even if the agent accepts unsigned commands.",
        )

    # design.md: "Keys are applied when they arrive, not when their command's turn comes."
    def _update_keys(self, command: Command, signed_at: datetime) -> Refusal | None:
        """Trust the keys of an update before any later message is opened; its handler reports the result later.

        Later messages may be signed by the new keys alone. An attacker with a stolen key can use up numbers and ids,
        end epochs and cancel commands; none of that may delay the list that revokes the key, so only the list's version
        decides whether it is new. Returns why the command must be refused, or None.
        """
        if command.type != UPDATE_SIGNING_KEYS or check_expiry(command, max(self._clock.now(), signed_at)):
            return None
        try:
            keys = parse_parameters(command.type, UpdateSigningKeys, command.parameters)
            refusal = check_version(keys, signed_at)
            if refusal is None:
                self._trusted_keys.update(keys)
            return refusal
        except (InvalidParameters, SignatureError, EnrolmentError) as error:
            _log.warning("signing_keys_not_updated", command_id=command.id, reason=str(error))
            return None

    def _has_ended_epoch(self, command: Command) -> bool:
        """Return whether the command's epoch has ended. If so, it is not answered: the server renumbers an open one."""
        last = self._store.last_sequence
        ended = max(self._store.closed_epoch, last.epoch - 1 if last else 0)
        return command.sequence is not None and command.sequence.epoch <= ended

    def _check_epoch(self, sequence: SequenceNumber, opened: ReceivedFrame) -> Refusal | None:
        last = self._store.last_sequence
        known = max(self._store.closed_epoch, last.epoch if last else 0)
        return check_epoch(sequence, known, opened.signed_at) if opened.signed_at is not None else None

    def _answer_if_known(self, command: Command) -> Notice | None:
        stored = self._store.find(command.id)
        if stored is not None:
            return self._feedback.state_of(stored)
        tombstone = self._store.find_tombstone(command.id)
        return self._feedback.remembered(tombstone) if tombstone else None

    def _use_up_number(self, command: Command) -> None:
        """Count a known command that was renumbered; otherwise the commands after it would wait for its number."""
        sequence, last = command.sequence, self._store.last_sequence
        if sequence is None:
            return
        newer_epoch = last is None or sequence.epoch > last.epoch
        same_epoch = last is not None and sequence.epoch == last.epoch
        if (newer_epoch and sequence.number == 1) or (same_epoch and last and sequence.number == last.number + 1):
            self._store.advance_sequence(sequence)

    def _check_unnumbered(self, command: Command, opened: ReceivedFrame) -> Notice | None:
        """Reject a signed command without a number: it could be replayed once its id is forgotten."""
        if not opened.signed:
            return None
        return self._reject(command, Refusal("unnumbered", "The command is signed but has no sequence number."))

    def _check_sequence(self, command: Command, opened: ReceivedFrame) -> Notice | None:
        sequence = command.sequence
        assert sequence is not None
        refusal = self._check_epoch(sequence, opened)
        if refusal is not None:
            return self._reject(command, refusal, RefusedMessage())
        if sequence.number < self._expected(sequence.epoch):
            self._refusals.superseded()
            return self._refuse(
                command,
                ErrorCode.SUPERSEDED,
                f"Sequence number {sequence.epoch}/{sequence.number} was already used on this agent. "
                f"{self._advice(command)}",
            )
        return None

    def _advice(self, command: Command) -> str:
        if command.type == UPDATE_SIGNING_KEYS:
            return f"It trusts version {self._trusted_keys.version} of the list of signing keys."
        return "Send a new command."

    def _ignore(self, command: Command) -> None:
        assert command.sequence is not None
        epoch = command.sequence.epoch
        refusal = Refusal("ended_epoch", f"A command of epoch {epoch} was ignored: that epoch has ended on this agent.")
        self._refusals.refuse(refusal, "command_of_ended_epoch", command_id=command.id, epoch=epoch)

    def _reject(self, command: Command, refusal: Refusal, data: RefusedMessage | None = None) -> EncodedFeedback:
        self._refusals.refuse(refusal, "command_rejected", command_id=command.id, type=command.type)
        return self._refuse(command, ErrorCode.REJECTED, refusal.message, data)

    def _refuse(
        self, command: Command, code: ErrorCode, message: str, data: RefusedMessage | None = None
    ) -> EncodedFeedback:
        return self._feedback.result(command, Result(message, data, code=code), self._clock.now())
