"""The composition root of `acm server`: one loop over one connection and one ledger."""

import threading
from datetime import UTC, datetime
from time import monotonic

import structlog

from broker.config import ServerConfig
from broker.contract.topics import Topics
from broker.intake import Intake
from broker.ledger import Ledger, LedgerError
from broker.mqtt import MqttConnection
from broker.server import Server

__all__ = ["ServerProcess", "open_ledger"]

_log = structlog.get_logger("acm.server")
_POLL_S = 0.05  # how soon a command that another process put into the ledger is seen
_RETRY_S = 1.0


def open_ledger(url: str) -> Ledger:
    """Open the ledger on the machine's clock; raises LedgerError."""
    return Ledger(url, now=lambda: datetime.now(UTC))


class ServerProcess:
    """Runs a Server until stopped. Raises LedgerError when the ledger cannot be opened, MqttError for a bad URL."""

    def __init__(self, config: ServerConfig) -> None:
        topics = Topics(config.topic_prefix)
        self._connected = threading.Event()
        self._stopping = threading.Event()
        self._retry_at = 0.0
        self._connection = MqttConnection(
            config.broker,
            config.client_id,
            subscriptions=Server.subscriptions(topics),
            on_connect=self._connected.set,
        )
        self._ledger = open_ledger(config.ledger)
        self._server = Server(self._ledger, self._connection, topics, monotonic)
        self._intake = Intake(self._connection, topics, monotonic)

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or another thread."""
        self._stopping.set()
        self._connection.wake()

    def run(self) -> None:
        """Work until stopped. A ledger that fails is tried again: nothing is acknowledged that it has not taken."""
        _log.info("server_started")
        try:
            with self._connection:
                while not self._stopping.is_set():
                    ready = monotonic() >= self._retry_at
                    self._intake.fetch(0.0 if ready and self._intake.waiting else _POLL_S)
                    if ready:
                        self._work()
        finally:
            self._ledger.close()
            _log.info("server_stopped")

    def _work(self) -> None:
        try:
            if self._connected.is_set():
                self._connected.clear()
                self._server.connected()
            self._server.receive(self._intake.turn())
            self._intake.settle()
            if self._connection.connected:
                self._server.step()
        except LedgerError as error:
            _log.error("ledger_failed", reason=str(error))
            self._retry_at = monotonic() + _RETRY_S
