"""A real HTTPS enrolment server, small: it speaks broker/contract/enrolment.py, and can misbehave on request."""

import base64
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.contract.enrolment import CA_PATH, ENROLL_PATH, RENEW_PATH, AuthorityResponse, EnrollResponse, ErrorResponse
from broker.contract.enrolment_token import EnrolmentToken
from tests.support.authority import TestAuthority
from tests.support.brokers import free_port
from tests.support.waiting import wait_for


class EnrolmentServer:
    """Grants a certificate for each token, always for the same key. `change` may alter a response before it is sent."""

    def __init__(self, authority: TestAuthority, broker: str) -> None:
        self.authority = authority
        self.broker = broker
        self.life_s = 3600.0
        self.signing_keys: tuple[str, ...] = ()
        self.url = f"https://127.0.0.1:{free_port()}"
        self.asked: list[str] = []
        self.change: Callable[[Any], Any] = lambda answer: answer
        self._paid: dict[str, tuple[bytes, str] | None] = {}

    def new_token(self) -> str:
        token = EnrolmentToken(secrets.token_urlsafe(24), self.authority.fingerprint).text
        self._paid[token] = None
        return token

    @contextmanager
    def running(self, directory: Path) -> Iterator["EnrolmentServer"]:
        self.authority.write_identity(directory, "enrolment", host="127.0.0.1")
        app = Starlette(
            routes=[
                Route(CA_PATH, self._ca),
                Route(ENROLL_PATH, self._enrol, methods=["POST"]),
                Route(RENEW_PATH, self._renew, methods=["POST"]),
            ]
        )
        port = int(self.url.rpartition(":")[2])
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                port=port,
                ws="none",
                log_config=None,
                ssl_certfile=directory / "certificate.pem",
                ssl_keyfile=str(directory / "key.pem"),
            )
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_for(lambda: server.started, "the enrolment server to listen")
            yield self
        finally:
            server.should_exit = True
            thread.join()

    async def _ca(self, request: Request) -> Response:
        return self._answer(CA_PATH, AuthorityResponse(self.authority.pem))

    async def _enrol(self, request: Request) -> Response:
        asked = await request.json()
        csr = x509.load_pem_x509_csr(asked["csr"].encode())
        key = csr.public_key()
        assert isinstance(key, Ed25519PublicKey)
        if asked["token"] not in self._paid:
            return self._answer(ENROLL_PATH, ErrorResponse("The token is not known here."), 403)
        paid = self._paid[asked["token"]]
        if paid is None:
            paid = (key.public_bytes_raw(), self._certificate(asked["agent"], csr))
            self._paid[asked["token"]] = paid
        if paid[0] != key.public_bytes_raw():
            return self._answer(ENROLL_PATH, ErrorResponse("The token was used with another key."), 409)
        return self._answer(ENROLL_PATH, self._enrolled(asked["agent"], paid[1]))

    async def _renew(self, request: Request) -> Response:
        asked = await request.json()
        old = x509.load_pem_x509_certificate(asked["certificate"].encode())
        old.verify_directly_issued_by(self.authority.certificate)
        key = old.public_key()
        assert isinstance(key, Ed25519PublicKey)
        key.verify(base64.b64decode(asked["signature"]), asked["csr"].encode())
        agent = str(old.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
        csr = x509.load_pem_x509_csr(asked["csr"].encode())
        return self._answer(RENEW_PATH, self._enrolled(agent, self._certificate(agent, csr)))

    def _certificate(self, agent: str, csr: x509.CertificateSigningRequest) -> str:
        names = csr.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        assert [name.value for name in names] == [agent]
        assert csr.is_signature_valid
        return self.authority.issue(agent, csr.public_key(), life_s=self.life_s)

    def _enrolled(self, agent: str, certificate: str) -> EnrollResponse:
        end = datetime.now(UTC) + timedelta(seconds=self.life_s)
        return EnrollResponse(agent, "e-1", certificate, self.authority.pem, self.broker, "acm", self.signing_keys, end)

    def _answer(self, path: str, answer: Any, status: int = 200) -> Response:
        self.asked.append(path)
        spoilt = self.change(answer)
        content = spoilt if isinstance(spoilt, bytes) else msgspec.json.encode(spoilt)
        return Response(content, status, media_type="application/json")
