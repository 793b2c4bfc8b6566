"""The enrolment server's HTTP, from request to answer, without a socket."""

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog.testing
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.contract.enrolment import CA_PATH, ENROLL_PATH, RENEW_PATH, EnrollResponse
from broker.contract.enrolment_token import InvalidToken
from broker.contract.topics import InvalidName
from broker.enrolment.http import enrolment_app
from broker.enrolment.service import EnrolmentPolicy, EnrolmentService
from broker.errors import LedgerError
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from broker.signing.key_store import SigningKeys, create_signing_keys
from tests.support.enrolling import MONTH, EnrollingAgent, EnrolmentBackend, request
from tests.support.fakes.clock import TurnedClock


class Talk:
    """An agent that talks to the application."""

    def __init__(self, directory: Path, clock: TurnedClock) -> None:
        create_signing_keys(directory / "signing", clock.now())
        self.clock = clock
        self.backend = EnrolmentBackend.create(directory, clock.now)
        self.authority, self.enrolments = self.backend.authority, self.backend.enrolments
        self.keys = SigningKeys(directory / "signing")
        self.service = EnrolmentService(
            self.authority,
            self.keys,
            self.enrolments,
            EnrolmentPolicy("mqtts://broker", "acm", MONTH, "acm-server"),
            RevocationFile(directory / "crl.pem", self.authority, self.enrolments, now=clock.now).names,
        )
        self.app = enrolment_app(self.service)
        self.agent = EnrollingAgent("web-01")

    def token(self) -> str:
        return self.backend.token().text

    def call(self, method: str, path: str, content: str | bytes = "") -> tuple[int, Any]:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
                return await client.request(method, path, content=content)

        answer = asyncio.run(call())
        return answer.status_code, answer.json()

    def post(self, path: str, asked: Any) -> tuple[int, Any]:
        return self.call("POST", path, asked if isinstance(asked, (str, bytes)) else json.dumps(asdict(asked)))

    def refusal(self, path: str, asked: Any) -> tuple[int, str]:
        """Return the status of a refused request, and the code that is logged for it."""
        with structlog.testing.capture_logs() as logs:
            status, body = self.post(path, asked)
        (refused,) = (log for log in logs if log["event"] == "request_refused")
        assert (refused["status"], list(body)) == (status, ["message"])
        return status, refused["code"]

    def enroll(self) -> EnrollResponse:
        status, body = self.post(ENROLL_PATH, self.agent.enroll(self.token()))
        assert status == 200, body
        return msgspec.convert(body, EnrollResponse)


@pytest.fixture
def talk(tmp_path: Path, clock: TurnedClock) -> Iterator[Talk]:
    talk = Talk(tmp_path, clock)
    yield talk
    talk.backend.database.close()


def test_the_authority_is_told_to_anybody(talk: Talk) -> None:
    assert talk.call("GET", CA_PATH) == (200, {"certificate": talk.authority.certificate})


def test_an_agent_gets_all_that_it_needs(talk: Talk) -> None:
    enrolled = talk.enroll()
    certificate = x509.load_pem_x509_certificate(enrolled.certificate.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(enrolled.ca.encode()))
    assert certificate.public_key() == talk.agent.key.public_key()
    assert (enrolled.agent, enrolled.broker, enrolled.topic_prefix) == ("web-01", "mqtts://broker", "acm")
    assert enrolled.signing_keys == talk.keys.public
    assert enrolled.not_after == certificate.not_valid_after_utc == talk.clock.now() + MONTH


def test_a_valid_certificate_is_exchanged_for_one_with_a_new_key(talk: Talk) -> None:
    enrolled, new_key = talk.enroll(), Ed25519PrivateKey.generate()
    talk.clock.turn(20 * 86400)
    status, body = talk.post(RENEW_PATH, talk.agent.renew(enrolled.certificate, new_key))
    renewed = msgspec.convert(body, EnrollResponse)
    assert (status, renewed.enrolment_id) == (200, enrolled.enrolment_id)
    assert x509.load_pem_x509_certificate(renewed.certificate.encode()).public_key() == new_key.public_key()
    assert renewed.not_after == talk.clock.now() + MONTH


def test_what_the_list_names_is_not_renewed_though_the_ledger_has_forgotten(talk: Talk, tmp_path: Path) -> None:
    enrolled = talk.enroll()
    renewal = talk.agent.renew(enrolled.certificate, Ed25519PrivateKey.generate())
    assert talk.post(RENEW_PATH, renewal)[0] == 200
    serial = x509.load_pem_x509_certificate(enrolled.certificate.encode()).serial_number
    entry = RevokedCertificate(serial, talk.clock.now(), RevocationReason.KEY_COMPROMISE)
    talk.authority.write_revocation_list(lambda: [entry], tmp_path / "crl.pem")
    assert talk.refusal(RENEW_PATH, renewal) == (403, "certificate_revoked")


def test_no_agent_gets_the_servers_name(talk: Talk, clock: TurnedClock) -> None:
    agent = EnrollingAgent("acm-server")
    token = talk.backend.token("acm-server").text
    assert talk.refusal(ENROLL_PATH, agent.enroll(token)) == (400, "name_of_the_server")
    assert talk.enrolments.enrolments() == []
    certificate = talk.authority.issue("acm-server", agent.key.public_key(), MONTH).public_bytes(Encoding.PEM).decode()
    renewal = agent.renew(certificate, Ed25519PrivateKey.generate())
    assert talk.refusal(RENEW_PATH, renewal) == (400, "name_of_the_server")


def test_what_a_request_wants_beside_its_name_is_not_granted(talk: Talk) -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("broker.example.org")])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "web-01")])
    builder = x509.CertificateSigningRequestBuilder(subject).add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    csr = builder.sign(talk.agent.key, None).public_bytes(Encoding.PEM).decode()
    _, body = talk.post(ENROLL_PATH, replace(talk.agent.enroll(talk.token()), csr=csr))
    issued = x509.load_pem_x509_certificate(body["certificate"].encode()).extensions
    assert not issued.get_extension_for_class(x509.BasicConstraints).value.ca
    granted = issued.get_extension_for_class(x509.SubjectAlternativeName).value
    assert granted.get_values_for_type(x509.DNSName) == []


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"token": "acm1.x"}, 400, InvalidToken.code),
        ({"agent": "Web 01"}, 400, InvalidName.code),
        ({"csr": "x"}, 400, "malformed_csr"),
        ({"agent": "web-02"}, 400, "csr_wrong_subject"),
        ({"agent": "web-02", "csr": request(EnrollingAgent("").key, "web-02")}, 403, "token_of_another_agent"),
        ({"token": f"acm1.{'s' * 43}.{'0' * 64}"}, 403, "token_of_another_authority"),
    ],
)
def test_a_refused_enrolment_is_one_sentence(talk: Talk, change: dict[str, str], status: int, code: str) -> None:
    assert talk.refusal(ENROLL_PATH, replace(talk.agent.enroll(talk.token()), **change)) == (status, code)
    assert talk.enrolments.enrolments() == []


def test_a_token_is_used_by_one_key_only(talk: Talk) -> None:
    token = talk.token()
    first = talk.post(ENROLL_PATH, talk.agent.enroll(token))
    assert talk.post(ENROLL_PATH, talk.agent.enroll(token)) == first
    assert talk.refusal(ENROLL_PATH, EnrollingAgent("web-01").enroll(token)) == (409, "token_used")


def test_a_renewal_needs_a_certificate_and_its_key(talk: Talk) -> None:
    enrolled, attacker = talk.enroll(), EnrollingAgent("web-01")
    asked = talk.agent.renew(enrolled.certificate, talk.agent.key)
    refusals = [
        (403, "bad_signature", attacker.renew(enrolled.certificate, attacker.key)),
        (403, "foreign_certificate", replace(asked, certificate="x")),
        (400, "csr_wrong_subject", sign(talk.agent, replace(asked, csr=request(talk.agent.key, "web-02")))),
        (403, "enrolment_not_recorded", attacker.renew(unrecorded_certificate(talk, attacker), attacker.key)),
    ]
    for status, code, refused in refusals:
        assert talk.refusal(RENEW_PATH, refused) == (status, code)
    talk.enrolments.revoke("web-01", RevocationReason.UNSPECIFIED)
    assert talk.refusal(RENEW_PATH, asked) == (403, "enrolment_revoked")
    talk.clock.turn(31 * 86400)
    assert talk.refusal(RENEW_PATH, asked) == (403, "certificate_not_valid_now")


def sign(agent: EnrollingAgent, asked: Any) -> Any:
    return replace(asked, signature=base64.b64encode(agent.key.sign(asked.csr.encode())).decode())


def unrecorded_certificate(talk: Talk, holder: EnrollingAgent) -> str:
    """A certificate of the authority that is in no enrolment, as after the loss of a ledger."""
    certificate = talk.authority.issue("web-01", holder.key.public_key(), MONTH)
    return certificate.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        ("", "malformed_body", ""),
        ("[]", "malformed_body", "object"),
        ("{", "malformed_body", ""),
        ("[" * 20000, "malformed_body", ""),
        (b'{"token": "\xff"}', "malformed_body", ""),
        ('{"token": 1, "agent": "", "csr": ""}', "malformed_body", "token"),
        ('{"token": "", "agent": ""}', "malformed_body", "csr"),
        ('{"token": "", "agent": "", "csr": "", "role": "admin"}', "unknown_member", "role"),
        ('{"token": "\\ud800", "agent": "web-01", "csr": "\\ud800"}', "malformed_body", ""),
    ],
)
def test_a_body_that_is_no_request_is_refused(talk: Talk, body: str | bytes, code: str, named: str) -> None:
    assert talk.refusal(ENROLL_PATH, body) == (400, code)
    assert named in talk.post(ENROLL_PATH, body)[1]["message"]


def test_body_over_32768_bytes_is_refused(talk: Talk) -> None:
    assert talk.refusal(ENROLL_PATH, " " * 32768) == (400, "malformed_body")
    status, body = talk.post(ENROLL_PATH, " " * 32769)
    assert (status, list(body)) == (413, ["message"])


def test_there_is_nothing_else(talk: Talk) -> None:
    for method, path, status in (("GET", "/", 404), ("GET", ENROLL_PATH, 405), ("POST", CA_PATH, 405)):
        answer = talk.call(method, path)
        assert (answer[0], "POST /v1/enrol" in answer[1]["message"]) == (status, True)


def test_a_ledger_that_fails_is_told_without_its_details(talk: Talk, tmp_path: Path) -> None:
    asked = talk.agent.enroll(talk.token())
    talk.backend.database.close()
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    assert talk.refusal(ENROLL_PATH, asked) == (503, LedgerError.code)
    assert "database" not in talk.post(ENROLL_PATH, asked)[1]["message"]


class FaultyService(EnrolmentService):
    """A service with a bug."""

    def enroll(self, request: object) -> EnrollResponse:
        raise RuntimeError("/var/lib/secret")


def test_a_fault_of_the_servers_own_is_told_without_its_details(talk: Talk) -> None:
    talk.app = enrolment_app(
        FaultyService(
            talk.authority,
            talk.keys,
            talk.enrolments,
            EnrolmentPolicy("mqtt://broker", "acm", MONTH, "acm-server"),
            bool,
        )
    )
    status, body = talk.post(ENROLL_PATH, talk.agent.enroll(talk.token()))
    assert (status, body) == (500, {"message": "The enrolment server failed; its log has the reason."})
