"""The composition root of `acm api`: the ledger, the API on it, and the web server."""

import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from time import monotonic

import structlog

from broker.api.address import api_address
from broker.api.app import api_app
from broker.app.api_installation import ConfiguredInstallation
from broker.app.config import ServerConfig
from broker.app.credentials import revocation_list_path
from broker.app.factories import log_migration, open_configured_database, utc_now
from broker.app.issuer import configured_issuer
from broker.app.metrics import of_commits, own_version
from broker.errors import LedgerError
from broker.ledger.clock import LedgerClock
from broker.ledger.ledger import Ledger
from broker.ledger.location import place_of
from broker.ledger.sqlite import LedgerReplaced
from broker.page.app import OperatorsPage
from broker.pki.listed_serials import ListedSerials
from broker.system.checkup import Check
from broker.system.service_manager import ServiceManager
from broker.tracing.opening import opened_tracer
from broker.tracing.port import Tracer
from broker.web.addresses import is_loopback, listen_at
from broker.web.server import ServerFiles, WebLimits, WebServer

__all__ = [
    "ApiServer",
]


_WATCH_INTERVAL_S = 1.0
_log = structlog.get_logger("acm.api")


class ApiServer:
    """Serves until stopped, at `api_listen` or what connects to `listener`, which it closes.

    `checks` are those of the doctor for a configuration; without them, it has no doctor. `tracer` takes the place of
    the configured one, and is closed. Creating it raises LedgerError, ApiAddressError, WebServerError,
    ServerConfigurationError and ExposedFileError.
    """

    def __init__(
        self,
        config: ServerConfig,
        service_manager: ServiceManager | None = None,
        listener: socket.socket | None = None,
        checks: Callable[[ServerConfig], Sequence[Check]] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._service_manager = service_manager or ServiceManager(monotonic, {})
        self._listener = listener
        self._listen = config.api_listen
        self._address = api_address(config.api_listen, has_tls=config.api_pair is not None)
        self._ended = threading.Event()
        self._lost: LedgerReplaced | None = None
        self._database = open_configured_database(config.ledger, tell=log_migration)
        try:
            self._clock = LedgerClock(self._database, utc_now)
            ledger = Ledger(self._database, now=self._clock)
            listed = ListedSerials(revocation_list_path(config))
            issuer = configured_issuer(config, self._clock)
            installation = ConfiguredInstallation(config, checks)
            metrics = (own_version(), of_commits(self._database))
            self._tracer = tracer or opened_tracer(config.traces, "acm-api")
            app = api_app(
                ledger,
                installation,
                now=self._clock,
                listed=listed,
                foreign=issuer.tokens,
                log_in=issuer.log_in,
                metrics=metrics,
                page=OperatorsPage,
                tracer=self._tracer,
            )
            self._web = WebServer(app, _files(config), _limits(self._address[0]), app.state.end_waits)
        except BaseException:
            self._database.close()
            raise

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or another thread."""
        self._database.stop_waiting()
        self._web.stop()

    def reload(self) -> None:
        """Read the certificate again; may be called from a signal handler or another thread."""
        self._web.reload()

    def run(self) -> None:
        """Listen and serve until stopped. Raises WebServerError, and LedgerReplaced if the ledger's file was."""
        watch = threading.Thread(target=self._watch, name="api-watch", daemon=True)
        try:
            with self._listener or listen_at(self._address) as listener:
                facts = {"version": version("agent-command-manager"), "ledger": place_of(self._database.url)}
                _log.info("api_started", listen=self._listen, **facts)
                watch.start()
                self._web.serve(listener)
                _log.info("api_stopped")
            if self._lost is not None:
                raise self._lost
        finally:
            self._ended.set()
            self._service_manager.stopping()
            if watch.is_alive():
                watch.join()
            self._database.close()
            if self._tracer is not None:
                self._tracer.close()

    def _watch(self) -> None:
        """Tell the service manager, keep the clock right, and stop if the ledger's file was replaced."""
        while not self._ended.wait(_WATCH_INTERVAL_S):
            try:
                self._database.refuse_replaced()
                self._clock.keep()
            except LedgerReplaced as error:
                self._lost = error
                self.stop()
                break
            except LedgerError as error:
                _log.error("ledger_not_usable", code=error.code, reason=str(error))
            self._service_manager.turn(ready=True, status=f"Serves the API at {self._listen}.")


def _files(config: ServerConfig) -> ServerFiles | None:
    """Return the files of TLS; operators may show certificates of the authority that the server trusts."""
    if config.api_pair is None:
        return None
    return ServerFiles(*config.api_pair, clients=Path(config.broker_ca) if config.broker_ca else None)


def _limits(host: str) -> WebLimits:
    """Return the limits of the API's connections: a reverse proxy on this machine has those of all its clients."""
    limits = WebLimits(max_connections=576, max_requests=512)  # of which half may follow events
    return replace(limits, max_connections_of_address=None) if is_loopback(host) else limits
