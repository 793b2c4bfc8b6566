"""The words of the protocol: states, outcomes, kinds of feedback and error codes."""

from enum import StrEnum

__all__ = [
    "ControlAction",
    "ErrorCode",
    "FeedbackKind",
    "Outcome",
    "State",
]


class State(StrEnum):
    """Where a command stands on its agent; a deleted command has no state."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"


class FeedbackKind(StrEnum):
    """What a feedback message tells the server."""

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
    TIMED_OUT = "timed_out"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    UNSUPPORTED = "unsupported"
    INVALID = "invalid"
    INTERRUPTED = "interrupted"
    SUPERSEDED = "superseded"


class ControlAction(StrEnum):
    """What a control message asks for; control messages do not wait behind the queue."""

    CANCEL = "cancel"
