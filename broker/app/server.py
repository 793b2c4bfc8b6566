"""The composition root of `acm server`: one loop over one connection and one ledger."""

import threading
from importlib.metadata import version
from time import monotonic

import structlog

from broker.app.config import ServerConfig
from broker.app.credentials import server_certificate_files, signer_of, signing_keys_path
from broker.app.factories import open_configured_database, utc_now
from broker.contract.secret_shapes import mask_shapes
from broker.contract.topics import Topics
from broker.enrolment.certificate_upkeep import ExpiryWarnings
from broker.enrolment.store import EnrolmentStore
from broker.errors import BrokerError, ExposedFileError, LedgerError
from broker.ledger.clock import LedgerClock
from broker.ledger.ledger import Ledger
from broker.ledger.location import ledger_url, place_of
from broker.ledger.server_lock import ServerLock, ServerRunning
from broker.ledger.sqlite import LedgerReplaced
from broker.mqtt.connection import MqttConnection
from broker.server.inbox import FairInbox
from broker.server.key_distribution import KeyDistribution
from broker.server.server import Server
from broker.signing.key_list import SigningKeyError
from broker.system.service_manager import ServiceManager

__all__ = [
    "ServerProcess",
]


_log = structlog.get_logger("acm.server")
_POLL_INTERVAL_S = 0.05  # the longest delay of a command that another process adds to the ledger
_RETRY_S = 1.0
_CHECK_S = 5.0


class ServerProcess:
    """Runs a Server until stopped. Messages are signed as soon as signing keys exist.

    `ledger` takes commands and returns their results; use it from any thread until `run` has returned.

    Raises LedgerError if the ledger cannot be opened, ServerRunning if another server has this client id, MqttError for
    a bad URL, SigningKeyError if the keys cannot be read, ServerConfigurationError if agents are enrolled but there are
    no keys, and ExposedFileError.
    """

    def __init__(self, config: ServerConfig, service_manager: ServiceManager | None = None) -> None:
        topics = Topics(config.topic_prefix)
        self._connected = threading.Event()
        self._stopping = threading.Event()
        self._reloading = threading.Event()
        self._retry_at = 0.0
        self._is_skewed = False
        self._connection = MqttConnection(
            config.broker,
            config.client_id,
            subscriptions=Server.subscriptions(topics),
            on_connect=self._connected.set,
            tls=config.broker_tls,
        )
        self._service_manager = service_manager or ServiceManager(monotonic, {})
        self._description = {
            "version": version("agent-command-manager"),
            "broker": mask_shapes(config.broker),
            "client_id": config.client_id,
            "ledger": place_of(ledger_url(config.ledger)),
        }
        self._database = open_configured_database(config.ledger)
        self._clock = LedgerClock(self._database, utc_now)
        self._warn_of_skew()
        self.ledger = Ledger(self._database, now=self._clock)
        self._lock = ServerLock(self._database, config.client_id, self._clock)
        enrolments = EnrolmentStore(self._database, now=self._clock)
        try:
            signer = signer_of(config, enrolments)
            self._lock.acquire()
            self._database.refuse_damaged(_CHECK_S)
        except BrokerError:
            self._lock.release()
            self._database.close()
            raise
        distribution = KeyDistribution(self.ledger, enrolments, signing_keys_path(config), utc_now)
        self._server = Server(self.ledger, self._connection, topics, signer, monotonic, distribution.on_status)
        self._expiry = ExpiryWarnings(server_certificate_files(config), now=utc_now, monotonic=monotonic)
        self._inbox = FairInbox(self._connection, topics, monotonic)

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
        try:
            with self._connection:
                while not self._stopping.is_set():
                    if self._reloading.is_set():
                        self._reloading.clear()
                        self._connection.reconnect()
                    self._tell_service_manager()
                    self._expiry.step("the enrolment server has not renewed it")
                    ready = monotonic() >= self._retry_at
                    self._inbox.fetch(0.0 if ready and self._inbox.waiting else _POLL_INTERVAL_S)
                    if ready:
                        self._work()
        finally:
            self._service_manager.stopping()
            self._lock.release()
            self._database.close()
            _log.info("server_stopped")

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
        try:
            self._database.refuse_replaced()
            self._clock.keep()
            self._warn_of_skew()
            self._lock.keep()
            if self._connected.is_set():
                self._connected.clear()
                self._server.connected()
            self._server.receive(self._inbox.next_batch())
            self._inbox.acknowledge_batch()
            self._server.settle(connected=self._connection.connected)
            if self._connection.connected:
                self._server.step()
            self._connection.abandon_if_deaf(self._server.expects_messages)
        except (LedgerReplaced, ServerRunning):
            raise
        except (ExposedFileError, LedgerError, SigningKeyError) as error:
            _log.error("server_step_failed", code=error.code, reason=str(error))
            self._retry_at = monotonic() + _RETRY_S
