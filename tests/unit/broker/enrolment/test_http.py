"""The enrolment server's HTTP API, from request to response, without a socket."""

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
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from broker.signing.key_store import SigningKeys, create_signing_keys
from tests.support.enrolling import MONTH, EnrollingAgent, EnrolmentBackend, request
from tests.support.fakes.clock import TurnedClock
from tests.support.threads import no_thread_left


class ServerSetup:
    """The application, its parts, and an agent."""

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
            EnrolmentPolicy("mqtts://broker", "acm", MONTH, "acm-server", grace=3 * MONTH),
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
def setup(tmp_path: Path, clock: TurnedClock) -> Iterator[ServerSetup]:
    setup = ServerSetup(tmp_path, clock)
    yield setup
    setup.backend.database.close()


def test_authority_certificate_is_public(setup: ServerSetup) -> None:
    assert setup.call("GET", CA_PATH) == (200, {"certificate": setup.authority.certificate})


def test_enrolment_response_is_complete(setup: ServerSetup) -> None:
    enrolled = setup.enroll()
    certificate = x509.load_pem_x509_certificate(enrolled.certificate.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(enrolled.ca.encode()))
    assert certificate.public_key() == setup.agent.key.public_key()
    assert (enrolled.agent, enrolled.broker, enrolled.topic_prefix) == ("web-01", "mqtts://broker", "acm")
    assert enrolled.signing_keys == setup.keys.update.keys
    assert enrolled.not_after == certificate.not_valid_after_utc == setup.clock.now() + MONTH


def test_valid_certificate_is_renewed_with_a_new_key(setup: ServerSetup) -> None:
    enrolled, new_key = setup.enroll(), Ed25519PrivateKey.generate()
    setup.clock.turn(20 * 86400)
    status, body = setup.post(RENEW_PATH, setup.agent.renew(enrolled.certificate, new_key))
    renewed = msgspec.convert(body, EnrollResponse)
    assert (status, renewed.enrolment_id) == (200, enrolled.enrolment_id)
    assert x509.load_pem_x509_certificate(renewed.certificate.encode()).public_key() == new_key.public_key()
    assert renewed.not_after == setup.clock.now() + MONTH


def test_expired_certificate_is_renewed_within_the_grace_unless_it_was_revoked(setup: ServerSetup) -> None:
    enrolled, new_key = setup.enroll(), Ed25519PrivateKey.generate()
    setup.clock.turn(4 * MONTH.total_seconds() - 1)
    asked = setup.agent.renew(enrolled.certificate, new_key)
    status, body = setup.post(RENEW_PATH, asked)
    assert (status, body["enrolment_id"]) == (200, enrolled.enrolment_id)
    assert setup.refusal(RENEW_PATH, EnrollingAgent("web-01").renew(enrolled.certificate, new_key)) == (
        403,
        "bad_signature",
    )
    setup.enrolments.revoke_agent("web-01", RevocationReason.UNSPECIFIED)
    assert setup.refusal(RENEW_PATH, asked) == (403, "enrolment_revoked")
    setup.clock.turn(1)
    assert setup.refusal(RENEW_PATH, asked) == (403, "certificate_not_valid_now")


def test_request_for_which_there_is_no_thread_is_refused_for_now(setup: ServerSetup) -> None:
    wanted = setup.agent.enroll(setup.token())
    with no_thread_left():
        assert setup.post(ENROLL_PATH, wanted)[0] == 503
    assert setup.post(ENROLL_PATH, wanted)[0] == 200


def test_too_many_renewals_are_refused_with_429(setup: ServerSetup) -> None:
    asked = setup.agent.renew(setup.enroll().certificate, Ed25519PrivateKey.generate())
    statuses = [setup.post(RENEW_PATH, asked)[0] for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_listed_certificate_is_not_renewed_without_a_record_in_the_ledger(setup: ServerSetup, tmp_path: Path) -> None:
    enrolled = setup.enroll()
    renewal = setup.agent.renew(enrolled.certificate, Ed25519PrivateKey.generate())
    assert setup.post(RENEW_PATH, renewal)[0] == 200
    serial = x509.load_pem_x509_certificate(enrolled.certificate.encode()).serial_number
    entry = RevokedCertificate(serial, setup.clock.now(), RevocationReason.KEY_COMPROMISE)
    setup.authority.write_revocation_list(lambda: [entry], tmp_path / "crl.pem")
    assert setup.refusal(RENEW_PATH, renewal) == (403, "certificate_revoked")


def test_no_agent_gets_the_name_of_the_server(setup: ServerSetup, clock: TurnedClock) -> None:
    agent = EnrollingAgent("acm-server")
    token = setup.backend.token("acm-server").text
    assert setup.refusal(ENROLL_PATH, agent.enroll(token)) == (400, "name_of_the_server")
    assert setup.enrolments.enrolments() == []
    certificate = setup.authority.issue("acm-server", agent.key.public_key(), MONTH).public_bytes(Encoding.PEM).decode()
    renewal = agent.renew(certificate, Ed25519PrivateKey.generate())
    assert setup.refusal(RENEW_PATH, renewal) == (400, "name_of_the_server")


def test_extensions_requested_in_a_csr_are_ignored(setup: ServerSetup) -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("broker.example.org")])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "web-01")])
    builder = x509.CertificateSigningRequestBuilder(subject).add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    csr = builder.sign(setup.agent.key, None).public_bytes(Encoding.PEM).decode()
    _, body = setup.post(ENROLL_PATH, replace(setup.agent.enroll(setup.token()), csr=csr))
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
def test_bad_enrolment_request_is_refused(setup: ServerSetup, change: dict[str, str], status: int, code: str) -> None:
    assert setup.refusal(ENROLL_PATH, replace(setup.agent.enroll(setup.token()), **change)) == (status, code)
    assert setup.enrolments.enrolments() == []


def test_second_key_for_a_token_is_a_conflict(setup: ServerSetup) -> None:
    token = setup.token()
    first = setup.post(ENROLL_PATH, setup.agent.enroll(token))
    assert setup.post(ENROLL_PATH, setup.agent.enroll(token)) == first
    assert setup.refusal(ENROLL_PATH, EnrollingAgent("web-01").enroll(token)) == (409, "token_used")


def test_renewal_without_a_valid_certificate_and_its_key_is_refused(setup: ServerSetup) -> None:
    enrolled, attacker = setup.enroll(), EnrollingAgent("web-01")
    asked = setup.agent.renew(enrolled.certificate, setup.agent.key)
    refusals = [
        (403, "bad_signature", attacker.renew(enrolled.certificate, attacker.key)),
        (403, "foreign_certificate", replace(asked, certificate="x")),
        (400, "csr_wrong_subject", sign(setup.agent, replace(asked, csr=request(setup.agent.key, "web-02")))),
        (403, "enrolment_not_recorded", attacker.renew(unrecorded_certificate(setup, attacker), attacker.key)),
    ]
    for status, code, refused in refusals:
        assert setup.refusal(RENEW_PATH, refused) == (status, code)
    setup.enrolments.revoke_agent("web-01", RevocationReason.UNSPECIFIED)
    assert setup.refusal(RENEW_PATH, asked) == (403, "enrolment_revoked")
    setup.clock.turn(121 * 86400)
    assert setup.refusal(RENEW_PATH, asked) == (403, "certificate_not_valid_now")


def sign(agent: EnrollingAgent, asked: Any) -> Any:
    return replace(asked, signature=base64.b64encode(agent.key.sign(asked.csr.encode())).decode())


def unrecorded_certificate(setup: ServerSetup, holder: EnrollingAgent) -> str:
    """A certificate of the authority that is in no enrolment, as after the loss of a ledger."""
    certificate = setup.authority.issue("web-01", holder.key.public_key(), MONTH)
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
def test_malformed_body_is_refused(setup: ServerSetup, body: str | bytes, code: str, named: str) -> None:
    assert setup.refusal(ENROLL_PATH, body) == (400, code)
    assert named in setup.post(ENROLL_PATH, body)[1]["message"]


def test_body_over_32768_bytes_is_refused(setup: ServerSetup) -> None:
    assert setup.refusal(ENROLL_PATH, " " * 32768) == (400, "malformed_body")
    status, body = setup.post(ENROLL_PATH, " " * 32769)
    assert (status, list(body)) == (413, ["message"])


def test_unknown_route_is_refused_with_the_known_ones(setup: ServerSetup) -> None:
    for method, path, status in (("GET", "/", 404), ("GET", ENROLL_PATH, 405), ("POST", CA_PATH, 405)):
        answer = setup.call(method, path)
        assert (answer[0], "POST /v1/enrol" in answer[1]["message"]) == (status, True)


def test_ledger_failure_is_reported_without_details(setup: ServerSetup, tmp_path: Path) -> None:
    asked = setup.agent.enroll(setup.token())
    setup.backend.database.close()
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    assert setup.refusal(ENROLL_PATH, asked) == (503, "not_a_ledger")
    assert "database" not in setup.post(ENROLL_PATH, asked)[1]["message"]


class FaultyService(EnrolmentService):
    """A service with a bug."""

    def enroll(self, request: object) -> EnrollResponse:
        raise RuntimeError("/var/lib/secret")


def test_server_fault_is_reported_without_details(setup: ServerSetup) -> None:
    setup.app = enrolment_app(
        FaultyService(
            setup.authority,
            setup.keys,
            setup.enrolments,
            EnrolmentPolicy("mqtt://broker", "acm", MONTH, "acm-server"),
            bool,
        )
    )
    status, body = setup.post(ENROLL_PATH, setup.agent.enroll(setup.token()))
    assert (status, body) == (500, {"message": "The enrolment server failed; its log has the reason."})
