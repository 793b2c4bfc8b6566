"""The enumerations of the protocol: states, outcomes, kinds of feedback, error codes, control actions and problems.

Also the states that the ledger derives from them, and how long a status is valid, in seconds.
"""

from enum import StrEnum

__all__ = [
    "SILENT_AFTER_S",
    "STATUS_INTERVAL_S",
    "AgentState",
    "CommandState",
    "ControlAction",
    "ErrorCode",
    "FeedbackKind",
    "Outcome",
    "Problem",
    "State",
]

STATUS_INTERVAL_S = 300.0  # an agent publishes its status at least as often
SILENT_AFTER_S = 2 * STATUS_INTERVAL_S  # an agent with an older one is not online, whatever that says


class State(StrEnum):
    """The state of a command on its agent; a deleted command has none."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"


class CommandState(StrEnum):
    """A command's state, as the server knows it. Only `completed` is final."""

    QUEUED = "queued"
    SENT = "sent"
    ACCEPTED = "accepted"
    RUNNING = "running"
    COMPLETED = "completed"


class AgentState(StrEnum):
    """What the last status of an agent shows, as docs/glossary.md defines it. `unknown`: it has sent none.

    While no server runs, `acm agents` shows `unknown` instead of `online`.
    """

    ONLINE = "online"
    SILENT = "silent"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


class FeedbackKind(StrEnum):
    """The kind of a feedback message."""

    ACCEPTED = "accepted"
    PROGRESS = "progress"
    RESULT = "result"
    GAP = "gap"


class Outcome(StrEnum):
    """How a completed command ended."""

    SUCCESS = "success"
    ERROR = "error"


class ErrorCode(StrEnum):
    """Why a completed command has the outcome `error`."""

    FAILED = "failed"
    """It ran, but did not succeed."""
    TIMED_OUT = "timed_out"
    """It did not end within its timeout (`--timeout`, else the agent's `default_timeout_s`)."""
    EXPIRED = "expired"
    """It expired (`--expires-in`) before it could begin."""
    CANCELLED = "cancelled"
    """It was cancelled, before it began or while it ran."""
    REJECTED = "rejected"
    """The agent refused it: unsigned, wrongly signed, its key revoked since, or the agent is leaving the server."""
    UNSUPPORTED = "unsupported"
    """The agent has no handler for the type; the message names those that it has."""
    INVALID = "invalid"
    """The parameters are not valid for the type, or the command is too long to be sent."""
    INTERRUPTED = "interrupted"
    """The agent died while it ran, and did not run it again; or its row was damaged, here or in the ledger."""
    SUPERSEDED = "superseded"
    """Its sequence number is in the past."""


class ControlAction(StrEnum):
    """What a control message requests."""

    CANCEL = "cancel"
    """Cancel a command."""
    REPORT = "report"
    """Publish the status, with the id of this request in `answers`."""


class Problem(StrEnum):
    """What is wrong with an agent, in the order of its sentences in `last_error`: what stops commands comes first."""

    STORE_FULL = "store_full"
    """Its disk has no room, or no inodes: no command is accepted."""
    STORE_LOCKED = "store_locked"
    """Another process locks its store: no command is accepted, begun or completed."""
    STORE_DAMAGED = "store_damaged"
    """Its store was damaged, and a new one was begun."""
    NO_INODES = "no_inodes"
    """Its disk has no inodes left: what needs a new file fails."""
    STORE_ROW = "store_row"
    """Records of commands were damaged."""
    HANDLER = "handler"
    """A handler was cut off after its deadline, and still runs."""
    CONNECTION = "connection"
    """Its connection stands, but the broker refuses something, or another client uses its name."""
    SERVICE = "service"
    """The managed service does not run as it should."""
    PLUG_IN = "plug_in"
    """A plug-in cannot be used."""
    UPGRADE = "upgrade"
    """A new release was rolled back."""
    ENROLMENT = "enrolment"
    """Records of its enrolment were damaged."""
    REVERSAL = "reversal"
    """An active response was not reversed."""
    RENEWAL = "renewal"
    """Its certificate was not renewed."""
    LEFTOVER = "leftover"
    """Files must be removed by hand."""
    MESSAGE = "message"
    """It has refused a message within the last minutes, or since."""
