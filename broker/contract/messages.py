"""The messages on the wire, as frozen dataclasses.

Times are aware datetimes in UTC (RFC 3339 on the wire), durations are seconds, sizes are bytes.
Absent optional members are left out of the JSON. Here dataclasses-json declares how each member is written, and its
`to_dict` is there for tools. The codec does the decoding, for that library coerces in silence, and the encoding on
the way of a command, for it takes 50 times as long.
"""

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from dataclasses_json import DataClassJsonMixin, config

from broker.contract.fields import Sha256
from broker.contract.states import ControlAction, ErrorCode, FeedbackKind, Outcome

__all__ = [
    "MAX_BLOB_CHUNK_BYTES",
    "MAX_BLOB_REQUEST_BYTES",
    "Ack",
    "BlobChunk",
    "BlobRequest",
    "Command",
    "Control",
    "Feedback",
    "JournalMark",
    "JsonObject",
    "Origin",
    "Output",
    "PendingReversal",
    "RefusedMessage",
    "SequenceNumber",
    "Status",
    "wire_members",
]


JsonObject = dict[str, Any]
MAX_BLOB_CHUNK_BYTES = 1 << 17  # in base64 it fits well into a frame
MAX_BLOB_REQUEST_BYTES = 1 << 20


def _rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _time() -> Any:
    return field(metadata=config(encoder=_rfc3339))


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def _optional(encoder: Callable[[Any], Any] | None = None) -> Any:
    return field(default=None, metadata=config(encoder=encoder, exclude=lambda value: value is None))


def _optional_time() -> Any:
    return _optional(_rfc3339)


def _tuple_if_any() -> Any:
    return field(default=(), metadata=config(encoder=list, exclude=lambda value: not value))


@dataclass(frozen=True)
class Origin(DataClassJsonMixin):
    """Who asked for the command: a node or user, and the module that spoke for it."""

    name: str
    module: str


@dataclass(frozen=True)
class SequenceNumber(DataClassJsonMixin):
    """A command's place in its agent's one contiguous run of numbers, which starts at 1 in each epoch."""

    epoch: int
    number: int


@dataclass(frozen=True)
class Command(DataClassJsonMixin):
    """One thing that one agent must do.

    `original` keeps the JSON of a seed form as it came, so that feedback can echo it; `notes` says which fields were
    filled in or not understood. `id` is a UUIDv7 when our server made it, else any string of at most 128 characters.
    """

    id: str
    type: str
    parameters: JsonObject
    origin: Origin
    created_at: datetime = _time()
    expires_at: datetime | None = _optional_time()
    timeout_s: float | None = _optional()
    sequence: SequenceNumber | None = _optional()
    original: JsonObject | None = _optional()
    notes: tuple[str, ...] = _tuple_if_any()


@dataclass(frozen=True)
class Output(DataClassJsonMixin):
    """What a command's program printed: text, capped in bytes; `truncated` says that there was more."""

    stdout: str = ""
    stderr: str = ""
    truncated: bool = False


@dataclass(frozen=True)
class Feedback(DataClassJsonMixin):
    """What the agent says of one command (or, as a gap, of the sequence).

    `command` echoes the command as the agent received it, with its `status`. A result has status "completed", an
    outcome, and a digest that the ack must repeat; the digest is an opaque token to the server. `accepts_unsigned` is
    true, or absent: an agent that obeys unsigned commands shows it in all that it says.
    """

    kind: FeedbackKind
    agent: str
    store_generation: str
    incarnation: str
    status: str
    message: str
    command_id: str | None = _optional()
    command: JsonObject | None = _optional()
    sequence: SequenceNumber | None = _optional()
    outcome: Outcome | None = _optional()
    code: ErrorCode | None = _optional()
    data: JsonObject | None = _optional()
    output: Output | None = _optional()
    started_at: datetime | None = _optional_time()
    finished_at: datetime | None = _optional_time()
    digest: str | None = _optional()
    expected: int | None = _optional()
    accepts_unsigned: bool | None = _optional()
    notes: tuple[str, ...] = _tuple_if_any()


@dataclass(frozen=True)
class RefusedMessage:
    """The data of a `rejected` result that refuses the message, not the command in it.

    The message was unsigned, or signed by a key or for an enrolment that is no longer valid. The agent accepts the same
    command in a valid message, so a server that signs does not take this as the command's result.
    """

    refused: Literal["message"] = "message"


@dataclass(frozen=True)
class Ack(DataClassJsonMixin):
    """The server's word that it has committed the result with this digest."""

    command_id: str
    digest: str


@dataclass(frozen=True)
class Control(DataClassJsonMixin):
    """A request about a command that must not wait behind the queue."""

    action: ControlAction
    command_id: str


@dataclass(frozen=True)
class PendingReversal(DataClassJsonMixin):
    """An active response that will be taken back: its script, the keys that the script named, and when.

    `state` is `waiting`, or `failed` when the script did not take it back and is not tried again for now.
    """

    script: str
    keys: tuple[str, ...]
    command_id: str
    state: Literal["waiting", "failed"]
    reverses_at: datetime = _time()


@dataclass(frozen=True)
class JournalMark(DataClassJsonMixin):
    """A place in an agent's audit journal: an entry's number, and the hash of all entries up to it."""

    number: Annotated[int, msgspec.Meta(ge=0)]
    hash: Sha256


@dataclass(frozen=True)
class Status(DataClassJsonMixin):
    """The agent's retained word about itself; the last will replaces it by one with `online` false.

    `closed_epoch` is the last epoch of a store that was lost: what is numbered in it, or before, is ignored. `groups`
    are those that the agent was told to be in; absent when it was never told.
    `clock_behind_s`, in whole minutes, is there when the machine's clock is more than a minute behind the server's.
    `signing_keys_version` is that of the list of signing keys that an enrolled agent goes by, `enrolment_id` names the
    enrolment that it lives by.
    `pending_reversals` holds the first 50 of `pending_reversal_count`, with long keys cut short. `audit_head` is where
    the agent's journal ends.
    """

    agent: str
    online: bool
    version: str
    incarnation: str
    boot_id: str
    store_generation: str
    epoch: int | None = _optional()
    closed_epoch: int | None = _optional()
    last_sequence: int = 0
    queue_depth: int = 0
    results_waiting: int = 0
    running_command: str | None = _optional()
    supported_types: tuple[str, ...] = field(default=(), metadata=config(encoder=list))
    accepts_unsigned: bool = False
    clock_behind_s: int | None = _optional()
    signing_keys_version: int | None = _optional()
    enrolment_id: str | None = _optional()
    service: JsonObject | None = _optional()
    groups: tuple[str, ...] | None = _optional(list)
    pending_reversals: tuple[PendingReversal, ...] = ()
    pending_reversal_count: int = 0
    audit_head: JournalMark | None = _optional()
    last_error: str | None = _optional()
    updated_at: datetime | None = _optional_time()


@dataclass(frozen=True)
class BlobRequest(DataClassJsonMixin):
    """An agent's wish for `length` bytes, from `offset` on, of the blob with the SHA-256 `name`."""

    name: Sha256
    offset: Annotated[int, msgspec.Meta(ge=0)]
    length: Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOB_REQUEST_BYTES)]


@dataclass(frozen=True)
class BlobChunk(DataClassJsonMixin):
    """A part of a blob of `size` bytes: `data`, in base64, begins at `offset`.

    Where there is nothing to be had, `error` is one sentence and `size` and `data` are absent.
    """

    name: Sha256
    offset: Annotated[int, msgspec.Meta(ge=0)]
    size: int | None = _optional()
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_BLOB_CHUNK_BYTES)] | None = _optional(_base64)
    error: str | None = _optional()


def wire_members(message: DataClassJsonMixin) -> JsonObject:
    """Return the members of a message that go on the wire, their values not yet written as JSON."""
    members = {name: value for name, value in vars(message).items() if value is not None}
    if not members.get("notes", True):
        del members["notes"]
    return members
