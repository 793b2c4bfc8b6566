"""Audits for the API: a few at a time, since each keeps a thread while it waits for an agent."""

import threading
from collections.abc import Callable

from broker.access.grants import Credential
from broker.api.changes import ORIGIN_MODULE, Requests
from broker.api.rate_limit import RateLimited
from broker.audit.audits_on_ledger import LedgerAudits
from broker.contract.messages import Origin
from broker.fleet.report_models import AuditVerdict
from broker.ledger.ledger import Ledger
from broker.ledger.waiting import Wait

__all__ = [
    "Audits",
]


_AT_A_TIME = 4
_RETRY_AFTER_S = 10


class Audits:
    """Runs the audits that principals ask for; once it is `ended`, those that wait end."""

    def __init__(self, ledger: Ledger, requests: Requests) -> None:
        self._ledger = ledger
        self._requests = requests
        self._places = threading.BoundedSemaphore(_AT_A_TIME)
        self._ended = threading.Event()

    def end(self) -> None:
        """Let those that wait end within a second, as if their time were over."""
        self._ended.set()

    def run(
        self, who: Credential, action: str, agent: str, call: Callable[[LedgerAudits], AuditVerdict]
    ) -> AuditVerdict:
        """Return what `call` does with the audits as the principal may ask for them. Raises RateLimited."""
        if not self._places.acquire(blocking=False):
            raise RateLimited(f"{_AT_A_TIME} audits are running: try again soon.", retry_after_s=_RETRY_AFTER_S)
        try:
            return call(
                LedgerAudits(
                    self._ledger,
                    Origin(who.principal.name, ORIGIN_MODULE),
                    who.principal.groups,
                    wait=lambda wait_s: Wait(wait_s, is_over=self._ended.is_set),
                    also=self._requests.logged(who, action, agent),
                )
            )
        finally:
            self._places.release()
