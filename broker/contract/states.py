"""The enumerations of the protocol: states, outcomes, kinds of feedback, error codes and control actions.

And how long a status is valid, in seconds.
"""

from enum import StrEnum

__all__ = [
    "SILENT_AFTER_S",
    "STATUS_INTERVAL_S",
    "ControlAction",
    "ErrorCode",
    "FeedbackKind",
    "Outcome",
    "State",
]

STATUS_INTERVAL_S = 300.0  # an agent publishes its status at least as often
SILENT_AFTER_S = 2 * STATUS_INTERVAL_S  # an agent with an older one is not online, whatever that says


class State(StrEnum):
    """The state of a command on its agent; a deleted command has none."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"


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
