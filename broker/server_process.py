"""The composition root of `acm server`: one loop over one connection and one ledger."""

import threading
from datetime import UTC, datetime
from time import monotonic

import structlog

from broker.config import ConfigurationError, ServerConfig
from broker.contract.topics import Topics
from broker.enrolments import Enrolments
from broker.errors import BrokerError
from broker.intake import Intake
from broker.key_reminder import KeyReminder
from broker.ledger import Ledger, LedgerError
from broker.mqtt import MqttConnection
from broker.registry import open_enrolments, open_signing_keys, signing_keys_path
from broker.server import Server
from broker.signer import Signer
from broker.signing_keys import SigningKeyError

__all__ = ["ServerProcess", "open_ledger"]

_log = structlog.get_logger("acm.server")
_POLL_S = 0.05  # how soon a command that another process put into the ledger is seen
_RETRY_S = 1.0


def open_ledger(url: str) -> Ledger:
    """Open the ledger on the machine's clock; raises LedgerError."""
    return Ledger(url, now=lambda: datetime.now(UTC))


def _signer(config: ServerConfig, enrolments: Enrolments) -> Signer | None:
    path = signing_keys_path(config)
    if not path.exists():
        if enrolments.any_agents():
            raise ConfigurationError(
                f"There are no signing keys in {path}, but agents that were enrolled take nothing unsigned: say by "
                "signing_keys where the keys are, or restore them from a backup."
            )
        _log.warning("commands_are_not_signed", signing_keys=str(path))
        return None
    keys = open_signing_keys(config)
    return Signer(
        config.client_id,
        lambda: keys.signing,
        enrolments.good_of,
        now=lambda: datetime.now(UTC),
        monotonic=monotonic,
    )


class ServerProcess:
    """Runs a Server until stopped. It signs where there are signing keys.

    Raises LedgerError when the ledger cannot be opened, MqttError for a bad URL, SigningKeyError when the keys cannot
    be read, ConfigurationError when there are none, but agents that were enrolled and will take nothing unsigned.
    """

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
            tls=config.broker_tls,
        )
        self._ledger = open_ledger(config.ledger)
        self._enrolments = open_enrolments(config)
        try:
            signer = _signer(config, self._enrolments)
        except BrokerError:
            self._close()
            raise
        reminder = KeyReminder(self._ledger, self._enrolments, signing_keys_path(config), lambda: datetime.now(UTC))
        self._server = Server(self._ledger, self._connection, topics, signer, monotonic, reminder.heard)
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
            self._close()
            _log.info("server_stopped")

    def _close(self) -> None:
        self._enrolments.close()
        self._ledger.close()

    def _work(self) -> None:
        try:
            if self._connected.is_set():
                self._connected.clear()
                self._server.connected()
            self._server.receive(self._intake.turn())
            self._intake.settle()
            if self._connection.connected:
                self._server.step()
        except (LedgerError, SigningKeyError) as error:
            _log.error("server_cannot_work", reason=str(error))
            self._retry_at = monotonic() + _RETRY_S
