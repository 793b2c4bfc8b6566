"""Access tokens: each lets its bearer use the API as a principal, until it expires. Only a hash of it is stored."""

import hashlib
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from broker.access.grants import (
    AccessGrant,
    Credential,
    InvalidCredential,
    credential_of_grant,
    facts_of_grant,
    is_noted,
    new_grant,
    sees_grant,
    shown_facts,
)
from broker.access.models import AccessTokenView, CreatedAccessToken
from broker.access.tables import ACCESS_TOKENS
from broker.contract.topics import check_name
from broker.errors import BrokerError, LedgerError
from broker.fleet.models import Principal
from broker.ledger.also import Also, nothing_else
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.pages import newest_by_id

__all__ = [
    "AccessToken",
    "AccessTokenStore",
    "NameOfAnother",
    "UnknownAccessToken",
    "is_access_token",
    "view_of_token",
    "with_text",
]


_PREFIX = "acm_"  # so that scanners for leaked secrets can find one
_SECRET_BYTES = 32


class UnknownAccessToken(BrokerError):
    """No access token has this id, or it is revoked already."""

    code = "unknown_access_token"


class NameOfAnother(BrokerError):
    """A principal with groups may not give a token the name of a principal with other groups."""

    code = "name_of_another"


@dataclass(frozen=True)
class AccessToken(AccessGrant):
    """An access token as it is stored."""


class AccessTokenStore:
    """The access tokens in the ledger's database, which its opener closes.

    Every method is one transaction, and raises LedgerError if the database fails. For a caller with groups, `within`,
    there are only the tokens for some of these groups. `also` writes what belongs to a change in the same transaction.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._transaction, self._reading = database.transaction, database.reading
        self._now = now

    @retry_conflicts
    def add(
        self,
        principal: Principal,
        lifetime: timedelta,
        created_by: str,
        *,
        within: frozenset[str] | None = None,
        also: Also[tuple[AccessToken, str]] = nothing_else,
    ) -> tuple[AccessToken, str]:
        """Create a token, and return it with its text, which is not stored.

        Raises InvalidName, InvalidArgument, and NameOfAnother if there is a token of a principal of this name that the
        caller does not see.
        """
        check_name(principal.name, "a principal's name")
        text = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        values = new_grant(principal, lifetime, created_by, self._now()) | {"secret_hash": _hash(text)}
        with self._transaction() as connection:
            _refuse_name_of_another(connection, principal.name, within)
            connection.execute(ACCESS_TOKENS.insert().values(**values))
            row = connection.execute(ACCESS_TOKENS.select().where(ACCESS_TOKENS.c.id == values["id"])).one()
            made = _token(row), text
            also(connection, made)
        return made

    def all(self) -> list[AccessToken]:
        """Return every token, newest first."""
        with self._reading() as connection:
            rows = connection.execute(ACCESS_TOKENS.select().order_by(ACCESS_TOKENS.c.created_at.desc())).all()
        return [_token(row) for row in rows]

    def page(
        self, cursor: str | None, limit: int, within: frozenset[str] | None = None
    ) -> tuple[list[AccessToken], str | None]:
        """Look at `limit` tokens, newest first; return those that the caller sees, and the cursor for more."""
        with self._reading() as connection:
            rows, end = newest_by_id(connection, ACCESS_TOKENS.select(), ACCESS_TOKENS.c.id, cursor, limit)
        return [it for it in map(_token, rows) if sees_grant(within, it)], end

    @retry_conflicts
    def revoke(
        self, token_id: str, within: frozenset[str] | None = None, also: Also[AccessToken] = nothing_else
    ) -> AccessToken:
        """Revoke a token from now on; raises UnknownAccessToken."""
        is_it = ACCESS_TOKENS.c.id == token_id
        valid = ACCESS_TOKENS.update().where(is_it, ACCESS_TOKENS.c.revoked_at.is_(None))
        with self._transaction() as connection:
            changed = connection.execute(valid.values(revoked_at=self._now().timestamp())).rowcount
            row = connection.execute(ACCESS_TOKENS.select().where(is_it)).one_or_none()
            token = None if row is None else _token(row)
            if not changed or token is None or not sees_grant(within, token):
                raise UnknownAccessToken(
                    f"No valid access token has the id {token_id[:80]!r}; `acm api token list` shows all."
                )
            also(connection, token)
            return token

    def credential_of(self, text: str) -> Credential:
        """Return the principal of the bearer of this token, and remember its use. Raises InvalidCredential."""
        with self._reading() as connection:
            query = ACCESS_TOKENS.select().where(ACCESS_TOKENS.c.secret_hash == _hash(text))
            row = connection.execute(query).one_or_none()
        if row is None:
            raise InvalidCredential(
                "The access token is unknown here: create one with `acm api token create`.", code="unknown_credential"
            )
        token, now = _token(row), self._now()
        credential = credential_of_grant(token, "access token", now)
        if not is_noted(token, now):
            with suppress(LedgerError):  # what only reads must also work while nothing can be written
                self._note_use(token.id, now)
        return credential

    def valid_among(self, ids: Collection[str]) -> set[str]:
        """Return the ids of those of these tokens that are neither revoked nor expired."""
        is_valid = (ACCESS_TOKENS.c.revoked_at.is_(None), ACCESS_TOKENS.c.expires_at > self._now().timestamp())
        query = sa.select(ACCESS_TOKENS.c.id).where(ACCESS_TOKENS.c.id.in_(given_keys()), *is_valid)
        with self._reading() as connection:
            return set(connection.scalars(query, as_keys(ids)))

    @retry_conflicts
    def _note_use(self, token_id: str, now: datetime) -> None:
        with self._transaction() as connection:
            used = ACCESS_TOKENS.update().where(ACCESS_TOKENS.c.id == token_id)
            connection.execute(used.values(used_at=now.timestamp()))


def is_access_token(text: str) -> bool:
    """Whether a text has the form of an access token, valid or not."""
    return text.startswith(_PREFIX)


def view_of_token(token: AccessToken) -> AccessTokenView:
    """Return a token as the API shows it."""
    return AccessTokenView(**shown_facts(token))


def with_text(made: tuple[AccessToken, str]) -> CreatedAccessToken:
    """Return a new token with its text."""
    token, text = made
    return CreatedAccessToken(**vars(view_of_token(token)), token=text)


def _refuse_name_of_another(connection: Any, name: str, within: frozenset[str] | None) -> None:
    """Refuse to a caller with groups what would pass for another principal in origins, limits and the audit log."""
    if within is None:
        return
    of_name = ACCESS_TOKENS.select().where(ACCESS_TOKENS.c.principal == name)
    if not all(sees_grant(within, _token(row)) for row in connection.execute(of_name)):
        raise NameOfAnother(f"{name!r} is the name of a principal with other groups: choose another one.")


def _hash(text: str) -> str:
    """Return the hash of a token's text. It has 256 random bits, so nothing slower is needed."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _token(row: Any) -> AccessToken:
    return AccessToken(**facts_of_grant(row))
