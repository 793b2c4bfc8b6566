"""Serves an ASGI application over HTTPS or HTTP, with limits for hostile clients."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from broker.errors import BrokerError
from broker.system.files import state_of
from broker.system.key_pairs import key_of, load_pair
from broker.system.log_throttle import LogThrottle
from broker.system.permissions import refuse_readable
from broker.web.admission import AdmittingSocket, connections_within_limits
from broker.web.connections import connections_of
from broker.web.errors import WebServerError

__all__ = [
    "ServerFiles",
    "WebLimits",
    "WebServer",
]


_log = structlog.get_logger("acm.web")
_RELOAD_INTERVAL_S = 1.0


@dataclass(frozen=True)
class ServerFiles:
    """PEM files of a server that speaks TLS: its certificate and its key.

    With `clients`, authorities, a client may show a certificate of one of them: what others show ends the connection.
    """

    certificate: Path
    key: Path
    clients: Path | None = None


@dataclass(frozen=True, kw_only=True)
class WebLimits:
    """The maximum number of connections, in all and of each address, and the maximum times of each in seconds.

    `max_requests` of them may have a complete handshake; what comes above that gets the status 503. None sets none.
    """

    max_connections: int = 320
    max_connections_of_address: int | None = 64
    max_requests: int = 256
    handshake_timeout_s: float = 8.0
    request_head_timeout_s: float = 10.0
    connection_lifetime_s: float | None = None
    shutdown_timeout_s: int = 5


class WebServer:
    """Serves one application; with `files` over TLS, else in plain text.

    `end_waits` lets answers that wait for something end; it is called before the open connections are waited for.
    Raises WebServerError, and ExposedFileError for a key that others can read.
    """

    def __init__(
        self,
        app: Any,
        files: ServerFiles | None,
        limits: WebLimits,
        end_waits: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._limits = limits
        self._config = _config(app, files, limits)
        self._server = _Server(self._config, end_waits)
        self._throttle = LogThrottle(time.monotonic)

    def serve(self, listener: socket.socket) -> None:
        """Serve what connects to a listening socket, which is closed at the end, until `stop` is called."""
        limits = self._limits
        most = connections_within_limits(limits.max_connections)
        most_of_address = most
        if limits.max_connections_of_address is not None:
            most_of_address = max(1, min(limits.max_connections_of_address, most // 4))
        admitting = AdmittingSocket(listener, most, most_of_address, self._log_shortage)
        loops = partial(_Loop, limits.handshake_timeout_s)
        with admitting, asyncio.Runner(loop_factory=loops) as runner:
            runner.run(self._serve(admitting))

    def _log_shortage(self, error: OSError) -> None:
        self._throttle.warn(_log, "connection_not_accepted", reason=error.strerror)

    async def _serve(self, listener: socket.socket) -> None:
        reloading = asyncio.create_task(self._reload_when_changed())
        try:
            await self._server.serve(sockets=[listener])
        finally:
            reloading.cancel()

    async def _reload_when_changed(self) -> None:
        """Use a new certificate for new connections, soon after its files were replaced."""
        loaded = self._state()
        while True:
            await asyncio.sleep(_RELOAD_INTERVAL_S)
            state = self._state()
            if state != loaded:
                loaded = state
                self.reload()

    def _state(self) -> list[tuple[int, int, int] | None]:
        files = self._files
        with contextlib.suppress(OSError):
            paths = () if files is None else (files.certificate, files.key, files.clients)
            return [state_of(path) for path in paths if path is not None]
        return []

    def stop(self) -> None:
        """End `serve` soon; may be called from a signal handler or another thread."""
        self._server.should_exit = True

    def reload(self) -> None:
        """Read certificate and key again, for the connections from now on; may be called from a signal handler."""
        files, context = self._files, self._config.ssl
        if files is None or context is None:
            return
        try:
            used = key_of(files.certificate, files.key)
            refuse_readable(used, owners=[used.stat().st_uid])
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files.certificate, files.key)
            load_pair(context, files.certificate, files.key)
            if files.clients is not None:
                context.load_verify_locations(files.clients)  # a former authority is trusted until the next start
        except (BrokerError, OSError, ssl.SSLError) as error:
            _log.error("certificate_not_reloaded", path=str(files.certificate), reason=str(error))
        else:
            _log.info("certificate_reloaded", path=str(files.certificate))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, end_waits: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_waits = end_waits

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does, which waits for open connections."""
        self._end_waits()
        await super().shutdown(sockets)


def _config(app: Any, files: ServerFiles | None, limits: WebLimits) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=connections_of(limits.request_head_timeout_s, limits.connection_lifetime_s),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # the application logs what matters
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.max_requests,
        timeout_graceful_shutdown=limits.shutdown_timeout_s,
        **({} if files is None else _tls_options(files)),
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        assert files is not None
        raise WebServerError(
            f"{files.certificate} and {files.key} cannot be used: {error.strerror or error}; "
            "create a pair with `acm ca server-certificate`.",
            code="unusable_server_certificate",
        ) from error
    return config


def _tls_options(files: ServerFiles) -> dict[str, Any]:
    key = key_of(files.certificate, files.key)
    if key.exists():
        refuse_readable(key, owners=[key.stat().st_uid])
    options: dict[str, Any] = {"ssl_certfile": files.certificate, "ssl_keyfile": str(key)}
    if files.clients is not None:
        options |= {"ssl_ca_certs": str(files.clients), "ssl_cert_reqs": ssl.CERT_OPTIONAL}
    return options


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose servers do not wait long for a handshake, and whose errors are in our log."""

    def __init__(self, handshake_timeout_s: float) -> None:
        super().__init__()
        self._handshake_timeout_s = handshake_timeout_s
        self.set_exception_handler(_log_error)

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        """Create a server; uvicorn has no option for the timeout."""
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = self._handshake_timeout_s
        return await super().create_server(*arguments, **options)


def _log_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.error("connection_failed", reason=context["message"], exc_info=context.get("exception"))
