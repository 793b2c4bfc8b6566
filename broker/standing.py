"""What decides how the server speaks to an agent: its enrolments here, and what its last status says."""

from collections.abc import Iterable
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa

from broker.enrolment_tables import ENROLMENTS
from broker.ledger_tables import AGENTS

__all__ = ["Standing", "standings_of"]

_AT_ONCE = 500


@dataclass(frozen=True)
class Standing:
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


class _Said(msgspec.Struct):
    accepts_unsigned: bool = False
    enrolment_id: str | None = None


_decode_said = msgspec.json.Decoder(_Said).decode


def standings_of(connection: sa.Connection, agents: Iterable[str]) -> dict[str, Standing]:
    """Within a transaction, return how these agents stand, whether they are known here or not."""
    names = list(agents)
    others = connection.execute(sa.select(ENROLMENTS.c.id).limit(1)).one_or_none() is not None
    enrolled: dict[str, list[str]] = {name: [] for name in names}
    said: dict[str, _Said] = {}
    for first in range(0, len(names), _AT_ONCE):
        some = names[first : first + _AT_ONCE]
        for row in connection.execute(_unrevoked(some)):
            enrolled[row.agent].append(row.id)
        spoken = sa.select(AGENTS.c.name, AGENTS.c.status).where(AGENTS.c.name.in_(some), AGENTS.c.status.is_not(None))
        said |= {row.name: _decode_said(row.status) for row in connection.execute(spoken)}
    return {name: _standing(ids, said.get(name), others) for name, ids in enrolled.items()}


def _unrevoked(agents: Listing[str]) -> sa.Select[tuple[str, str]]:
    query = sa.select(ENROLMENTS.c.id, ENROLMENTS.c.agent).where(ENROLMENTS.c.agent.in_(agents))
    return query.where(ENROLMENTS.c.revoked_at.is_(None)).order_by(ENROLMENTS.c.enrolled_at.desc())


def _standing(enrolments: Listing[str], said: _Said | None, others: bool) -> Standing:
    if said is None:
        return Standing(tuple(enrolments), others_are_enrolled=others)
    return Standing(tuple(enrolments), said.accepts_unsigned, said.enrolment_id, others)
