"""Sessions of the page: a cookie stands for a credential, for some hours. Only a hash of its secret is stored."""

import hashlib
import secrets
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from broker.access.grants import Credential, InvalidCredential
from broker.access.tables import PAGE_SESSIONS
from broker.fleet.models import Principal, Role
from broker.ledger.also import Also, nothing_else
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.tables import moment

__all__ = [
    "LONGEST_SESSION",
    "SessionStore",
]


LONGEST_SESSION = timedelta(hours=12)
_SECRET_BYTES = 32


class SessionStore:
    """The sessions in the ledger's database. Every method is one transaction, and raises LedgerError if that fails.

    A session has the rights of the credential that began it, which the caller checks as well: one that was revoked ends
    its sessions.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._transaction, self._reading = database.transaction, database.reading
        self._now = now

    @retry_conflicts
    def begin(
        self, credential: Credential, also: Also[Credential] = nothing_else, *, instead_of: str | None = None
    ) -> str:
        """Begin a session, and return its secret, which is not stored. Those that have ended are removed.

        The session with the secret `instead_of` ends.
        """
        secret, now = secrets.token_urlsafe(_SECRET_BYTES), self._now()
        principal = credential.principal
        groups = None if principal.groups is None else msgspec.json.encode(sorted(principal.groups)).decode()
        end = min(now + LONGEST_SESSION, credential.expires_at or datetime.max.replace(tzinfo=now.tzinfo))
        row: dict[str, Any] = {"id": _hash(secret), "principal": principal.name, "role": principal.role}
        row |= {"groups": groups, "credential": credential.id, "credential_expires_at": _seconds(credential.expires_at)}
        row |= {"created_at": now.timestamp(), "expires_at": end.timestamp()}
        with self._transaction() as connection:
            connection.execute(PAGE_SESSIONS.delete().where(PAGE_SESSIONS.c.expires_at <= now.timestamp()))
            if instead_of is not None:
                connection.execute(PAGE_SESSIONS.delete().where(PAGE_SESSIONS.c.id == _hash(instead_of)))
            connection.execute(PAGE_SESSIONS.insert().values(**row))
            also(connection, credential)
        return secret

    def credential_of(self, secret: str) -> Credential:
        """Return the credential that began a session which has not ended. Raises InvalidCredential."""
        query = PAGE_SESSIONS.select().where(PAGE_SESSIONS.c.id == _hash(secret), self._lasts())
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise InvalidCredential("The session has ended: log in again.", code="credential_expired")
        groups = None if row.groups is None else msgspec.json.decode(row.groups, type=frozenset[str])
        principal = Principal(row.principal, Role(row.role), groups)
        return Credential(principal, row.credential, moment(row.credential_expires_at), row.id)

    def valid_among(self, ids: Collection[str]) -> set[str]:
        """Return the ids of those of these sessions that have not ended."""
        query = sa.select(PAGE_SESSIONS.c.id).where(PAGE_SESSIONS.c.id.in_(given_keys()), self._lasts())
        with self._reading() as connection:
            return set(connection.scalars(query, as_keys(ids)))

    @retry_conflicts
    def end(self, session: str) -> None:
        """End a session, by its id; one that has ended already is ignored."""
        with self._transaction() as connection:
            connection.execute(PAGE_SESSIONS.delete().where(PAGE_SESSIONS.c.id == session))

    def _lasts(self) -> sa.ColumnElement[bool]:
        return PAGE_SESSIONS.c.expires_at > self._now().timestamp()


def _hash(secret: str) -> str:
    """Return the hash of a secret. It has 256 random bits, so nothing slower is needed."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
