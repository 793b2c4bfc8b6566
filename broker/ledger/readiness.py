"""Whether what needs the ledger would work now: it answers, and its server is connected and works. It reads only."""

import time
from collections.abc import Callable, Sequence
from threading import Lock

from broker.errors import BrokerError
from broker.ledger.database import Database
from broker.ledger.server_lock import RunningServer, running_servers, seconds_since_turn
from broker.system.readiness import ReadinessCheck, ReadinessReport

__all__ = [
    "LedgerReadiness",
]


_ANSWER_S = 2.0
_TURN_S = 10.0  # a server that waits for work turns every two seconds
_FRESH_S = 1.0


class LedgerReadiness:
    """Looks at most once a second, and by one thread at a time: who asks needs no credential.

    `with_server`: also whether a server works on the ledger. `monotonic` is a clock in seconds.
    """

    def __init__(
        self, database: Database, *, with_server: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._with_server = with_server
        self._monotonic = monotonic
        self._looking = Lock()
        self._last: ReadinessReport | None = None
        self._fresh_until = monotonic()

    def __call__(self) -> ReadinessReport:
        """Return what was found within the last second; while another thread looks, what was found before."""
        last = self._last
        if not self._looking.acquire(timeout=-1 if last is None else 0):
            assert last is not None
            return last
        try:
            if self._last is None or self._monotonic() >= self._fresh_until:
                self._last = ReadinessReport.of(self._look())
                self._fresh_until = self._monotonic() + _FRESH_S
            return self._last
        finally:
            self._looking.release()

    def _look(self) -> Sequence[ReadinessCheck]:
        try:
            with self._database.answering_within(_ANSWER_S):
                self._database.refuse_replaced()
                servers = running_servers(self._database)
                checks = self._server_checks(servers) if self._with_server else ()
                return [ReadinessCheck("ledger", True, "answers"), *checks]
        except BrokerError as error:
            unknown = (ReadinessCheck(name, False, "unknown") for name in ("server", "broker", "intake"))
            return [ReadinessCheck("ledger", False, error.code), *(unknown if self._with_server else ())]

    def _server_checks(self, servers: Sequence[RunningServer]) -> Sequence[ReadinessCheck]:
        """Return the checks of the servers; several may run, each with a client id of its own, and one is enough."""
        connected = [it for it in servers if it.connection_at is not None and it.connection_problem is None]
        ages = [seconds_since_turn(self._database, it.client_id) for it in servers]
        works = any(age is None or age <= _TURN_S for age in ages)
        return (
            ReadinessCheck("server", bool(servers), "runs" if servers else "not_running"),
            ReadinessCheck("broker", bool(connected), "connected" if connected else "not_connected"),
            ReadinessCheck("intake", works, "works" if works else "stands_still"),
        )
