"""The enrolment server's HTTP, from request to answer, without a socket."""

import asyncio
import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.factories import open_database
from broker.contract.enrolment import CA_PATH, ENROLL_PATH, RENEW_PATH, EnrollResponse
from broker.contract.enrolment_token import EnrolmentToken
from broker.enrolment.http import enrolment_app
from broker.enrolment.service import EnrolmentPolicy, EnrolmentService
from broker.enrolment.store import EnrolmentStore
from broker.pki.authority import CertificateAuthority, create_authority
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from broker.signing.key_store import SigningKeys, create_signing_keys
from tests.support.enrolling import EnrollingAgent, request
from tests.support.fakes.clock import TurnedClock

MONTH = timedelta(days=30)


class Talk:
    """An agent that talks to the application."""

    def __init__(self, directory: Path, clock: TurnedClock) -> None:
        create_authority(directory / "ca", "test", clock.now())
        create_signing_keys(directory / "signing", clock.now())
        self.clock = clock
        self.authority = CertificateAuthority(directory / "ca", now=clock.now)
        self.enrolments = EnrolmentStore(open_database(f"sqlite:///{directory}/ledger.db"), now=clock.now)
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
        token = EnrolmentToken(secrets.token_urlsafe(32), self.authority.fingerprint)
        self.enrolments.add_token("web-01", token, timedelta(hours=1))
        return token.text

    def call(self, method: str, path: str, content: str | bytes = "") -> tuple[int, Any]:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
                return await client.request(method, path, content=content)

        answer = asyncio.run(call())
        return answer.status_code, answer.json()

    def post(self, path: str, asked: Any) -> tuple[int, Any]:
        return self.call("POST", path, asked if isinstance(asked, (str, bytes)) else json.dumps(asdict(asked)))

    def enroll(self) -> EnrollResponse:
        status, body = self.post(ENROLL_PATH, self.agent.enroll(self.token()))
        assert status == 200, body
        return msgspec.convert(body, EnrollResponse)


@pytest.fixture
def talk(tmp_path: Path, clock: TurnedClock) -> Iterator[Talk]:
    talk = Talk(tmp_path, clock)
    yield talk
    talk.enrolments.database.close()


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
    status, body = talk.post(RENEW_PATH, renewal)
    assert (status, "on the revocation list" in str(body)) == (403, True)


def test_no_agent_gets_the_servers_name(talk: Talk, clock: TurnedClock) -> None:
    agent = EnrollingAgent("acm-server")
    token = EnrolmentToken(secrets.token_urlsafe(32), talk.authority.fingerprint)
    talk.enrolments.add_token("acm-server", token, timedelta(hours=1))
    status, body = talk.post(ENROLL_PATH, agent.enroll(token.text))
    assert (status, "server's own name" in str(body)) == (400, True)
    assert talk.enrolments.enrolments() == []
    certificate = talk.authority.issue("acm-server", agent.key.public_key(), MONTH).public_bytes(Encoding.PEM).decode()
    status, body = talk.post(RENEW_PATH, agent.renew(certificate, Ed25519PrivateKey.generate()))
    assert (status, "server's own name" in str(body)) == (400, True)


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
    ("change", "status", "said"),
    [
        ({"token": "acm1.x"}, 400, "no enrolment token"),
        ({"agent": "Web 01"}, 400, "not an agent name"),
        ({"csr": "x"}, 400, "not a certificate signing request"),
        ({"agent": "web-02"}, 400, "common name must be 'web-02'"),
        ({"agent": "web-02", "csr": request(EnrollingAgent("").key, "web-02")}, 403, "is not for 'web-02'"),
        ({"token": f"acm1.{'s' * 43}.{'0' * 64}"}, 403, "of another authority"),
    ],
)
def test_a_refused_enrolment_is_one_sentence(talk: Talk, change: dict[str, str], status: int, said: str) -> None:
    answer = talk.post(ENROLL_PATH, replace(talk.agent.enroll(talk.token()), **change))
    assert answer[0] == status
    assert said in answer[1]["message"]
    assert talk.enrolments.enrolments() == []


def test_a_token_is_used_by_one_key_only(talk: Talk) -> None:
    token = talk.token()
    first = talk.post(ENROLL_PATH, talk.agent.enroll(token))
    assert talk.post(ENROLL_PATH, talk.agent.enroll(token)) == first
    status, body = talk.post(ENROLL_PATH, EnrollingAgent("web-01").enroll(token))
    assert status == 409
    assert "used already, by another key" in body["message"]


def test_a_renewal_needs_a_certificate_and_its_key(talk: Talk) -> None:
    enrolled, thief = talk.enroll(), EnrollingAgent("web-01")
    asked = talk.agent.renew(enrolled.certificate, talk.agent.key)
    refusals = [
        (403, "not that of `csr`", thief.renew(enrolled.certificate, thief.key)),
        (403, "not a certificate of this authority", replace(asked, certificate="x")),
        (400, "common name", sign(talk.agent, replace(asked, csr=request(talk.agent.key, "web-02")))),
        (403, "not known here", thief.renew(foreign_certificate(talk, thief), thief.key)),
    ]
    for status, said, refused in refusals:
        answer = talk.post(RENEW_PATH, refused)
        assert (answer[0], said in answer[1]["message"]) == (status, True), answer
    talk.enrolments.revoke("web-01", RevocationReason.UNSPECIFIED)
    assert talk.post(RENEW_PATH, asked)[0] == 403
    talk.clock.turn(31 * 86400)
    assert "not valid now" in talk.post(RENEW_PATH, asked)[1]["message"]


def sign(agent: EnrollingAgent, asked: Any) -> Any:
    return replace(asked, signature=base64.b64encode(agent.key.sign(asked.csr.encode())).decode())


def foreign_certificate(talk: Talk, holder: EnrollingAgent) -> str:
    """A certificate of the authority that no enrolment paid for, as one lost with a ledger."""
    certificate = talk.authority.issue("web-01", holder.key.public_key(), MONTH)
    return certificate.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("", 400, "not the JSON"),
        ("[]", 400, "Expected `object`"),
        ("{", 400, "not the JSON"),
        ("[" * 20000, 400, "not the JSON"),
        (b'{"token": "\xff"}', 400, "not the JSON"),
        ('{"token": 1, "agent": "", "csr": ""}', 400, "Expected `str`, got `int`"),
        ('{"token": "", "agent": ""}', 400, "missing required field `csr`"),
        ('{"token": "", "agent": "", "csr": "", "role": "admin"}', 400, "has a member 'role'"),
        ('{"token": "\\ud800", "agent": "web-01", "csr": "\\ud800"}', 400, ""),
        (" " * 32769, 413, "at most 32768 bytes"),
    ],
)
def test_a_body_that_is_no_request_is_refused(talk: Talk, body: str | bytes, status: int, said: str) -> None:
    answer = talk.post(ENROLL_PATH, body)
    assert (answer[0], list(answer[1])) == (status, ["message"])
    assert said in answer[1]["message"]


def test_there_is_nothing_else(talk: Talk) -> None:
    for method, path, status in (("GET", "/", 404), ("GET", ENROLL_PATH, 405), ("POST", CA_PATH, 405)):
        answer = talk.call(method, path)
        assert (answer[0], "POST /v1/enrol" in answer[1]["message"]) == (status, True)


def test_a_ledger_that_fails_is_told_without_its_details(talk: Talk, tmp_path: Path) -> None:
    asked = talk.agent.enroll(talk.token())
    talk.enrolments.database.close()
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    status, body = talk.post(ENROLL_PATH, asked)
    assert (status, "try again later" in body["message"]) == (503, True)
    assert "database" not in body["message"]


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
    assert (status, body) == (500, {"message": "The enrolment server failed; its log says why."})
