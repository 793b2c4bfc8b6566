"""The recipient of a message: the agent and its enrolments, as far as signing depends on them."""

from dataclasses import dataclass

__all__ = [
    "Recipient",
]


@dataclass(frozen=True)
class Recipient:
    """An agent as the recipient of messages of this server.

    `enrolments` are the ids of its enrolments that are not revoked, newest first; expired ones are included.
    `accepts_unsigned` and `enrolment_id` come from the agent's last status and are None if that does not have them.
    `enrolments_exist`: this server has enrolled at least one agent, this one or another.
    """

    enrolments: tuple[str, ...] = ()
    accepts_unsigned: bool | None = None
    enrolment_id: str | None = None
    enrolments_exist: bool = False

    def addressed_enrolments(self, limit: int) -> tuple[str, ...]:
        """Return at most `limit` enrolments: first the one in the agent's last status, then the newest."""
        own = [one for one in self.enrolments if one == self.enrolment_id]
        return (*own, *(one for one in self.enrolments if one != self.enrolment_id))[:limit]
