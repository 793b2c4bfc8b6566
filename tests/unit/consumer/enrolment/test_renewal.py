"""When an agent asks for a renewal, and what it makes of one that fails."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from broker.contract.enrolment import EnrollResponse
from consumer.enrolment.client import EnrolmentClient
from consumer.enrolment.grant_validation import CertificateRequest, validate_response
from consumer.enrolment.keys import new_key
from consumer.enrolment.renewal import Renewal
from consumer.enrolment.store import CertifiedGrant, Enrolment, EnrolmentDirectory
from consumer.ports import Clock
from consumer.trust.trusted_clock import TrustedClock
from tests.support.authority import TestAuthority
from tests.support.enrolling import MONTH, EnrolmentBackend
from tests.support.fakes.clock import TurnedClock
from tests.unit.consumer.enrolment.test_enrolment_directory import GRANT


class RenewingAgent:
    """The renewal of one enrolment, whose requests are awaited."""

    def __init__(self, state: Path, enrolment: Enrolment, clock: Clock) -> None:
        self.reports, self.used = list[str | None](), list[Enrolment]()
        self._renewal = Renewal(
            EnrolmentDirectory(state),
            enrolment,
            clock,
            use=self.used.append,
            report=self.reports.append,
            paused=lambda: False,
            waits=lambda: iter([60.0]),
        )

    def step(self) -> None:
        """Ask if it is time to, and handle the response."""
        self._renewal.step()
        for thread in threading.enumerate():
            if thread.name == "acm-renewal":
                thread.join(30)
        self._renewal.step()


def test_unforeseen_error_of_a_renewal_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(client: EnrolmentClient, enrolment: Enrolment, key: Ed25519PrivateKey) -> CertifiedGrant:
        raise ZeroDivisionError

    monkeypatch.setattr(EnrolmentClient, "renew", broken)
    clock = TurnedClock()
    clock.turn(timedelta(days=2).total_seconds())
    agent = RenewingAgent(tmp_path, Enrolment(tmp_path, GRANT), clock)
    with capture_logs() as logs:
        agent.step()
    assert (agent.used, len(agent.reports)) == ([], 1)
    assert "ZeroDivisionError" in str(agent.reports[0])
    assert "renewal_raised" in [entry["event"] for entry in logs]


@pytest.mark.parametrize("damage", ["certificate", "key"])
def test_unusable_file_of_the_enrolment_is_reported_without_a_traceback(tmp_path: Path, damage: str) -> None:
    TestAuthority().write_identity(tmp_path, "web-01")
    if damage == "certificate":
        (tmp_path / "certificate.pem").write_bytes(b"\xff")
    else:
        (tmp_path / "key.pem").chmod(0o644)
    clock = TurnedClock()
    clock.turn(timedelta(days=2).total_seconds())
    agent = RenewingAgent(tmp_path, Enrolment(tmp_path, GRANT), clock)
    with capture_logs() as logs:
        agent.step()
    assert (agent.used, len(agent.reports)) == ([], 1)
    assert [entry["event"] for entry in logs] == ["renewal_failed"]


class SlowClock(TurnedClock):
    """The clock of a machine that has lost 11 days, and not how time passes."""

    def now(self) -> datetime:
        return super().now() - timedelta(days=11)


def test_clock_that_is_days_behind_does_not_miss_the_renewal(tmp_path: Path) -> None:
    true, machine = TurnedClock(), SlowClock()
    backend = EnrolmentBackend.create(tmp_path, true.now)
    key = new_key()
    with backend.database:
        issued = backend.enroll(key=key, lifetime=MONTH)
    response = EnrollResponse(
        issued.agent, issued.enrolment_id, issued.certificate, backend.authority.certificate, "mqtts://b", "acm", (),
        issued.not_after,
    )  # fmt: skip
    granted = validate_response(response, CertificateRequest("https://127.0.0.1:1", "web-01", key, ""), machine.now())
    assert granted.grant.renew_at == true.now() + MONTH * 2 / 3
    clock = TrustedClock(machine)
    clock.observe(true.now())
    agent = RenewingAgent(tmp_path, EnrolmentDirectory(tmp_path).add(granted, key), clock)
    passed = 0
    while not agent.reports and passed < 30:
        agent.step()
        passed += 2
        true.turn(timedelta(days=2).total_seconds())
        machine.turn(timedelta(days=2).total_seconds())
    assert passed == 22  # asked on day 20


def test_grant_is_dated_by_the_certificate(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    key, authority = new_key(), TestAuthority()
    certificate = authority.issue("web-01", key.public_key(), life_s=10)
    response = EnrollResponse("web-01", "e", certificate, authority.pem, "mqtts://b", "acm", (), now)
    year_ahead = CertificateRequest("https://127.0.0.1:1", "web-01", key, "")
    granted = validate_response(response, year_ahead, now - timedelta(days=365)).grant
    assert granted.granted_at < now < granted.renew_at + timedelta(hours=1)
