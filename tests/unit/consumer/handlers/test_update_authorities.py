"""update-authorities: which lists of authorities an agent takes over, and what it keeps otherwise."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from broker.contract.commands import COMMAND_TYPES
from broker.contract.commands.update_authorities import UPDATE_AUTHORITIES, UpdateAuthorities, UpdateAuthoritiesData
from consumer.enrolment.keys import new_key
from consumer.enrolment.store import CertifiedGrant, EnrolmentDirectory
from consumer.errors import EnrolmentError
from consumer.handler import Context, Result
from consumer.handlers import update_authorities
from consumer.observer import LogObserver
from consumer.services import NoService
from tests.support.authority import TestAuthority
from tests.support.enrolled import now
from tests.support.enrolling import EnrolmentBackend
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import command
from tests.unit.consumer.enrolment.test_enrolment_directory import GRANT


class EnrolledAgent:
    """An agent with a certificate of `own`, that trusts this authority alone."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.own, self.successor = TestAuthority("one"), TestAuthority("two")
        key = new_key()
        certificate = self.own.issue("web-01", key.public_key())
        enrolments = EnrolmentDirectory(state)
        self.enrolment = enrolments.add(CertifiedGrant(GRANT, "one", certificate, self.own.pem), key)
        enrolments.make_current("one")

    def update(self, *certificates: str) -> Result:
        asked = replace(command("a", 1, UPDATE_AUTHORITIES), parameters={"certificates": [*certificates]})
        context = Context(TurnedClock(), NoService(), self.state, stopping=threading.Event(), observer=LogObserver())
        return update_authorities.HANDLER.execute(asked, UpdateAuthorities(certificates), context)

    def trusted(self) -> list[str]:
        found = x509.load_pem_x509_certificates((self.enrolment.directory / "ca.pem").read_bytes())
        return [str(certificate.subject.rdns[0].rfc4514_string()) for certificate in found]


@pytest.fixture
def agent(tmp_path: Path) -> EnrolledAgent:
    return EnrolledAgent(tmp_path)


def test_both_authorities_are_trusted_and_reported(agent: EnrolledAgent) -> None:
    result = agent.update(agent.own.pem, agent.successor.pem)
    assert result.data == UpdateAuthoritiesData((agent.own.fingerprint, agent.successor.fingerprint))
    assert agent.trusted() == ["CN=one", "CN=two"]


def test_issuer_of_the_agents_certificate_must_stay(agent: EnrolledAgent) -> None:
    with raises_code(EnrolmentError, "issuer_not_trusted"):
        agent.update(agent.successor.pem)
    assert agent.trusted() == ["CN=one"]


def test_certificate_that_is_no_authoritys_is_refused(agent: EnrolledAgent, tmp_path: Path) -> None:
    backend = EnrolmentBackend.create(tmp_path, now)
    with backend.database:
        leaf = backend.enroll().certificate
    for certificate in (leaf, "nonsense"):
        with raises_code(EnrolmentError, "invalid_authority"):
            agent.update(agent.own.pem, certificate)
    assert agent.trusted() == ["CN=one"]


def test_agent_that_is_not_enrolled_trusts_none(agent: EnrolledAgent) -> None:
    (agent.state / "enrolment" / "current").unlink()
    with raises_code(EnrolmentError, "not_enrolled"):
        agent.update(agent.own.pem)


def test_it_must_be_signed() -> None:
    assert COMMAND_TYPES[UPDATE_AUTHORITIES].signed_only
