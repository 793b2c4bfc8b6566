"""What decides whether, and for which enrolments, messages to an agent are signed."""

from dataclasses import dataclass

__all__ = [
    "Recipient",
]


@dataclass(frozen=True)
class Recipient:
    """How one agent stands with this server.

    `enrolments` are the ids of those that are not revoked, the newest first; those whose certificates have ended are
    among them. `accepts_unsigned` and `enrolment_id` are what its last status says, None where it does not say so.
    `others_are_enrolled`: this server knows enrolments at all.
    """

    enrolments: tuple[str, ...] = ()
    accepts_unsigned: bool | None = None
    enrolment_id: str | None = None
    others_are_enrolled: bool = False

    def named(self, most: int) -> tuple[str, ...]:
        """Return at most so many of the enrolments: the one that the agent says it lives by, then the newest."""
        own = [one for one in self.enrolments if one == self.enrolment_id]
        return (*own, *(one for one in self.enrolments if one != self.enrolment_id))[:most]
