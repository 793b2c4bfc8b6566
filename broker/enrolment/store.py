"""Who may enroll and who has: one-time tokens, enrolments and their certificates, in the database of the ledger."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.contract.enrolment_token import EnrolmentToken
from broker.contract.topics import check_agent_name
from broker.enrolment.recipients import recipients_of
from broker.enrolment.tables import CERTIFICATES, ENROLMENTS, ENROLMENTS_ENDED, TOKENS
from broker.errors import BrokerError
from broker.ledger.database import Database
from broker.ledger.ids import new_id
from broker.ledger.tables import AGENTS, new_agent
from broker.pki.certificates import key_fingerprint
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from broker.signing.recipient import Recipient

__all__ = [
    "Enrolment",
    "EnrolmentRevoked",
    "EnrolmentStore",
    "Grant",
    "Issue",
    "TokenRefused",
    "TokenRow",
    "TokenState",
    "TokenUsed",
    "UnknownEnrolment",
    "UnknownToken",
]


Issue = Callable[[], x509.Certificate]


class TokenRefused(BrokerError):
    """This token enrols nobody: it is unknown, revoked, expired or another agent's."""


class TokenUsed(TokenRefused):
    """The token was used already, by another key."""


class EnrolmentRevoked(BrokerError):
    """The enrolment was revoked, or is not known."""


class UnknownToken(BrokerError):
    """There is no token with this id that could be revoked."""


class UnknownEnrolment(BrokerError):
    """There is no enrolment to revoke."""


class TokenState(StrEnum):
    """Where a token stands. Only an open one enrols."""

    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class TokenRow:
    """A token as it is remembered: all but its secret. `key` is the fingerprint of the key that used it."""

    id: str
    agent: str
    state: TokenState
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    key: str | None
    enrolment_id: str | None


@dataclass(frozen=True)
class Enrolment:
    """What one token has paid for. `serial` (hexadecimal), `key` and `not_after` are of its newest certificate."""

    id: str
    agent: str
    enrolled_at: datetime
    serial: str
    key: str
    not_after: datetime
    revoked_at: datetime | None
    reason: RevocationReason | None


@dataclass(frozen=True)
class Grant:
    """The answer to an agent: its enrolment, and the certificate in PEM."""

    enrolment_id: str
    agent: str
    certificate: str
    not_after: datetime


class EnrolmentStore:
    """The tokens and enrolments in the ledger's database, which whoever opened it closes. Several processes may use it.

    Every method is one transaction, committed when it returns. All raise LedgerError when the database fails.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self.database = database
        self._transaction = database.transaction

    # -- tokens

    def add_token(self, agent: str, token: EnrolmentToken, ttl: timedelta) -> TokenRow:
        """Let the bearer of this token enroll as `agent`, once, until `ttl` is over. Raises InvalidName."""
        now = self._now()
        row = {
            "id": new_id(),
            "agent": check_agent_name(agent),
            "secret_hash": token.secret_hash,
            "created_at": now.timestamp(),
            "expires_at": (now + ttl).timestamp(),
        }
        with self._transaction() as connection:
            connection.execute(TOKENS.insert().values(**row))
            return self._token_row(connection.execute(TOKENS.select().where(TOKENS.c.id == row["id"])).one())

    def tokens(self) -> list[TokenRow]:
        """Return every token, the newest first."""
        with self._transaction() as connection:
            rows = connection.execute(TOKENS.select().order_by(TOKENS.c.created_at.desc())).all()
        return [self._token_row(row) for row in rows]

    def revoke_token(self, token_id: str) -> None:
        """Take back a token that was not used; raises UnknownToken for any other."""
        open_token = TOKENS.update().where(TOKENS.c.id == token_id, TOKENS.c.used_at.is_(None))
        with self._transaction() as connection:
            if not connection.execute(open_token.values(revoked_at=self._now().timestamp())).rowcount:
                raise UnknownToken(
                    f"No unused token has the id {token_id[:80]!r}; `acm token list` lists them, "
                    "and what a used one has paid for is revoked by `acm ca revoke`."
                )

    # -- certificates

    def enroll(self, agent: str, token: EnrolmentToken, key: Ed25519PublicKey, issue: Issue) -> Grant:
        """Use the token for this key, and record the certificate that `issue` makes before anybody gets it.

        From then on the ledger knows the agent.
        The same token and key get the same certificate again. Raises TokenRefused, TokenUsed, EnrolmentRevoked.
        """
        with self._transaction() as connection:
            row = self._usable_token(connection, agent, token)
            if row.used_at is not None:
                return self._granted(connection, row, key)
            enrolment_id, now = new_id(), self._now().timestamp()
            self._make_known(connection, agent)
            connection.execute(ENROLMENTS.insert().values(id=enrolment_id, agent=agent, enrolled_at=now))
            used = TOKENS.update().where(TOKENS.c.id == row.id)
            connection.execute(used.values(used_at=now, key=key_fingerprint(key), enrolment_id=enrolment_id))
            return self._grant(connection, self._valid_enrolment(connection, enrolment_id), key, issue)

    def renew(self, serial: int, key: Ed25519PublicKey, issue: Issue) -> Grant:
        """Record what `issue` makes as a further certificate of the enrolment that the certificate `serial` is of.

        The older certificate stays valid: the answer may be lost on its way. Raises EnrolmentRevoked.
        """
        certificate = CERTIFICATES.select().where(CERTIFICATES.c.serial == f"{serial:x}")
        with self._transaction() as connection:
            found = connection.execute(certificate).one_or_none()
            enrolment = self._valid_enrolment(connection, found.enrolment_id if found else "")
            return self._grant(connection, enrolment, key, issue)

    def enrolments(self, agent: str | None = None) -> list[Enrolment]:
        """Return the enrolments, the newest first, each with its newest certificate."""
        with self._transaction() as connection:
            return self._enrolments(connection, ENROLMENTS.c.agent == agent if agent else sa.true())

    def recipients(self, agents: Iterable[str]) -> dict[str, Recipient]:
        """Return each of these agents as a recipient of messages, whether it is known here or not."""
        with self.database.reading() as connection:
            return recipients_of(connection, agents)

    def good_agents(self) -> list[str]:
        """Return the names of the agents with an enrolment that is neither revoked nor over, in order."""
        now = self._now()
        good = {row.agent for row in self.enrolments() if row.revoked_at is None and row.not_after > now}
        return sorted(good)

    def any_agents(self) -> bool:
        """Say whether any agent was ever enrolled here."""
        with self._transaction() as connection:
            return connection.execute(sa.select(ENROLMENTS.c.id).limit(1)).one_or_none() is not None

    def revoke(self, target: str, reason: RevocationReason) -> list[Enrolment]:
        """Revoke one enrolment by its id, or all of an agent by its name, with the agent's unused tokens.

        Return what was revoked now. Raises UnknownEnrolment when nothing of that name or id is there.
        """
        ours = sa.or_(ENROLMENTS.c.id == target, ENROLMENTS.c.agent == target)
        now = self._now().timestamp()
        with self._transaction() as connection:
            unused = TOKENS.update().where(TOKENS.c.agent == target, TOKENS.c.used_at.is_(None))
            tokens = connection.execute(unused.where(TOKENS.c.revoked_at.is_(None)).values(revoked_at=now)).rowcount
            before = self._enrolments(connection, ours)
            if not before and not tokens:
                raise UnknownEnrolment(f"No agent or enrolment is named {target[:80]!r}; `acm ca list` lists them.")
            valid = ENROLMENTS.update().where(ours, ENROLMENTS.c.revoked_at.is_(None))
            connection.execute(valid.values(revoked_at=now, reason=reason))
            done = {row.id for row in before if row.revoked_at is None}
            return [row for row in self._enrolments(connection, ours) if row.id in done]

    def revoked_certificates(self, not_after: datetime) -> list[RevokedCertificate]:
        """Return the certificates of revoked enrolments, but for those that ended before `not_after`."""
        columns = (CERTIFICATES.c.serial, ENROLMENTS.c.revoked_at, ENROLMENTS.c.reason)
        query = sa.select(*columns).select_from(CERTIFICATES.join(ENROLMENTS))
        query = query.where(ENROLMENTS.c.revoked_at.is_not(None), CERTIFICATES.c.not_after >= not_after.timestamp())
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(ENROLMENTS.c.revoked_at, CERTIFICATES.c.serial)).all()
        return [
            RevokedCertificate(int(row.serial, 16), _time(row.revoked_at), RevocationReason(row.reason)) for row in rows
        ]

    # -- sessions at the broker

    def sessions_to_end(self) -> list[Enrolment]:
        """Return the revoked enrolments whose agents' sessions are not known to have ended since, the newest first."""
        ended = sa.select(ENROLMENTS_ENDED.c.enrolment_id)
        with self._transaction() as connection:
            return self._enrolments(
                connection, sa.and_(ENROLMENTS.c.revoked_at.is_not(None), ENROLMENTS.c.id.not_in(ended))
            )

    def record_session_end(self, enrolment_id: str) -> None:
        """Remember that whatever session the agent had by this revoked enrolment is over."""
        row = {"enrolment_id": enrolment_id, "ended_at": self._now().timestamp()}
        with self._transaction() as connection:
            connection.execute(ENROLMENTS_ENDED.delete().where(ENROLMENTS_ENDED.c.enrolment_id == enrolment_id))
            connection.execute(ENROLMENTS_ENDED.insert().values(**row))

    # -- inside one transaction

    def _usable_token(self, connection: sa.Connection, agent: str, token: EnrolmentToken) -> Any:
        found = TOKENS.select().where(TOKENS.c.secret_hash == token.secret_hash).with_for_update()
        row = connection.execute(found).one_or_none()
        if row is None:
            raise TokenRefused("The token is not known here: make one with `acm token create`.")
        if row.agent != agent:
            raise TokenRefused(f"The token is not for {agent!r}: make one with `acm token create {agent}`.")
        if row.revoked_at is not None or self._now().timestamp() >= row.expires_at:
            raise TokenRefused(f"The token is revoked or expired: make a new one with `acm token create {agent}`.")
        return row

    def _granted(self, connection: sa.Connection, token: Any, key: Ed25519PublicKey) -> Grant:
        if token.key != key_fingerprint(key):
            raise TokenUsed(
                f"The token was used already, by another key. If that was not {token.agent}, revoke it with "
                f"`acm ca revoke {token.enrolment_id}`; for this key, make a new token."
            )
        enrolment = self._valid_enrolment(connection, token.enrolment_id)
        of_key = CERTIFICATES.select().where(
            CERTIFICATES.c.enrolment_id == enrolment.id, CERTIFICATES.c.key == token.key
        )
        row = connection.execute(of_key.order_by(CERTIFICATES.c.not_after.desc()).limit(1)).one()
        return Grant(enrolment.id, enrolment.agent, row.pem, _time(row.not_after))

    def _make_known(self, connection: sa.Connection, agent: str) -> None:
        """Let it be sent commands before it has spoken."""
        if connection.execute(AGENTS.select().where(AGENTS.c.name == agent)).one_or_none() is None:
            connection.execute(AGENTS.insert().values(**new_agent(agent, self._now())))

    @staticmethod
    def _valid_enrolment(connection: sa.Connection, enrolment_id: str) -> Any:
        found = ENROLMENTS.select().where(ENROLMENTS.c.id == enrolment_id).with_for_update()
        row = connection.execute(found).one_or_none()
        if row is None or row.revoked_at is not None:
            raise EnrolmentRevoked("The enrolment was revoked, or is not known here: enroll anew with a token.")
        return row

    @staticmethod
    def _grant(connection: sa.Connection, enrolment: Any, key: Ed25519PublicKey, issue: Issue) -> Grant:
        certificate = issue()
        pem = certificate.public_bytes(Encoding.PEM).decode()
        values = {
            "serial": f"{certificate.serial_number:x}",
            "enrolment_id": enrolment.id,
            "key": key_fingerprint(key),
            "not_before": certificate.not_valid_before_utc.timestamp(),
            "not_after": certificate.not_valid_after_utc.timestamp(),
            "pem": pem,
        }
        connection.execute(CERTIFICATES.insert().values(**values))
        return Grant(enrolment.id, enrolment.agent, pem, certificate.not_valid_after_utc)

    @staticmethod
    def _enrolments(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[Enrolment]:
        certificates = ENROLMENTS.join(CERTIFICATES)
        columns = (ENROLMENTS, CERTIFICATES.c.serial, CERTIFICATES.c.key, CERTIFICATES.c.not_after)
        query = sa.select(*columns).select_from(certificates).where(condition)
        oldest_first = query.order_by(ENROLMENTS.c.enrolled_at, CERTIFICATES.c.not_after)
        newest = {row.id: _enrolment(row) for row in connection.execute(oldest_first)}
        return list(reversed(newest.values()))

    def _token_row(self, row: Any) -> TokenRow:
        return TokenRow(
            id=row.id,
            agent=row.agent,
            state=self._token_state(row),
            created_at=_time(row.created_at),
            expires_at=_time(row.expires_at),
            used_at=None if row.used_at is None else _time(row.used_at),
            key=row.key,
            enrolment_id=row.enrolment_id,
        )

    def _token_state(self, row: Any) -> TokenState:
        if row.used_at is not None:
            return TokenState.USED
        if row.revoked_at is not None:
            return TokenState.REVOKED
        return TokenState.EXPIRED if self._now().timestamp() >= row.expires_at else TokenState.OPEN


def _enrolment(row: Any) -> Enrolment:
    return Enrolment(
        id=row.id,
        agent=row.agent,
        enrolled_at=_time(row.enrolled_at),
        serial=row.serial,
        key=row.key,
        not_after=_time(row.not_after),
        revoked_at=None if row.revoked_at is None else _time(row.revoked_at),
        reason=None if row.reason is None else RevocationReason(row.reason),
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
