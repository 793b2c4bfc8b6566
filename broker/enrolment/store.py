"""Enrolments and their certificates: made from tokens, renewed and revoked, in the database of the ledger."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.contract.enrolment_token import EnrolmentToken
from broker.enrolment.pruning import LISTED_AFTER_EXPIRY
from broker.enrolment.recipients import recipients_of
from broker.enrolment.records import EnrolmentRecord, enrolments_where, reason_in
from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.enrolment.tokens import TokenRecord, TokenUsed, mark_used, revoke_unused_tokens, usable_token
from broker.errors import BrokerError
from broker.ledger.also import Also, nothing_else
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.ids import new_id
from broker.ledger.insert import insert_missing
from broker.ledger.tables import AGENTS, new_agent, utc
from broker.pki.certificates import key_fingerprint
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from broker.signing.recipient import Recipient

__all__ = [
    "AgentCertificate",
    "EnrolmentRevoked",
    "EnrolmentStore",
    "IssueCertificate",
    "IssuedCertificate",
    "RenewedTooOften",
    "UnknownEnrolment",
]


_log = structlog.get_logger("acm.enrolment")
IssueCertificate = Callable[[], x509.Certificate]
_MAX_YOUNG_CERTIFICATES = 4  # of one enrolment: an agent may lose some responses before it has stored one


class EnrolmentRevoked(BrokerError):
    """The enrolment was revoked, or is not recorded here."""

    code = "enrolment_revoked"


class RenewedTooOften(BrokerError):
    """The enrolment has several certificates that are younger than a third of their lifetime."""

    code = "renewed_too_often"


class UnknownEnrolment(BrokerError):
    """There is no enrolment to revoke."""

    code = "unknown_enrolment"


@dataclass(frozen=True)
class IssuedCertificate:
    """The result of an enrolment or a renewal: a certificate in PEM, recorded as one of the enrolment's."""

    enrolment_id: str
    agent: str
    certificate: str
    not_after: datetime


@dataclass(frozen=True)
class AgentCertificate:
    """An agent's certificate in PEM."""

    agent: str
    pem: str


class EnrolmentStore:
    """The enrolments in the ledger's database, which several processes may use. The code that opened it closes it.

    Every method is one transaction, committed when it returns. All raise LedgerError when the database fails.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self.database = database
        self._transaction = database.transaction

    @retry_conflicts
    def enroll(
        self, agent: str, token: EnrolmentToken, key: Ed25519PublicKey, issue: IssueCertificate
    ) -> IssuedCertificate:
        """Use the token for this key; record the certificate that `issue` returns before it is handed out.

        The ledger knows the agent from then on. The same token and key get the same certificate again. Raises
        TokenRefused, TokenUsed and EnrolmentRevoked.
        """
        with self.database.reading() as connection:  # a stranger's token takes no lock
            usable_token(connection, agent, token, self._now())
        with self._transaction() as connection:
            now = self._now()
            found = usable_token(connection, agent, token, now, lock=True)
            if found.enrolment_id is not None:
                return _issued_before(connection, found, found.enrolment_id, key)
            enrolment_id = new_id()
            _add_agent(connection, agent, now)
            values = {"id": enrolment_id, "agent": agent, "enrolled_at": now.timestamp()}
            connection.execute(ENROLMENTS.insert().values(**values))
            mark_used(connection, found.id, key_fingerprint(key), enrolment_id, now)
            # design.md: "A token is used and its certificate recorded in one commit"
            return _issue(connection, enrolment_id, agent, key, issue)

    @retry_conflicts
    def renew(self, serial: int, key: Ed25519PublicKey, issue: IssueCertificate) -> IssuedCertificate:
        """Record what `issue` returns as a further certificate of the enrolment that the certificate `serial` is of.

        The older certificate stays valid, because the response may be lost. Certificates that expired long ago are
        forgotten, so that the number of an enrolment's is bounded. Raises EnrolmentRevoked and RenewedTooOften.
        """
        certificate = sa.select(CERTIFICATES.c.enrolment_id).where(CERTIFICATES.c.serial == f"{serial:x}")
        with self.database.reading() as connection:
            _refuse_too_many(connection, connection.scalar(certificate) or "", self._now())
        with self._transaction() as connection:
            now = self._now()
            enrolment_id = connection.scalar(certificate) or ""
            agent = _agent_of_valid_enrolment(connection, enrolment_id)
            _refuse_too_many(connection, enrolment_id, now)
            expired = CERTIFICATES.c.not_after < (now - LISTED_AFTER_EXPIRY).timestamp()
            of_enrolment = sa.and_(CERTIFICATES.c.enrolment_id == enrolment_id, CERTIFICATES.c.serial != f"{serial:x}")
            connection.execute(CERTIFICATES.delete().where(of_enrolment, expired))
            return _issue(connection, enrolment_id, agent, key, issue)

    def enrolments(self, agent: str | None = None) -> list[EnrolmentRecord]:
        """Return all enrolments, or those of one agent, newest first."""
        with self.database.reading() as connection:
            return enrolments_where(connection, ENROLMENTS.c.agent == agent if agent else sa.true())

    def newest_certificates(self, not_after: datetime) -> list[AgentCertificate]:
        """Return the newest certificate of each valid enrolment, if it did not expire before `not_after`."""
        columns = (ENROLMENTS.c.id, ENROLMENTS.c.agent, CERTIFICATES.c.pem)
        query = sa.select(*columns).select_from(ENROLMENTS.join(CERTIFICATES))
        query = query.where(ENROLMENTS.c.revoked_at.is_(None), CERTIFICATES.c.not_after >= not_after.timestamp())
        with self.database.reading() as connection:
            rows = connection.execute(query.order_by(CERTIFICATES.c.not_after))
            newest = {row.id: AgentCertificate(row.agent, row.pem) for row in rows}
        return list(newest.values())

    def recipients(self, agents: Iterable[str]) -> dict[str, Recipient]:
        """Return each of these agents as a recipient of messages, whether it is known here or not."""
        with self.database.reading() as connection:
            return recipients_of(connection, agents)

    def enrolled_agents(self) -> list[str]:
        """Return the names of the agents with an enrolment that is neither revoked nor expired, in order."""
        now = self._now()
        return sorted({row.agent for row in self.enrolments() if row.revoked_at is None and row.not_after > now})

    def has_any(self) -> bool:
        """Return whether any agent was ever enrolled here."""
        with self.database.reading() as connection:
            return connection.execute(sa.select(ENROLMENTS.c.id).limit(1)).one_or_none() is not None

    @retry_conflicts
    def revoke_agent(
        self, agent: str, reason: RevocationReason, also: Also[list[EnrolmentRecord]] = nothing_else
    ) -> list[EnrolmentRecord]:
        """Revoke all enrolments and unused tokens of an agent; return the enrolments revoked by this call.

        As in all methods that have it, `also` writes what belongs to it in the same transaction. Raises
        UnknownEnrolment if the agent has had neither.
        """
        with self._transaction() as connection:
            tokens = revoke_unused_tokens(connection, agent, self._now())
            of_agent = ENROLMENTS.c.agent == agent
            revoked = self._revoke(connection, of_agent, reason, _unknown(agent), is_known=tokens > 0)
            also(connection, revoked)
            return revoked

    @retry_conflicts
    def revoke_enrolment(
        self, enrolment_id: str, reason: RevocationReason, also: Also[EnrolmentRecord] = nothing_else
    ) -> EnrolmentRecord:
        """Revoke one enrolment, and return it; one that is revoked stays as it is. Raises UnknownEnrolment."""
        with self._transaction() as connection:
            is_it = ENROLMENTS.c.id == enrolment_id
            self._revoke(connection, is_it, reason, _unknown(enrolment_id))
            (row,) = enrolments_where(connection, is_it)
            also(connection, row)
            return row

    def _revoke(
        self,
        connection: sa.Connection,
        which: sa.ColumnElement[bool],
        reason: RevocationReason,
        unknown: UnknownEnrolment,
        *,
        is_known: bool = False,
    ) -> list[EnrolmentRecord]:
        """Revoke enrolments; return those that were not. Raise `unknown` if there are none, unless `is_known`."""
        before = enrolments_where(connection, which)
        if not (before or is_known):
            raise unknown
        valid = ENROLMENTS.update().where(which, ENROLMENTS.c.revoked_at.is_(None))
        connection.execute(valid.values(revoked_at=self._now().timestamp(), reason=reason))
        revoked = {row.id for row in before if row.revoked_at is None}
        return [row for row in enrolments_where(connection, which) if row.id in revoked]

    def revoked_certificates(self, not_after: datetime) -> list[RevokedCertificate]:
        """Return the certificates of revoked enrolments that did not expire before `not_after`."""
        columns = (CERTIFICATES.c.serial, ENROLMENTS.c.revoked_at, ENROLMENTS.c.reason)
        query = sa.select(*columns).select_from(CERTIFICATES.join(ENROLMENTS))
        query = query.where(ENROLMENTS.c.revoked_at.is_not(None), CERTIFICATES.c.not_after >= not_after.timestamp())
        with self.database.reading() as connection:
            query = query.order_by(ENROLMENTS.c.revoked_at, CERTIFICATES.c.serial)
            rows: Sequence[Any] = connection.execute(query).all()
            serials = [_number_in(row.serial) for row in rows]
            if None in serials:
                rows = connection.execute(query.add_columns(CERTIFICATES.c.pem)).all()
                serials = [_serial_of(row) for row in rows]
        return [
            RevokedCertificate(serial, utc(row.revoked_at), reason_in(row.reason))
            for serial, row in zip(serials, rows, strict=True)
            if serial is not None
        ]


def _unknown(target: str) -> UnknownEnrolment:
    return UnknownEnrolment(f"No agent or enrolment is named {target[:80]!r}; `acm enrolment list` shows all.")


def _number_in(serial: str) -> int | None:
    try:
        return int(serial, 16)
    except ValueError:
        return None


def _serial_of(row: Any) -> int | None:
    """Return a certificate's serial number, also if the column is damaged; None if the certificate is, too."""
    if (number := _number_in(row.serial)) is not None:
        return number
    try:
        return x509.load_pem_x509_certificate(row.pem.encode()).serial_number
    except ValueError:
        _log.error("revoked_certificate_damaged", serial=row.serial)
        return None


def _issued_before(
    connection: sa.Connection, token: TokenRecord, enrolment_id: str, key: Ed25519PublicKey
) -> IssuedCertificate:
    if token.key != key_fingerprint(key):
        raise TokenUsed(
            f"The token was already used, by another key. If {token.agent} did not use it, revoke the enrolment with "
            f"`acm enrolment revoke {enrolment_id}`; to enroll this key, create a new token."
        )
    agent = _agent_of_valid_enrolment(connection, enrolment_id)
    of_key = sa.select(CERTIFICATES.c.pem, CERTIFICATES.c.not_after)
    of_key = of_key.where(CERTIFICATES.c.enrolment_id == enrolment_id, CERTIFICATES.c.key == token.key)
    row = connection.execute(of_key.order_by(CERTIFICATES.c.not_after.desc()).limit(1)).one()
    return IssuedCertificate(enrolment_id, agent, row.pem, utc(row.not_after))


def _add_agent(connection: sa.Connection, agent: str, now: datetime) -> None:
    """Add the agent to the ledger, so that commands can be sent to it before its first status."""
    insert_missing(connection, AGENTS, [new_agent(agent, now)])
    connection.execute(AGENTS.update().where(AGENTS.c.name == agent).values(forgotten_at=None))


def _agent_of_valid_enrolment(connection: sa.Connection, enrolment_id: str) -> str:
    """Return the agent of an enrolment, which is locked until the commit; raises EnrolmentRevoked."""
    query = sa.select(ENROLMENTS.c.agent, ENROLMENTS.c.revoked_at).where(ENROLMENTS.c.id == enrolment_id)
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise EnrolmentRevoked(
            "The enrolment is not recorded here: enroll again with a new token.", code="enrolment_not_recorded"
        )
    if row.revoked_at is not None:
        raise EnrolmentRevoked("The enrolment was revoked: enroll again with a new token.")
    return str(row.agent)


def _refuse_too_many(connection: sa.Connection, enrolment_id: str, now: datetime) -> None:
    """Raise RenewedTooOften while the enrolment has as many young certificates as it may."""
    third = (CERTIFICATES.c.not_after - CERTIFICATES.c.not_before) / 3
    young = sa.and_(CERTIFICATES.c.enrolment_id == enrolment_id, CERTIFICATES.c.not_before + third > now.timestamp())
    count = connection.scalar(sa.select(sa.func.count()).select_from(CERTIFICATES).where(young)) or 0
    if count >= _MAX_YOUNG_CERTIFICATES:
        raise RenewedTooOften(
            f"The enrolment has {count} certificates that are younger than a third of their lifetime: use the newest."
        )


def _issue(
    connection: sa.Connection, enrolment_id: str, agent: str, key: Ed25519PublicKey, issue: IssueCertificate
) -> IssuedCertificate:
    certificate = issue()
    pem = certificate.public_bytes(Encoding.PEM).decode()
    values = {
        "serial": f"{certificate.serial_number:x}",
        "enrolment_id": enrolment_id,
        "key": key_fingerprint(key),
        "not_before": certificate.not_valid_before_utc.timestamp(),
        "not_after": certificate.not_valid_after_utc.timestamp(),
        "pem": pem,
    }
    connection.execute(CERTIFICATES.insert().values(**values))
    return IssuedCertificate(enrolment_id, agent, pem, certificate.not_valid_after_utc)
