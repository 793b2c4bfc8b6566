"""The rows of the command store: their keys and shapes, and how a command is assembled from them."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec.structs import replace

from broker.contract.messages import Command, Feedback, Origin, SequenceNumber, wire_members
from broker.contract.states import State
from consumer.ports import EncodedFeedback, StoredCommand, TimeSample
from consumer.store.journal import JournalTail
from consumer.store.row_check import without_check

__all__ = [
    "CANCEL",
    "CHECK",
    "COMMAND",
    "DELETED",
    "GENERATION",
    "HEAD",
    "RAW",
    "RESULT",
    "SENTINEL",
    "CommandRow",
    "DeletedRow",
    "HeadRow",
    "Processing",
    "assemble",
    "command_key",
    "copy_of_generation",
    "decode_command_row",
    "decode_deleted_row",
    "decode_head",
    "decode_result",
    "decode_time",
    "encode",
    "generation_of",
    "id_in_key",
    "unreadable_command",
]


RAW = 1  # diskcache's mode for bytes kept in the row
encode = msgspec.json.Encoder().encode
COMMAND, RESULT, DELETED, CANCEL = "c/", "r/", "d/", "x/"
_ID_AT = len(COMMAND) + 17
_NO_ORIGIN = Origin("unreadable", "unreadable")
SENTINEL, GENERATION, HEAD, CHECK = "m/sentinel", "m/store_generation", "m/head", "m/check"


# design.md: "A command's row is written once; its result is a second row."
class CommandRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """The row of a command, written once; earlier versions did not write `signed_by` and `trace`."""

    command: Command
    received_at: datetime
    signed_by: tuple[str, ...] | None = None
    trace: str | None = None


class Processing(msgspec.Struct, frozen=True):
    """When a command in processing began, and by which incarnation of the agent."""

    started_at: datetime
    begun_by: str


class HeadRow(msgspec.Struct, frozen=True):
    """The one row that changes with every commit: the commands in processing, by their keys, and the last numbers.

    `check` is a hash of all but the journal, which has its own, and `generation`, a copy of the store_generation with
    its own check; earlier versions did not write them. `starts` is in no check: a server asks an agent whose statuses
    seem to go back. `grouped` tells that rows are in groups: a version that does not know those then takes the head for
    damaged and sets the store aside, so that each command is reported as `interrupted`, and none is forgotten.
    """

    arrival: int = 0
    last_sequence: SequenceNumber | None = None
    closed_epoch: int = 0
    processing: dict[str, Processing] = {}
    journal: JournalTail = msgspec.field(default_factory=JournalTail)
    heard_time: TimeSample | None = None
    check: str | None = None
    generation: str | None = None
    starts: int = 0
    grouped: bool = False

    def checked(self) -> "HeadRow":
        """Return the row with its check."""
        return replace(self, check=self._hash())

    def is_whole(self) -> bool:
        """Return whether the row is what was written, as far as its check says."""
        return self.check in (None, self._hash())

    def _hash(self) -> str:
        content = encode([self.arrival, self.last_sequence, self.closed_epoch, self.processing, self.heard_time])
        content += b"grouped" if self.grouped else b""
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class DeletedRow:
    """Commands that were deleted together. Their results stay, as tombstones, until this expires."""

    command_ids: list[str]
    expires_at: datetime


decode_command_row = msgspec.json.Decoder(CommandRow).decode
decode_deleted_row = msgspec.json.Decoder(DeletedRow).decode
_decode_head = msgspec.json.Decoder(HeadRow).decode
_decode_feedback = msgspec.json.Decoder(Feedback).decode


def decode_head(row: bytes) -> HeadRow:
    """Return the head; raises ValueError if it was altered since it was written."""
    head = _decode_head(row)
    if not head.is_whole():
        raise ValueError("its content is not what was written")
    return head


def copy_of_generation(generation: str) -> str:
    """Return the store_generation with a check, for the head row."""
    return f"{generation}/{hashlib.sha256(generation.encode()).hexdigest()[:16]}"


def generation_of(row: bytes, copy: str | None) -> str:
    """Return the store_generation: that of the head row's copy, unless the disk has altered it, else that of its row.

    Raises ValueError if neither can be read.
    """
    generation = (copy or "").partition("/")[0]
    return generation if copy == copy_of_generation(generation) else row.decode("ascii")


def command_key(arrival: int, command_id: str) -> str:
    """Return the key of a command's row; keys sort by arrival. Earlier versions wrote no id into it."""
    return f"{COMMAND}{arrival:016d}/{command_id}"


def id_in_key(key: str) -> str | None:
    """Return the id of a command from its row's key; None if an earlier version wrote it."""
    return key[_ID_AT:] or None


def unreadable_command(command_id: str, received_at: datetime) -> CommandRow:
    """Return what stands in for a row that the disk has altered: nothing but the command's id."""
    return CommandRow(Command(command_id, "unreadable", {}, _NO_ORIGIN, received_at), received_at)


def decode_result(row: bytes) -> EncodedFeedback:
    """Return the result in a row, which has the form that is sent; earlier versions wrote absent members as null."""
    row = without_check(row)
    feedback = _decode_feedback(row)
    is_wire_form = row.endswith(b'"}')  # the digest is its last member; it used to be an array of notes
    return EncodedFeedback(feedback, row if is_wire_form else encode(wire_members(feedback)))


def decode_time(row: bytes) -> datetime:
    """Return the time in the row of a cancel; raises ValueError."""
    return datetime.fromisoformat(row.decode())


def assemble(
    key: str, arrived: CommandRow | StoredCommand, begun: Processing | None, result: EncodedFeedback | None
) -> StoredCommand:
    """Return a command from its row, its entry in the head row, and its result's row."""
    state = State.DONE if result else State.PROCESSING if begun else State.PENDING
    started_at = result.feedback.started_at if result else begun.started_at if begun else None
    begun_by = begun.begun_by if begun else None
    return StoredCommand(
        key,
        arrived.command,
        state,
        arrived.received_at,
        started_at,
        begun_by,
        result,
        arrived.signed_by,
        trace=arrived.trace,
    )
