"""The agents that were revoked. Imports no cryptography, so that commands that only read the ledger can use it."""

import sqlalchemy as sa

from broker.enrolment.tables import ENROLMENTS

__all__ = [
    "revoked_agents",
]


def revoked_agents(connection: sa.Connection) -> frozenset[str]:
    """Return the names of the agents that were enrolled and have no enrolment left that is not revoked."""
    agent, revoked_at = ENROLMENTS.c.agent, ENROLMENTS.c.revoked_at
    query = sa.select(agent).group_by(agent).having(sa.func.count() == sa.func.count(revoked_at))
    return frozenset(connection.scalars(query))
