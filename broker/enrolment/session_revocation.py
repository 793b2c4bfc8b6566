"""Ends the sessions of revoked agents, as soon as the broker rejects the certificates on the revocation list."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.enrolment.mqtt_takeover import Takeover, TakeoverError, TakeoverRefused, take_over
from broker.enrolment.records import EnrolmentRecord
from broker.enrolment.sessions import RevokedSessions
from broker.errors import BrokerError
from broker.mqtt.address import BrokerAddress
from broker.pki.authority import CertificateAuthority
from broker.pki.certificates import CANARY
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from broker.system.retry import growing_wait
from broker.text import counted

__all__ = [
    "SessionRevoker",
]


_log = structlog.get_logger("acm.enrolment")
_TAKEOVER_LIFETIME = timedelta(minutes=10)
_CANARY_LIFETIME = timedelta(days=2)
_MAX_ROUND_S = 86400.0  # less than the lifetime of the canary
_FIRST_WAIT_S = 1.0
_LOG_AFTER_FAILURES = 3


@dataclass(frozen=True)
class _Round:
    """The enrolments revoked before `canary` was put on the list, and the start of the round (monotonic seconds).

    `issuer` is the fingerprint of the authority that issued the canary.
    """

    issuer: str
    revoked: list[EnrolmentRecord]
    canary: x509.Certificate
    key: Ed25519PrivateKey
    began: float


class SessionRevoker:
    """Ends the sessions of agents whose enrolment was revoked, and drops the messages that the broker queues for them.

    An agent whose session ends before the broker has loaded the list reconnects at once. So each round puts a new
    certificate on the list, the canary, and ends sessions only when the broker rejects it: then the broker rejects
    everything that was revoked before. The canary has its own client id, so that trying it ends no agent's session.
    Several servers may do this at once: each skips the sessions that another has ended. Driven by calls of `step`,
    which does nothing until the next attempt is due; owns no thread.
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        sessions: RevokedSessions,
        revocations: RevocationFile,
        broker: BrokerAddress,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        take_over: Takeover = take_over,
    ) -> None:
        self._authority = authority
        self._sessions = sessions
        self._revocations = revocations
        self._broker = broker
        self._now = now
        self._monotonic = monotonic
        self._take_over = take_over
        self._round: _Round | None = None
        self._failures = 0
        self._next_attempt = monotonic()

    def step(self) -> None:
        """Advance the current round if an attempt is due. Raises LedgerError and AuthorityError.

        Errors of the broker are logged and tried again with exponential backoff.
        """
        if self._monotonic() < self._next_attempt:
            return
        try:
            self._advance()
        except TakeoverError as error:
            self._next_attempt = self._monotonic() + growing_wait(self._failures, first_s=_FIRST_WAIT_S)
            self._failures += 1
            if self._failures >= _LOG_AFTER_FAILURES:
                _log.error("sessions_not_ended", code=error.code, reason=str(error), attempts=self._failures)
        else:
            self._failures = 0

    def _advance(self) -> None:
        if self._round is None or self._is_over(self._round):
            self._begin()
            return
        waiting = {row.id for row in self._sessions.to_end()}
        left = [row for row in self._round.revoked if row.id in waiting]
        if left:
            self._check_canary(self._round)
            self._end(left)
        self._round = None

    def _is_over(self, round_: _Round) -> bool:
        """Return whether the canary is old, or of an authority that was replaced."""
        return self._monotonic() - round_.began > _MAX_ROUND_S or round_.issuer != self._authority.fingerprint

    def _begin(self) -> None:
        revoked = self._sessions.to_end()
        if revoked:
            key = Ed25519PrivateKey.generate()
            canary = self._authority.issue_canary(key.public_key(), _CANARY_LIFETIME)
            self._round = _Round(self._authority.fingerprint, revoked, canary, key, self._monotonic())
            self._write_list(canary)

    def _check_canary(self, round_: _Round) -> None:
        try:
            self._take_over(self._broker, self._authority.trusted, round_.canary, round_.key, CANARY)
        except TakeoverRefused:
            return
        if not self._revocations.names(round_.canary.serial_number):  # another process has replaced the list
            self._write_list(round_.canary)
        raise TakeoverError(
            f"The broker has not loaded {self._revocations.path} yet: make it reload the file when it changes "
            "(Mosquitto: SIGHUP).",
            code="revocation_list_not_loaded",
        )

    def _end(self, revoked: Sequence[EnrolmentRecord]) -> None:
        """End the sessions; raises TakeoverError after the last one if any could not be ended."""
        failed: list[BrokerError] = []
        for agent in dict.fromkeys(row.agent for row in revoked):
            try:
                self._end_session(agent, [row.id for row in revoked if row.agent == agent])
            except (TakeoverError, TakeoverRefused) as error:
                failed.append(error)
        if failed:
            raise TakeoverError(
                f"{counted(len(failed), 'session')} could not be ended. The first error: {failed[0]}",
                code="sessions_not_ended",
            )

    def _end_session(self, agent: str, enrolments: Sequence[str]) -> None:
        # design.md: "The session of a revoked agent is ended by taking it over"
        key = Ed25519PrivateKey.generate()
        certificate = self._authority.issue(agent, key.public_key(), _TAKEOVER_LIFETIME)
        self._take_over(self._broker, self._authority.trusted, certificate, key, agent)
        _log.info("session_ended", agent=agent)
        for enrolment in enrolments:
            self._sessions.record_end(enrolment)

    def _write_list(self, canary: x509.Certificate) -> None:
        self._revocations.write(RevokedCertificate(canary.serial_number, self._now(), RevocationReason.UNSPECIFIED))
