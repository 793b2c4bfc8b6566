"""Renews the certificates of the servers while the enrolment server runs, and warns of those that expire soon."""

from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from broker.errors import BrokerError
from broker.pki.server_certificates import CertificateFile, ServerCertificates, expiring

__all__ = [
    "CertificateUpkeep",
    "ExpiryWarnings",
]


_CHECK_INTERVAL_S = 60.0
_WARN_INTERVAL_S = 86400.0
_log = structlog.get_logger("acm.certificates")


class ExpiryWarnings:
    """Logs, once a day, which of these certificates expire within 30 days. Driven by calls of `step`."""

    def __init__(
        self, files: Sequence[CertificateFile], *, now: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self._files = files
        self._now = now
        self._monotonic = monotonic
        self._warn_at = monotonic()

    def step(self, reason: str) -> None:
        """Warn if it is time to; `reason` is why they were not renewed."""
        if self._monotonic() < self._warn_at:
            return
        self._warn_at = self._monotonic() + _WARN_INTERVAL_S
        for path, end in expiring(self._files, self._now()):
            until = end.isoformat(timespec="minutes")
            _log.warning("certificate_expires", path=str(path), not_after=until, not_renewed=reason)


class CertificateUpkeep:
    """Driven by calls of `step`, which looks at the certificates once a minute."""

    def __init__(
        self, certificates: ServerCertificates, *, now: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self._certificates = certificates
        self._warnings = ExpiryWarnings(certificates.files, now=now, monotonic=monotonic)
        self._monotonic = monotonic
        self._check_at = monotonic()

    def step(self) -> None:
        """Renew what is due, then warn of what expires within 30 days. An error is part of the warning."""
        if self._monotonic() < self._check_at:
            return
        self._check_at = self._monotonic() + _CHECK_INTERVAL_S
        reason = "it is not of this authority"
        try:
            for path in self._certificates.renew_due():
                _log.info("certificate_renewed", path=str(path))
        except BrokerError as error:
            reason = str(error)
        self._warnings.step(reason)
