"""Enrolment tokens: each lets one agent enroll once, until it expires. Only the hash of the secret is stored."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from broker.contract.enrolment_token import EnrolmentToken
from broker.contract.topics import check_agent_name
from broker.enrolment.tables import TOKENS
from broker.errors import BrokerError
from broker.ledger.agents import is_of_groups
from broker.ledger.also import Also, nothing_else
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.ids import new_id
from broker.ledger.pages import newest_by_id
from broker.ledger.tables import moment, utc

__all__ = [
    "TokenRecord",
    "TokenRefused",
    "TokenState",
    "TokenStore",
    "TokenUsed",
    "UnknownToken",
    "mark_used",
    "new_enrolment_token",
    "revoke_unused_tokens",
    "token_in_row",
    "usable_token",
]


_SECRET_BYTES = 32


class TokenRefused(BrokerError):
    """The token is not valid for this enrolment: unknown, revoked, expired, or of another agent or authority."""

    code = "token_refused"


class TokenUsed(TokenRefused):
    """The token was already used, by another key."""

    code = "token_used"


class UnknownToken(BrokerError):
    """No unused token has this id."""

    code = "unknown_token_id"


class TokenState(StrEnum):
    """The state of a token. Only an open one is valid for an enrolment."""

    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class TokenRecord:
    """A token as it is stored. `key` (fingerprint) and `enrolment_id` are of the enrolment it was used for."""

    id: str
    agent: str
    state: TokenState
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    key: str | None
    enrolment_id: str | None


def new_enrolment_token(fingerprint: str) -> EnrolmentToken:
    """Return a token with a new secret, for the server whose authority has this fingerprint."""
    return EnrolmentToken(secrets.token_urlsafe(_SECRET_BYTES), fingerprint)


class TokenStore:
    """The tokens in the ledger's database. The code that opened the database closes it.

    Every method is one transaction, committed when it returns. All raise LedgerError when the database fails.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._transaction, self._reading = database.transaction, database.reading
        self._now = now

    @retry_conflicts
    def add(
        self, agent: str, token: EnrolmentToken, ttl: timedelta, also: Also[TokenRecord] = nothing_else
    ) -> TokenRecord:
        """Let the bearer of this token enroll as `agent`, once, within `ttl`. Raises InvalidName.

        As in all methods that have it, `also` writes what belongs to it in the same transaction.
        """
        now = self._now()
        values = {
            "id": new_id(),
            "agent": check_agent_name(agent),
            "secret_hash": token.secret_hash,
            "created_at": now.timestamp(),
            "expires_at": (now + ttl).timestamp(),
        }
        with self._transaction() as connection:
            connection.execute(TOKENS.insert().values(**values))
            row = token_in_row(connection.execute(TOKENS.select().where(TOKENS.c.id == values["id"])).one(), now)
            also(connection, row)
            return row

    def all(self) -> list[TokenRecord]:
        """Return every token, newest first."""
        with self._reading() as connection:
            rows = connection.execute(TOKENS.select().order_by(TOKENS.c.created_at.desc())).all()
        now = self._now()
        return [token_in_row(row, now) for row in rows]

    def page(
        self, cursor: str | None, limit: int, agent: str | None = None, groups: frozenset[str] | None = None
    ) -> tuple[list[TokenRecord], str | None]:
        """Return at most `limit` tokens, newest first, and the cursor for more; None at the end.

        Only those for `agent`, and for agents in one of `groups`, if these are not None. Raises InvalidArgument for a
        cursor of another list.
        """
        query = TOKENS.select().where(_is_for_one_of(groups))
        query = query if agent is None else query.where(TOKENS.c.agent == agent)
        with self._reading() as connection:
            rows, end = newest_by_id(connection, query, TOKENS.c.id, cursor, limit)
        now = self._now()
        return [token_in_row(row, now) for row in rows], end

    @retry_conflicts
    def revoke(
        self, token_id: str, groups: frozenset[str] | None = None, also: Also[TokenRecord] = nothing_else
    ) -> TokenRecord:
        """Revoke an unused token; raises UnknownToken for any other.

        With `groups`, also for one for an agent that is in none of them.
        """
        unused = TOKENS.update().where(TOKENS.c.id == token_id, TOKENS.c.used_at.is_(None), _is_for_one_of(groups))
        now = self._now()
        with self._transaction() as connection:
            if not connection.execute(unused.values(revoked_at=now.timestamp())).rowcount:
                raise UnknownToken(
                    f"No unused token has the id {token_id[:80]!r}; `acm token list` shows all. "
                    "To revoke the enrolment made with a used token, run `acm enrolment revoke`."
                )
            row = token_in_row(connection.execute(TOKENS.select().where(TOKENS.c.id == token_id)).one(), now)
            also(connection, row)
            return row


def usable_token(
    connection: sa.Connection, agent: str, token: EnrolmentToken, now: datetime, *, lock: bool = False
) -> TokenRecord:
    """Within a transaction, return the agent's token, which may be used; with `lock`, locked until the commit.

    Raises TokenRefused.
    """
    query = TOKENS.select().where(TOKENS.c.secret_hash == token.secret_hash)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise TokenRefused("The token is unknown here: create one with `acm token create`.", code="unknown_token")
    found = token_in_row(row, now)
    if found.agent != agent:
        raise TokenRefused(
            f"The token is not for {agent!r}: create one with `acm token create {agent}`.",
            code="token_of_another_agent",
        )
    if found.state is TokenState.REVOKED:
        raise TokenRefused(
            f"The token was revoked: create a new one with `acm token create {agent}`.", code="token_revoked"
        )
    if now >= found.expires_at:  # a used token expires, too
        raise TokenRefused(
            f"The token has expired: create a new one with `acm token create {agent}`.", code="token_expired"
        )
    return found


def mark_used(connection: sa.Connection, token_id: str, key: str, enrolment_id: str, now: datetime) -> None:
    """Within a transaction, record which key (fingerprint) used the token, and for which enrolment."""
    used = TOKENS.update().where(TOKENS.c.id == token_id)
    connection.execute(used.values(used_at=now.timestamp(), key=key, enrolment_id=enrolment_id))


def revoke_unused_tokens(connection: sa.Connection, agent: str, now: datetime) -> int:
    """Within a transaction, revoke the agent's unused tokens; return their number."""
    unused = TOKENS.update().where(TOKENS.c.agent == agent, TOKENS.c.used_at.is_(None), TOKENS.c.revoked_at.is_(None))
    return connection.execute(unused.values(revoked_at=now.timestamp())).rowcount


def _is_for_one_of(groups: frozenset[str] | None) -> sa.ColumnElement[bool]:
    return sa.true() if groups is None else is_of_groups(TOKENS.c.agent, groups)


def token_in_row(row: sa.Row[Any], now: datetime) -> TokenRecord:
    """Return the token in a row of TOKENS."""
    return TokenRecord(
        id=row.id,
        agent=row.agent,
        state=_state(row, now),
        created_at=utc(row.created_at),
        expires_at=utc(row.expires_at),
        used_at=moment(row.used_at),
        key=row.key,
        enrolment_id=row.enrolment_id,
    )


def _state(row: sa.Row[Any], now: datetime) -> TokenState:
    if row.used_at is not None:
        return TokenState.USED
    if row.revoked_at is not None:
        return TokenState.REVOKED
    return TokenState.EXPIRED if now.timestamp() >= row.expires_at else TokenState.OPEN
