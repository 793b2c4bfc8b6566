"""The messages on the wire, as frozen dataclasses.

Times are aware datetimes in UTC (RFC 3339 on the wire), durations are seconds, sizes are bytes. Optional members that
are None are left out of the JSON.

dataclasses-json declares here how each member is written. The codec decodes and encodes by msgspec: dataclasses-json
coerces types silently and takes 50 times as long. A test holds both to the same output.
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
from broker.text import rfc3339

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
    "RunningProgress",
    "SequenceNumber",
    "Status",
    "wire_members",
]


JsonObject = dict[str, Any]
MAX_BLOB_CHUNK_BYTES = 1 << 17  # before base64
MAX_BLOB_REQUEST_BYTES = 1 << 20


def _time() -> Any:
    return field(metadata=config(encoder=rfc3339))


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def _optional(encoder: Callable[[Any], Any] | None = None) -> Any:
    return field(default=None, metadata=config(encoder=encoder, exclude=lambda value: value is None))


def _optional_time() -> Any:
    return _optional(rfc3339)


def _tuple_if_any() -> Any:
    return field(default=(), metadata=config(encoder=list, exclude=lambda value: not value))


@dataclass(frozen=True)
class Origin(DataClassJsonMixin):
    """The source of a command: a node or user, and the module that sent it."""

    name: str
    module: str


@dataclass(frozen=True)
class SequenceNumber(DataClassJsonMixin):
    """A command's number for its agent: contiguous, and starting at 1 in each epoch."""

    epoch: int
    number: int


@dataclass(frozen=True)
class Command(DataClassJsonMixin):
    """A command for one agent.

    `id` is a UUIDv7 if our server assigned it, else any text of at most 128 characters; it is the idempotency key.
    `original` is the JSON of a foreign form as received, so that feedback can echo it; `notes` names the fields that
    were filled in or ignored.
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
    """Output of a command's program, cut to a maximum size; `truncated` is true if there was more."""

    stdout: str = ""
    stderr: str = ""
    truncated: bool = False


@dataclass(frozen=True)
class Feedback(DataClassJsonMixin):
    """An agent's report on one command or, for a gap, on the sequence.

    `command` echoes the command as received, with its `status`. A result has the status "completed", an outcome, and a
    digest that the ack must repeat; to the server the digest is opaque. `accepts_unsigned` is true or absent: an agent
    that accepts unsigned commands reports it in every feedback.
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
    """The server's confirmation that it has committed the result with this digest."""

    command_id: str
    digest: str


@dataclass(frozen=True)
class Control(DataClassJsonMixin):
    """A request that takes effect at once, without waiting in the queue.

    `command_id` is the command to cancel or, for `report`, the id of the request, which the status repeats.
    """

    action: ControlAction
    command_id: str


@dataclass(frozen=True)
class PendingReversal(DataClassJsonMixin):
    """An active response that will be reversed: its script, the keys that the script reported, and when.

    `state` is `waiting`, or `failed` if the script failed to reverse it and is not retried for now.
    """

    script: str
    keys: tuple[str, ...]
    command_id: str
    state: Literal["waiting", "failed"]
    reverses_at: datetime = _time()


@dataclass(frozen=True)
class JournalMark(DataClassJsonMixin):
    """A position in an agent's audit journal: the number of an entry, and the hash over all entries up to it."""

    number: Annotated[int, msgspec.Meta(ge=0)]
    hash: Sha256


@dataclass(frozen=True)
class RunningProgress(DataClassJsonMixin):
    """How far the running command is: the name of its phase, such as `download`, and how much of that is done.

    `percent` is absent if the phase does not know it.
    """

    phase: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    percent: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = _optional()

    def __str__(self) -> str:
        return self.phase if self.percent is None else f"{self.phase} {self.percent} %"


@dataclass(frozen=True)
class Status(DataClassJsonMixin):
    """The agent's retained status; its last will replaces it with one whose `online` is false.

    `closed_epoch` is the last epoch of a lost store: commands of that epoch, or an earlier one, are ignored. `groups`
    are the groups set by `set-group`; absent if it never ran. `clock_behind_s`, rounded to whole minutes, is present if
    the machine's clock is more than a minute behind the server's. `signing_keys_version` is the version of the list of
    signing keys that an enrolled agent trusts, `enrolment_id` its current enrolment. `pending_reversals` has the first
    50 of `pending_reversal_count`, with long keys truncated. `audit_head` is the end of the agent's audit journal.

    `problems` are the codes (`broker.contract.states.Problem`) of what `last_error` says in sentences; absent if
    nothing is wrong, or if an earlier version of the agent sent it.

    `order` has the place of this status among all that came from the same store, compared from left to right: the start
    of the agent, the attempt to connect, and the number of the status; that of a last will is the largest. `answers` is
    the id of the last request to report.
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
    running_progress: RunningProgress | None = _optional()
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
    order: tuple[int, int, int] | None = _optional(list)
    answers: str | None = _optional()
    problems: tuple[str, ...] | None = _optional(list)
    last_error: str | None = _optional()
    updated_at: datetime | None = _optional_time()


@dataclass(frozen=True)
class BlobRequest(DataClassJsonMixin):
    """An agent's request for `length` bytes, from `offset` on, of the blob with the SHA-256 `name`."""

    name: Sha256
    offset: Annotated[int, msgspec.Meta(ge=0)]
    length: Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOB_REQUEST_BYTES)]


@dataclass(frozen=True)
class BlobChunk(DataClassJsonMixin):
    """A part of a blob of `size` bytes: `data`, in base64 on the wire, begins at `offset`.

    If the blob cannot be served, `error` is one sentence, and `size` and `data` are absent.
    """

    name: Sha256
    offset: Annotated[int, msgspec.Meta(ge=0)]
    size: int | None = _optional()
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_BLOB_CHUNK_BYTES)] | None = _optional(_base64)
    error: str | None = _optional()


def wire_members(message: DataClassJsonMixin) -> JsonObject:
    """Return the members of a message that go on the wire; their values are not yet JSON."""
    members = {name: value for name, value in vars(message).items() if value is not None}
    if not members.get("notes", True):
        del members["notes"]
    return members
