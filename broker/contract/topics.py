"""The topic scheme: one subtree per agent, `{prefix}/{agent}/{channel}`."""

import re
from dataclasses import dataclass
from enum import StrEnum

from broker.contract.fields import NAME_PATTERN
from broker.errors import BrokerError

__all__ = [
    "AGENT_NAME",
    "Channel",
    "InvalidName",
    "Topics",
    "check_agent_name",
    "check_name",
]


AGENT_NAME = re.compile(NAME_PATTERN)
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


class InvalidName(BrokerError):
    """An agent name or topic prefix that the protocol does not allow."""

    code = "invalid_name"

    code = "invalid_name"


class Channel(StrEnum):
    """The last level of a topic.

    Server to agent: command, control, ack, blob-chunk; agent to server: feedback, status, blob-request.
    """

    COMMAND = "command"
    CONTROL = "control"
    ACK = "ack"
    FEEDBACK = "feedback"
    STATUS = "status"
    BLOB_REQUEST = "blob-request"
    BLOB_CHUNK = "blob-chunk"


def check_agent_name(name: str) -> str:
    """Return `name` unchanged; raises InvalidName if it is not an agent name."""
    return check_name(name, "an agent name")


def check_name(name: str, kind: str) -> str:
    """Return `name` unchanged; raises InvalidName, as "is not `kind`", unless it has the form of an agent name."""
    if not AGENT_NAME.fullmatch(name):
        raise InvalidName(
            f"{name[:80]!r} is not {kind}: use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit."
        )
    return name


@dataclass(frozen=True)
class Topics:
    """Builds and parses the topics below one prefix (default: `acm`)."""

    prefix: str = "acm"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise InvalidName(
                f"{self.prefix[:80]!r} is not a topic prefix: use letters, digits, '.', '_', '-' and single '/'."
            )

    def of(self, agent: str, channel: Channel) -> str:
        """Return the topic of one agent's channel."""
        return f"{self.prefix}/{check_agent_name(agent)}/{channel}"

    def of_all(self, channel: Channel) -> str:
        """Return the filter that matches this channel of every agent (MQTT 5 section 4.7.1.3)."""
        return f"{self.prefix}/+/{channel}"

    def parse(self, topic: str) -> tuple[str, Channel] | None:
        """Return the agent and the channel of a topic, or None if it is outside the scheme."""
        head, _, rest = topic.rpartition("/")
        prefix, _, agent = head.rpartition("/")
        known = prefix == self.prefix and rest in Channel.__members__.values()
        return (agent, Channel(rest)) if known and AGENT_NAME.fullmatch(agent) else None
