"""Warns of certificates of the broker and the servers that expire soon."""

from broker.cli.session import Session
from broker.console.output import minute, print_text

__all__ = [
    "warn_of_expiry",
]


def warn_of_expiry(session: Session) -> None:
    """Print a line on stderr for each certificate that expires within 30 days; those that cannot be read are skipped.

    Without configured certificates no cryptography is imported.
    """
    config = session.config
    if (config.broker_certificate, config.enroll_certificate, config.api_certificate) == (None, None, None):
        return
    from broker.app.credentials import server_certificate_files
    from broker.app.factories import utc_now
    from broker.pki.server_certificates import expiring

    for path, end in expiring(server_certificate_files(config), utc_now()):
        print_text(
            f"acm: {path} expires at {minute(end)} UTC: a running enrolment server renews it if the authority has "
            "issued it (`acm broker config` does so, too).",
            to_stderr=True,
        )
