"""Serves an ASGI application over HTTPS, with limits for hostile clients. The only module that imports uvicorn."""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.enrolment.admission import AdmittingSocket, connections_within_limits
from broker.errors import BrokerError
from broker.system.files import state_of
from broker.system.key_pairs import key_of, load_pair
from broker.system.log_throttle import LogThrottle
from broker.system.permissions import refuse_readable

__all__ = [
    "DEFAULT_LIMITS",
    "HttpsLimits",
    "HttpsServer",
    "HttpsServerError",
]


_log = structlog.get_logger("acm.enrolment")


class HttpsServerError(BrokerError):
    """The HTTPS server cannot use its certificate or its address."""

    code = "https_server_error"


@dataclass(frozen=True)
class HttpsLimits:
    """The maximum number of connections, in all and of each address, and the maximum times of each in seconds.

    `max_requests` of them may have a complete handshake; what comes above that gets the status 503.
    """

    max_connections: int = 320
    max_connections_of_address: int = 64
    max_requests: int = 256
    handshake_timeout_s: float = 8.0
    connection_lifetime_s: float = 30.0
    shutdown_timeout_s: int = 5


DEFAULT_LIMITS = HttpsLimits()
_RELOAD_INTERVAL_S = 1.0


class HttpsServer:
    """One application on one address. Raises HttpsServerError, and ExposedFileError for a key that others can read."""

    def __init__(
        self, app: Any, address: tuple[str, int], certificate: Path, key: Path, limits: HttpsLimits = DEFAULT_LIMITS
    ) -> None:
        self._address = address
        self._pair = certificate, key
        self._limits = limits
        self._config = _config(app, certificate, key, limits)
        self._server = uvicorn.Server(self._config)
        self._throttle = LogThrottle(time.monotonic)

    def listen(self) -> socket.socket:
        """Return the listening socket; on `::` it accepts IPv4, too. Raises HttpsServerError."""
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            both = host == "::" and socket.has_dualstack_ipv6()
            return socket.create_server((host, port), family=family, dualstack_ipv6=both)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise HttpsServerError(f"Cannot listen on {host}:{port}: {reason}.", code="cannot_listen") from error

    def serve(self, listener: socket.socket) -> None:
        """Serve until `stop` is called."""
        limits = self._limits
        most = connections_within_limits(limits.max_connections)
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
        with contextlib.suppress(OSError):
            return [state_of(path) for path in self._pair]
        return []

    def stop(self) -> None:
        """End `serve` soon; may be called from a signal handler or another thread."""
        self._server.should_exit = True

    def reload(self) -> None:
        """Read certificate and key again, for the connections from now on; may be called from a signal handler."""
        certificate, key = self._pair
        try:
            used = key_of(certificate, key)
            refuse_readable(used, owners=[used.stat().st_uid])
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
            if self._config.ssl is not None:
                load_pair(self._config.ssl, certificate, key)
        except (BrokerError, OSError, ssl.SSLError) as error:
            _log.error("certificate_not_reloaded", path=str(certificate), reason=str(error))
        else:
            _log.info("certificate_reloaded", path=str(certificate))


def _config(app: Any, certificate: Path, key: Path, limits: HttpsLimits) -> uvicorn.Config:
    key = key_of(certificate, key)
    if key.exists():
        refuse_readable(key, owners=[key.stat().st_uid])
    config = uvicorn.Config(
        app,
        http=_connections_of(limits.connection_lifetime_s),
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
        ssl_certfile=certificate,
        ssl_keyfile=str(key),
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise HttpsServerError(
            f"{certificate} and {key} cannot be used: {error.strerror or error}; "
            "create a pair with `acm ca server-certificate`.",
            code="unusable_server_certificate",
        ) from error
    return config


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


def _connections_of(lifetime_s: float) -> type[H11Protocol]:
    class LimitedConnection(H11Protocol):
        """Ends after its lifetime: uvicorn itself waits forever for a request to be complete."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._end = self.loop.call_later(lifetime_s, transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            self._end.cancel()
            super().connection_lost(exc)

    return LimitedConnection
