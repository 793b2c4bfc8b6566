"""What the routes of the API are made of, for the page that stands before them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from broker.access.audit_log import AuditLog
from broker.access.foreign_log_in import ForeignLogIn
from broker.access.sessions import SessionStore
from broker.api.access import Access
from broker.api.changes import Requests
from broker.api.enrolling import Enrolling
from broker.api.event_stream import EventStreams
from broker.api.installation import ApiInstallation
from broker.ledger.ledger import Ledger

__all__ = [
    "ApiParts",
]


@dataclass(frozen=True)
class ApiParts:
    """The ledger, its installation, and what routes share: a page has the rights and the limits of the API.

    `log_in` is where people log in besides, if anywhere.
    """

    ledger: Ledger
    installation: ApiInstallation
    requests: Requests
    access: Access
    sessions: SessionStore
    audit_log: AuditLog
    enrolling: Enrolling
    streams: EventStreams
    now: Callable[[], datetime]
    log_in: ForeignLogIn | None
