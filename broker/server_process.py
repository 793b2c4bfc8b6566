"""The composition root of `acm server`: one loop over one connection and one ledger."""

import threading
from collections.abc import Sequence as Listing
from datetime import UTC, datetime
from time import monotonic

import structlog

from broker.config import ConfigurationError, ServerConfig
from broker.contract.signing import SigningKey
from broker.contract.topics import Topics
from broker.enrolments import Enrolments
from broker.errors import BrokerError, LedgerError
from broker.intake import Intake
from broker.key_reminder import KeyReminder
from broker.ledger import Ledger
from broker.mqtt import MqttConnection
from broker.registry import open_enrolments, open_signing_keys, signing_keys_path
from broker.server import Server
from broker.signer import Signer
from broker.signing_keys import SigningKeyError, SigningKeys

__all__ = ["ServerProcess", "SigningKeySource", "open_ledger", "signer_of"]

_log = structlog.get_logger("acm.server")
_POLL_S = 0.05  # how soon a command that another process put into the ledger is seen
_RETRY_S = 1.0


def open_ledger(url: str) -> Ledger:
    """Open the ledger on the machine's clock; raises LedgerError."""
    return Ledger(url, now=lambda: datetime.now(UTC))


class SigningKeySource:
    """The keys that sign, looked for again as long as there are none. Raises SigningKeyError."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.path = signing_keys_path(config)
        self._found: SigningKeys | None = None

    def __call__(self) -> Listing[SigningKey]:
        """Return the keys of now; none where there is no directory of keys."""
        if self._found is None and self._are_there():
            self._found = open_signing_keys(self._config)
        return self._found.signing if self._found else ()

    def _are_there(self) -> bool:
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise SigningKeyError(
                f"{self.path} cannot be looked at: {error.strerror}; run this as the user whose keys they are."
            ) from error
        return True


def signer_of(config: ServerConfig, enrolments: Enrolments) -> Signer:
    """Return what signs for this configuration; raises ConfigurationError where keys were lost, and SigningKeyError."""
    keys = SigningKeySource(config)
    if not keys():
        if enrolments.any_agents():
            raise ConfigurationError(
                f"There are no signing keys in {keys.path}, but agents that were enrolled take nothing unsigned: say "
                "by signing_keys where the keys are, or restore them from a backup."
            )
        _log.warning("commands_are_not_signed", signing_keys=str(keys.path))
    return Signer(config.client_id, keys, enrolments.standings, now=lambda: datetime.now(UTC), monotonic=monotonic)


class ServerProcess:
    """Runs a Server until stopped. It signs as soon as there are signing keys.

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
            signer = signer_of(config, self._enrolments)
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
