"""Certificates of operators: each lets who has its key use the API as a principal, until it expires.

A certificate is recognized by its fingerprint in the ledger, not by a name in it: so no other certificate of the same
authority, such as an agent's, is ever one of an operator.
"""

from collections.abc import Callable, Collection, Container
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.access.grants import (
    LONGEST_PRINCIPAL,
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
from broker.access.models import OperatorCertificateView
from broker.access.tables import OPERATOR_CERTIFICATES
from broker.contract.enrolment_token import fingerprint_of
from broker.contract.topics import InvalidName, check_name
from broker.errors import BrokerError, LedgerError
from broker.fleet.models import Principal
from broker.ledger.also import Also, nothing_else
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.pages import newest_by_id
from broker.ledger.tables import utc
from broker.pki.revocation_list import RevocationReason, RevokedCertificate

__all__ = [
    "OperatorCertificate",
    "OperatorCertificateStore",
    "UnknownOperatorCertificate",
    "checked_operator",
    "view_of_certificate",
]


_PREFIX = "cert:"  # of the principal's name: no access token has a name with a colon


class UnknownOperatorCertificate(BrokerError):
    """No operator's certificate has this id, or it is revoked already."""

    code = "unknown_operator_certificate"


@dataclass(frozen=True)
class OperatorCertificate(AccessGrant):
    """A certificate as it is stored. The name of its principal begins with `cert:`."""

    serial: int


def checked_operator(name: str) -> str:
    """Return the name of an operator unchanged; raises InvalidName."""
    check_name(name, "an operator's name")
    if len(_PREFIX + name) > LONGEST_PRINCIPAL:
        raise InvalidName(f"{name!r} is too long for an operator's name: use at most 59 characters.")
    return name


class OperatorCertificateStore:
    """The operators' certificates in the ledger's database, which its opener closes.

    `listed` are the serial numbers on the authority's revocation list, which remembers what a ledger that was restored
    from a backup has forgotten. Every method is one transaction, and raises LedgerError if the database
    fails. For a caller with groups, `within`, there are only the certificates for some of these groups. `also` writes
    what belongs to a change in the same transaction.
    """

    def __init__(
        self, database: Database, *, now: Callable[[], datetime], listed: Container[int] = frozenset()
    ) -> None:
        self._transaction, self._reading = database.transaction, database.reading
        self._now = now
        self._listed = listed

    @retry_conflicts
    def add(self, principal: Principal, certificate: x509.Certificate, created_by: str) -> OperatorCertificate:
        """Record a certificate of this principal, which has an operator's name. Raises InvalidName, InvalidArgument."""
        now, end = self._now(), certificate.not_valid_after_utc
        known_as = replace(principal, name=_PREFIX + checked_operator(principal.name))
        values = new_grant(known_as, end - now, created_by, now)
        values |= {"fingerprint": _fingerprint(certificate), "serial": f"{certificate.serial_number:x}"}
        with self._transaction() as connection:
            connection.execute(OPERATOR_CERTIFICATES.insert().values(**values))
            query = OPERATOR_CERTIFICATES.select().where(OPERATOR_CERTIFICATES.c.id == values["id"])
            return _certificate(connection.execute(query).one())

    def page(
        self, cursor: str | None, limit: int, within: frozenset[str] | None = None
    ) -> tuple[list[OperatorCertificate], str | None]:
        """Look at `limit` certificates, newest first; return those that the caller sees, and the cursor for more."""
        every, ids = OPERATOR_CERTIFICATES.select(), OPERATOR_CERTIFICATES.c.id
        with self._reading() as connection:
            rows, end = newest_by_id(connection, every, ids, cursor, limit)
        return [it for it in map(_certificate, rows) if sees_grant(within, it)], end

    @retry_conflicts
    def revoke(
        self,
        certificate_id: str,
        within: frozenset[str] | None = None,
        also: Also[OperatorCertificate] = nothing_else,
    ) -> OperatorCertificate:
        """Revoke a certificate from now on; raises UnknownOperatorCertificate."""
        is_it = OPERATOR_CERTIFICATES.c.id == certificate_id
        valid = OPERATOR_CERTIFICATES.update().where(is_it, OPERATOR_CERTIFICATES.c.revoked_at.is_(None))
        with self._transaction() as connection:
            changed = connection.execute(valid.values(revoked_at=self._now().timestamp())).rowcount
            row = connection.execute(OPERATOR_CERTIFICATES.select().where(is_it)).one_or_none()
            certificate = None if row is None else _certificate(row)
            if not changed or certificate is None or not sees_grant(within, certificate):
                raise UnknownOperatorCertificate(
                    f"No valid certificate of an operator has the id {certificate_id[:80]!r}; "
                    "`acm api certificate list` shows all."
                )
            also(connection, certificate)
            return certificate

    def revoked_certificates(self, not_after: datetime) -> list[RevokedCertificate]:
        """Return the revoked certificates that did not expire before `not_after`, for the revocation list."""
        columns = OPERATOR_CERTIFICATES.c
        query = sa.select(columns.serial, columns.revoked_at)
        query = query.where(columns.revoked_at.is_not(None), columns.expires_at >= not_after.timestamp())
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [
            RevokedCertificate(int(row.serial, 16), utc(row.revoked_at), RevocationReason.UNSPECIFIED) for row in rows
        ]

    def credential_of(self, der: bytes) -> Credential:
        """Return the principal of a client that has shown this certificate (DER), and proved that it has its key.

        Remembers the use. Raises InvalidCredential.
        """
        query = OPERATOR_CERTIFICATES.select().where(OPERATOR_CERTIFICATES.c.fingerprint == fingerprint_of(der))
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise InvalidCredential(
                "The client's certificate is not of an operator: `acm api certificate create` makes one.",
                code="unknown_credential",
            )
        found, now = _certificate(row), self._now()
        credential = credential_of_grant(found, "certificate", now, is_listed=found.serial in self._listed)
        if not is_noted(found, now):
            with suppress(LedgerError):  # what only reads must also work while nothing can be written
                self._note_use(found.id, now)
        return credential

    def valid_among(self, ids: Collection[str]) -> set[str]:
        """Return the ids of those of these certificates that are neither revoked nor expired."""
        columns = OPERATOR_CERTIFICATES.c
        is_valid = (columns.revoked_at.is_(None), columns.expires_at > self._now().timestamp())
        query = sa.select(columns.id, columns.serial).where(columns.id.in_(given_keys()), *is_valid)
        with self._reading() as connection:
            rows = connection.execute(query, as_keys(ids)).all()
        return {row.id for row in rows if int(row.serial, 16) not in self._listed}

    @retry_conflicts
    def _note_use(self, certificate_id: str, now: datetime) -> None:
        used = OPERATOR_CERTIFICATES.update().where(OPERATOR_CERTIFICATES.c.id == certificate_id)
        with self._transaction() as connection:
            connection.execute(used.values(used_at=now.timestamp()))


def view_of_certificate(certificate: OperatorCertificate) -> OperatorCertificateView:
    """Return a certificate as the API shows it."""
    return OperatorCertificateView(**shown_facts(certificate), serial=f"{certificate.serial:x}")


def _fingerprint(certificate: x509.Certificate) -> str:
    return fingerprint_of(certificate.public_bytes(Encoding.DER))


def _certificate(row: Any) -> OperatorCertificate:
    return OperatorCertificate(**facts_of_grant(row), serial=int(row.serial, 16))
