"""The composition root of `acm enroll-server`: authority, ledger, HTTPS, and the task that applies revocations."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import version
from time import monotonic

import structlog

from broker.app.config import DEFAULT_ENROLL_LISTEN, ServerConfig, ServerConfigurationError
from broker.app.credentials import (
    enrolment_server_pair,
    open_authority,
    open_revocation_file,
    open_signing_key_store,
    revocation_list_path,
    server_certificate_files,
)
from broker.app.factories import log_migration, open_configured_database, utc_now
from broker.app.metrics import of_certificates, of_commits, own_version
from broker.durations import parse_duration
from broker.enrolment.certificate_upkeep import CertificateUpkeep
from broker.enrolment.counting import enrolment_counts
from broker.enrolment.http import enrolment_app
from broker.enrolment.revocation_task import RevocationTask
from broker.enrolment.service import EnrolmentPolicy, EnrolmentService
from broker.enrolment.session_revocation import SessionRevoker
from broker.enrolment.sessions import RevokedSessions
from broker.enrolment.store import EnrolmentStore
from broker.enrolment.successor_probe import SuccessorProbe
from broker.errors import BrokerError, InvalidArgument
from broker.ledger.clock import LedgerClock
from broker.ledger.database import Database
from broker.ledger.location import place_of
from broker.ledger.readiness import LedgerReadiness
from broker.ledger.sqlite import LedgerReplaced
from broker.metrics.listener import serving_metrics
from broker.mqtt.address import parse_url
from broker.pki.authority import CertificateAuthority
from broker.pki.certificates import MAX_LIFETIME
from broker.pki.revocation_file import RevocationFile
from broker.pki.server_certificates import ServerCertificates
from broker.system.service_manager import ServiceManager
from broker.web.addresses import host_and_port, listen_at
from broker.web.server import ServerFiles, WebLimits, WebServer

__all__ = [
    "ENROLMENT_LIMITS",
    "EnrolmentServer",
    "EnrolmentServerError",
]


ENROLMENT_LIMITS = WebLimits(connection_lifetime_s=30.0)
_REVOCATION_INTERVAL_S = 2.0
_WATCH_INTERVAL_S = 1.0
_log = structlog.get_logger("acm.enrolment")


class EnrolmentServerError(BrokerError):
    """The enrolment server stopped because revocations were no longer applied."""

    code = "revocations_stopped"


class EnrolmentServer:
    """Serves until stopped.

    Creating it raises ServerConfigurationError, AuthorityError, SigningKeyError, LedgerError, ExposedFileError and
    WebServerError.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        limits: WebLimits = ENROLMENT_LIMITS,
        revocation_interval_s: float = _REVOCATION_INTERVAL_S,
        service_manager: ServiceManager | None = None,
    ) -> None:
        self._service_manager = service_manager or ServiceManager(monotonic, {})
        self._reloading = threading.Event()
        self._lost: LedgerReplaced | None = None
        policy = _policy(config)
        self._metrics_listen = config.enroll_metrics_listen
        self._listen = config.enroll_listen or DEFAULT_ENROLL_LISTEN
        self._address = _address(self._listen)
        authority, keys = open_authority(config), open_signing_key_store(config)
        self._database = open_configured_database(config.ledger, tell=log_migration)
        self._description = {"version": version("agent-command-manager"), "ledger": place_of(self._database.url)}
        try:
            clock = LedgerClock(self._database, utc_now)
            enrolments = EnrolmentStore(self._database, now=clock)
            self._revocations = open_revocation_file(config, authority, enrolments)
            sessions = _session_revoker(policy, authority, self._database, self._revocations)
            certificates = ServerCertificates(server_certificate_files(config), authority, now=utc_now)
            renewal = CertificateUpkeep(certificates, now=utc_now, monotonic=monotonic)
            broker = parse_url(policy.broker)
            probe = SuccessorProbe(authority, broker if broker.tls else None, monotonic=monotonic)

            def upkeep() -> None:
                clock.keep()
                renewal.step()
                probe.step()

            self._revocation_task = RevocationTask(
                self._revocations,
                sessions,
                upkeep,
                on_failure=self.stop,
                poll_interval_s=revocation_interval_s,
            )
            service = EnrolmentService(authority, keys, enrolments, policy, self._revocations.names, probe.accepted)
            counts = enrolment_counts(monotonic)
            files = of_certificates(server_certificate_files(config), revocation_list_path(config))
            self._metrics = (own_version(), of_commits(self._database), files, counts.families)
            app = enrolment_app(
                service,
                self._background,
                counts,
                readiness=LedgerReadiness(self._database, with_server=False, monotonic=monotonic),
            )
            self._https = WebServer(app, ServerFiles(*enrolment_server_pair(config)), limits)
        except BaseException:
            self._database.close()
            raise

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or another thread."""
        self._database.stop_waiting()
        self._https.stop()

    def reload(self) -> None:
        """Read the certificate again soon; may be called from a signal handler or another thread."""
        self._reloading.set()

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        async with self._revocation_task.running():
            watching = asyncio.create_task(self._watch())
            try:
                yield
            finally:
                watching.cancel()

    async def _watch(self) -> None:
        """Show that the event loop turns, reload what was asked for, and stop if the ledger's file was replaced."""
        while True:
            try:
                self._database.refuse_replaced()
            except LedgerReplaced as error:
                self._lost = error
                return self.stop()
            if self._reloading.is_set():
                self._reloading.clear()
                self._https.reload()
            self._service_manager.turn(ready=True, status=f"Serves enrolments at {self._listen}.")
            await asyncio.sleep(_WATCH_INTERVAL_S)

    def run(self) -> None:
        """Write the revocation list, then listen and serve until stopped.

        Raises EnrolmentServerError when revocations are no longer applied, so that the service manager restarts it, and
        LedgerReplaced.
        """
        try:
            self._revocations.write()
            metrics = serving_metrics("enroll_metrics_listen", self._metrics_listen, self._metrics)
            with listen_at(self._address) as listener, metrics:
                _log.info("enrolment_server_started", listen=self._listen, **self._description)
                self._https.serve(listener)
                _log.info("enrolment_server_stopped")
            if self._lost is not None:
                raise self._lost
            if self._revocation_task.failed:
                raise EnrolmentServerError("Revocations are no longer applied; the log has the reason.")
        finally:
            self._service_manager.stopping()
            self._database.close()


def _session_revoker(
    policy: EnrolmentPolicy, authority: CertificateAuthority, database: Database, revocations: RevocationFile
) -> SessionRevoker | None:
    address = parse_url(policy.broker)
    if not address.tls:
        _log.warning("session_revocation_disabled", reason="enroll_broker does not begin with mqtts://")
        return None
    sessions = RevokedSessions(database, now=utc_now)
    return SessionRevoker(authority, sessions, revocations, address, now=utc_now, monotonic=monotonic)


def _policy(config: ServerConfig) -> EnrolmentPolicy:
    if config.enroll_broker is None:
        raise ServerConfigurationError(
            "Set enroll_broker (or --broker) to the broker's URL as agents reach it.", code="missing_enroll_broker"
        )
    if parse_url(config.enroll_broker).password is not None:
        raise ServerConfigurationError(
            "enroll_broker must not contain a password: it is sent to every agent.", code="password_in_enroll_broker"
        )
    try:
        lifetime = timedelta(seconds=parse_duration(config.certificate_lifetime))
    except InvalidArgument as error:
        raise ServerConfigurationError(f"certificate_lifetime: {error}", code="bad_certificate_lifetime") from error
    if lifetime > MAX_LIFETIME:
        raise ServerConfigurationError(
            f"certificate_lifetime: at most {MAX_LIFETIME.days}d.", code="certificate_lifetime_too_long"
        )
    return EnrolmentPolicy(
        config.enroll_broker, config.topic_prefix, lifetime, config.client_id, config.grace_after_expiry
    )


def _address(listen: str) -> tuple[str, int]:
    address = host_and_port(listen)
    if address is None:
        raise ServerConfigurationError(
            f"enroll_listen: {listen[:80]!r} is not HOST:PORT, as in 0.0.0.0:8443 or [::]:8443.",
            code="bad_listen_address",
        )
    return address
