"""The composition root of `acm enroll-server`: authority, ledger, HTTPS, and what a revocation brings with it."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.app.config import ConfigurationError, ServerConfig
from broker.app.credentials import open_authority, open_revocation_file, open_signing_key_store
from broker.app.factories import open_database, utc_now
from broker.durations import parse_duration
from broker.enrolment.http import enrolment_app
from broker.enrolment.service import EnrolmentPolicy, EnrolmentService
from broker.enrolment.session_revocation import SessionRevoker
from broker.enrolment.sessions import RevokedSessions
from broker.enrolment.store import EnrolmentStore
from broker.errors import BrokerError, InvalidArgument
from broker.mqtt.address import parse_url
from broker.pki.authority import SERVER_CERTIFICATE, SERVER_KEY, CertificateAuthority
from broker.pki.certificates import MAX_LIFETIME
from broker.system.permissions import refuse_readable

__all__ = [
    "EnrolmentServer",
    "EnrolmentServerError",
]


_CONNECTION_LIFETIME_S = 30.0
_MAX_CONNECTIONS = 256
_LISTEN = "127.0.0.1:8443"
_SHUTDOWN_S = 5
_LOOK_EVERY_S = 2.0
_RETRY_S = 60.0
_log = structlog.get_logger("acm.enrolment")


class EnrolmentServerError(BrokerError):
    """The enrolment server cannot be started."""


class EnrolmentServer:
    """Serves until stopped.

    Raises ConfigurationError, AuthorityError, SigningKeyError, LedgerError, ExposedFileError or
    EnrolmentServerError at once.
    """

    def __init__(self, config: ServerConfig) -> None:
        terms = _terms(config)
        self._listen = config.enroll_listen or _LISTEN
        self._address = _address(self._listen)
        self._failed = False
        authority, keys = open_authority(config), open_signing_key_store(config)
        self._database = open_database(config.ledger)
        self._enrolments = EnrolmentStore(self._database, now=utc_now)
        self._list = open_revocation_file(config, authority, self._enrolments)
        self._evictor = self._build_evictor(terms, authority)
        service = EnrolmentService(authority, keys, self._enrolments, terms, self._list.names)
        self._uvicorn = uvicorn.Server(_uvicorn_config(config, enrolment_app(service, self._lifespan)))

    def _build_evictor(self, terms: EnrolmentPolicy, authority: CertificateAuthority) -> SessionRevoker | None:
        address = parse_url(terms.broker)
        if not address.tls:
            _log.warning("sessions_of_revoked_agents_stay", reason="enroll_broker does not begin with mqtts://")
            return None
        sessions = RevokedSessions(self._database, now=utc_now)
        return SessionRevoker(authority, sessions, self._list, address, now=utc_now, monotonic=monotonic)

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or another thread."""
        self._uvicorn.should_exit = True

    def run(self) -> None:
        """Listen and serve until stopped. Without a first revocation list nothing is served.

        Raises EnrolmentServerError when revocations are no longer carried out, so that it is started anew.
        """
        try:
            self._list.write()
            with _open_listener(*self._address) as listener:
                _log.info("enrolment_server_started", listen=self._listen)
                self._uvicorn.run(sockets=[listener])
                _log.info("enrolment_server_stopped")
            if self._failed:
                raise EnrolmentServerError("Revocations were not carried out any more; the log says why.")
        finally:
            self._database.close()

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(self._keep_carrying_out())
        task.add_done_callback(self._note_end)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """Stop the server if the task died: it would go on with a list that runs out."""
        if not task.cancelled():
            _log.critical("revocations_stopped", exc_info=task.exception())
            self._failed = True
            self.stop()

    async def _keep_carrying_out(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if not await asyncio.to_thread(self._carry_out_revocations):
                await asyncio.sleep(_RETRY_S)

    def _carry_out_revocations(self) -> bool:
        try:
            if self._list.refresh():
                _log.info("revocation_list_written", path=str(self._list.path))
            if self._evictor is not None:
                self._evictor.step()
        except BrokerError as error:
            _log.error("revocation_failed", reason=str(error))
            return False
        return True


class _BriefConnection(H11Protocol):
    """A connection that ends after 30 seconds, whatever the peer does: uvicorn itself waits for a request for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end = self.loop.call_later(_CONNECTION_LIFETIME_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)


def _uvicorn_config(config: ServerConfig, app: Starlette) -> uvicorn.Config:
    certificate = config.enroll_certificate or str(Path(config.ca) / SERVER_CERTIFICATE)
    key = config.enroll_key or str(Path(config.ca) / SERVER_KEY)
    if Path(key).exists():
        refuse_readable(Path(key), owners=[Path(key).stat().st_uid])
    prepared = uvicorn.Config(
        app,
        http=_BriefConnection,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # the application logs what matters
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        prepared.load()
    except (OSError, ssl.SSLError) as error:
        raise EnrolmentServerError(
            f"{certificate} and {key} cannot be used: {error.strerror or error}; "
            "`acm ca server-certificate` makes such a pair."
        ) from error
    return prepared


def _terms(config: ServerConfig) -> EnrolmentPolicy:
    if config.enroll_broker is None:
        raise ConfigurationError("Say at which URL agents reach the broker: --broker or enroll_broker.")
    if parse_url(config.enroll_broker).password is not None:
        raise ConfigurationError("enroll_broker must hold no password: every agent is told it.")
    try:
        lifetime = timedelta(seconds=parse_duration(config.certificate_lifetime))
    except InvalidArgument as error:
        raise ConfigurationError(f"certificate_lifetime: {error}") from error
    if lifetime > MAX_LIFETIME:
        raise ConfigurationError(f"certificate_lifetime: at most {MAX_LIFETIME.days}d.")
    return EnrolmentPolicy(config.enroll_broker, config.topic_prefix, lifetime, config.client_id)


def _address(listen: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None:
        raise ConfigurationError(f"{listen[:80]!r} is not HOST:PORT, as in 0.0.0.0:8443 or [::]:8443.")
    return host, port


def _open_listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise EnrolmentServerError(f"{host}:{port} cannot be listened on: {reason}.") from error
