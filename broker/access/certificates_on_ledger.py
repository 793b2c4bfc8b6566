"""The operators' certificates of a ledger, for who may do everything with it."""

from broker.access.models import OperatorCertificateView
from broker.access.operator_certificates import OperatorCertificateStore, view_of_certificate
from broker.fleet.models import MAX_PAGE, PageOf

__all__ = [
    "LedgerOperatorCertificates",
]


class LedgerOperatorCertificates:
    """The `OperatorCertificates` of a ledger."""

    def __init__(self, store: OperatorCertificateStore) -> None:
        self._store = store

    def operator_certificates(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[OperatorCertificateView]:
        """Return a page of certificates, newest first."""
        found, end = self._store.page(cursor, min(limit, MAX_PAGE))
        return PageOf(tuple(map(view_of_certificate, found)), end)

    def revoke_operator_certificate(self, certificate_id: str) -> OperatorCertificateView:
        """Revoke a certificate."""
        return view_of_certificate(self._store.revoke(certificate_id))
