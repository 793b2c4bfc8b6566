"""The composition root of `acm server`: one loop over one connection and one ledger."""

import contextlib
import threading
from collections.abc import Sequence
from importlib.metadata import version
from time import monotonic, time

import structlog

from broker.app.config import ServerConfig
from broker.app.credentials import revocation_list_path, server_certificate_files, signer_of, signing_keys_path
from broker.app.factories import log_migration, open_configured_database, utc_now
from broker.app.ledger_watch import LedgerWatch
from broker.app.metrics import of_certificates, of_commits, own_version
from broker.contract.secret_shapes import mask_shapes
from broker.contract.topics import Topics
from broker.enrolment.certificate_upkeep import ExpiryWarnings
from broker.enrolment.ledger_metrics import of_ledger
from broker.enrolment.store import EnrolmentStore
from broker.errors import ExposedFileError, LedgerError
from broker.ledger.clock import LedgerClock
from broker.ledger.ledger import Ledger
from broker.ledger.location import ledger_url, place_of
from broker.ledger.server_lock import ServerLock, ServerRunning
from broker.ledger.sqlite import LedgerReplaced
from broker.metrics.common import of_connection
from broker.metrics.listener import serving_metrics
from broker.metrics.values import Source
from broker.mqtt.connection import MqttConnection
from broker.server.command_events import ServerCommandLog, ServerWatches
from broker.server.counts import AgentGroups, ServerCounts
from broker.server.inbox import FairInbox
from broker.server.key_distribution import KeyDistribution
from broker.server.server import Server
from broker.server.traces import ServerTraces
from broker.server.watch import ServerWatch
from broker.signing.key_list import SigningKeyError
from broker.system.command_log import CommandLog
from broker.system.memory import return_free_memory
from broker.system.service_manager import ServiceManager
from broker.text import encodable
from broker.tracing.opening import opened_tracer, tracing
from broker.tracing.port import Tracer

__all__ = [
    "ServerProcess",
]


_log = structlog.get_logger("acm.server")
_WORK_EVERY_S = 2.0  # for what becomes due by time, and for changes that were not notified
_WORK_AGAIN_S = 0.05
_RETRY_S = 1.0
_CHECK_S = 5.0


class ServerProcess:
    """Runs a Server until stopped. Messages are signed as soon as signing keys exist.

    `ledger` takes commands and returns their results; use it from any thread until `run` has returned. `tracer` takes
    the place of the configured one, and is closed.

    Raises LedgerError if the ledger cannot be opened, ServerRunning if another server has this client id, MqttError for
    a bad URL, SigningKeyError if the keys cannot be read, ServerConfigurationError if agents are enrolled but there are
    no keys, and ExposedFileError.
    """

    def __init__(
        self, config: ServerConfig, service_manager: ServiceManager | None = None, tracer: Tracer | None = None
    ) -> None:
        topics = Topics(config.topic_prefix)
        self._connected = threading.Event()
        self._stopping = threading.Event()
        self._reloading = threading.Event()
        self._work_at = self._retry_at = 0.0
        self._is_skewed = False
        self._connection = MqttConnection(
            config.broker,
            config.client_id,
            subscriptions=Server.subscriptions(topics),
            on_connect=self._note_connection,
            tls=config.broker_tls,
        )
        self._service_manager = service_manager or ServiceManager(monotonic, {})
        self._description = {
            "version": version("agent-command-manager"),
            "broker": mask_shapes(config.broker),
            "client_id": config.client_id,
            "ledger": place_of(ledger_url(config.ledger)),
        }
        with contextlib.ExitStack() as opened:
            self._database = opened.enter_context(open_configured_database(config.ledger, tell=log_migration))
            self._clock = LedgerClock(self._database, utc_now)
            self._warn_of_skew()
            self.ledger = Ledger(self._database, now=self._clock)
            enrolments = EnrolmentStore(self._database, now=self._clock)
            signer = signer_of(config, enrolments)
            self._lock = ServerLock(self._database, config.client_id, self._clock)
            opened.callback(self._lock.release)
            self._lock.acquire()
            self._database.refuse_damaged(_CHECK_S)
            distribution = KeyDistribution(self.ledger, enrolments, signing_keys_path(config), utc_now)
            counting, self._metrics = self._counted(config)
            tracer = tracer or opened_tracer(config.traces, "acm-server", config.client_id)
            opened.enter_context(tracing(tracer))
            traces = [] if tracer is None else [ServerTraces(tracer, topics, time)]
            self._told = ServerWatches(ServerCommandLog(CommandLog(utc_now)), *counting, *traces)
            self._server = Server(
                self.ledger, self._connection, topics, signer, monotonic, distribution.on_status, self._told, *traces
            )
            self._expiry = ExpiryWarnings(server_certificate_files(config), now=utc_now, monotonic=monotonic)
            self._inbox = FairInbox(self._connection, topics, monotonic, self._told)
            self._changes = opened.enter_context(self._database.changes())
            self._watch = LedgerWatch(self._changes, self._connection.wake)
            opened.callback(self._watch.close)
            opened.enter_context(serving_metrics("metrics_listen", config.metrics_listen, self._metrics))
            self._opened = opened.pop_all()

    def _counted(self, config: ServerConfig) -> tuple[Sequence[ServerWatch], Sequence[Source]]:
        """Return what counts, if the metrics are wanted, and what they are."""
        if config.metrics_listen is None:
            return [], []
        counts = ServerCounts(AgentGroups(self.ledger.groups, monotonic), self._clock, monotonic)
        certificates = of_certificates(server_certificate_files(config), revocation_list_path(config))
        own = (own_version(), of_connection(self._connection), of_commits(self._database), certificates)
        return [counts], [*own, counts.families, of_ledger(self._database, self._clock, monotonic)]

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or another thread."""
        self._stopping.set()
        self._database.stop_waiting()
        self._connection.wake()

    def reload(self) -> None:
        """Read the certificate and connect again soon; may be called from a signal handler or another thread."""
        self._reloading.set()
        self._connection.wake()

    def run(self) -> None:
        """Work until stopped. An error of the ledger is retried; messages are acknowledged after their commit only."""
        _log.info("server_started", **self._description)
        return_free_memory()  # what the imports needed for a moment: 6 of 80 MB
        try:
            with self._connection:
                while not self._stopping.is_set():
                    self._turn()
        finally:
            self._service_manager.stopping()
            self._opened.close()
            _log.info("server_stopped")

    def _turn(self) -> None:
        if self._reloading.is_set():
            self._reloading.clear()
            self._connection.reconnect()
        self._tell_service_manager()
        self._expiry.step("the enrolment server has not renewed it")
        self._wait()
        if monotonic() >= self._retry_at and self._has_work():
            self._work()

    def _wait(self) -> None:
        """Wait for a message, a change of the ledger, or the time of the next work; not at all if there is work."""
        # design.md: "An idle server sleeps."
        now = monotonic()
        if now < self._retry_at:
            self._inbox.fetch(self._retry_at - now)
        elif self._inbox.waiting:
            self._inbox.fetch(0.0)
        else:
            self._watch.arm()
            self._inbox.fetch(max(0.0, min(self._changes.look_in_s, self._work_at - now)))

    def _has_work(self) -> bool:
        has_changed = self._changes.look()
        return has_changed or self._inbox.waiting or self._connected.is_set() or monotonic() >= self._work_at

    def _note_connection(self) -> None:
        self._connected.set()
        self._connection.wake()

    def _note_connection_state(self) -> None:
        """Record whether there is a connection to the broker, or why not, once that is known."""
        problem = None if self._connection.connected else self._connection.last_error
        if self._connection.connected or problem is not None:
            self._lock.note_connection(problem and encodable(problem))

    def _tell_service_manager(self) -> None:
        ready = self._connection.connected and monotonic() >= self._retry_at
        self._service_manager.turn(ready=ready, status=self._connection.summary)

    def _warn_of_skew(self) -> None:
        """Log once that the clocks differ, until they agree again."""
        warning = self._clock.warning
        if warning is not None and not self._is_skewed:
            _log.warning("clocks_differ", reason=warning)
        self._is_skewed = warning is not None

    def _work(self) -> None:
        began = monotonic()
        try:
            self._database.refuse_replaced()
            self._clock.keep()
            self._warn_of_skew()
            self._lock.keep()
            self._note_connection_state()
            if self._connected.is_set():
                self._connected.clear()
                self._server.connected()
            self._server.receive(self._inbox.next_batch())
            self._inbox.acknowledge_batch()
            self._server.settle(connected=self._connection.connected)
            if self._connection.connected:
                self._server.step(is_behind=self._inbox.waiting)
            self._connection.abandon_if_deaf(self._server.expects_messages)
            self._lock.note_turn()
            goes_on = self._inbox.queued or self._server.unfinished
            self._work_at = monotonic() + (_WORK_AGAIN_S if goes_on else _WORK_EVERY_S)
        except (LedgerReplaced, ServerRunning):
            raise
        except (ExposedFileError, LedgerError, SigningKeyError) as error:
            _log.error("server_step_failed", code=error.code, reason=str(error))
            self._work_at = self._retry_at = monotonic() + _RETRY_S
            self._told.turn_ended(monotonic() - began, failed=True)
        else:
            self._told.turn_ended(monotonic() - began, failed=False)
