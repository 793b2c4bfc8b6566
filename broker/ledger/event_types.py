"""What can happen to commands and agents, as far as the ledger tells. Imports no SQLAlchemy: clients use it, too."""

from enum import StrEnum

__all__ = [
    "EventType",
]


class EventType(StrEnum):
    """What an event of the ledger reports."""

    COMMAND_CREATED = "command_created"
    """It was added to the ledger."""
    COMMAND_SENT = "command_sent"
    """The server has taken it to be published, for the first time."""
    COMMAND_ACCEPTED = "command_accepted"
    """Its agent has stored it."""
    COMMAND_RUNNING = "command_running"
    """Its agent has begun it."""
    COMMAND_CANCEL_REQUESTED = "command_cancel_requested"
    """A user has requested its cancellation."""
    COMMAND_COMPLETED = "command_completed"
    """It has a result; again if the agent's own result replaces that of the server."""
    OPERATION_COMPLETED = "operation_completed"
    """All commands of an operation have a result; the event names the command whose result was the last."""
    AGENT_FIRST_SEEN = "agent_first_seen"
    """The agent has published its first status."""
    AGENT_ONLINE = "agent_online"
    """It is online, and was offline or silent before."""
    AGENT_RESTARTED = "agent_restarted"
    """It was online, and is so as another process."""
    AGENT_CHANGED = "agent_changed"
    """Its status has another version, other groups, types, keys or another enrolment."""
    AGENT_JOINED_GROUP = "agent_joined_group"
    """A user has added it to a group."""
    AGENT_LEFT_GROUP = "agent_left_group"
    """A user has removed it from a group."""
    AGENT_SILENT = "agent_silent"
    """It has said for too long nothing, and not that it is offline."""
    AGENT_OFFLINE = "agent_offline"
    """It has gone offline, or its connection was lost."""
    AGENT_FORGOTTEN = "agent_forgotten"
    """A user has made the ledger forget it."""
