"""Speaking with an enrolment server over HTTPS: bounded in time and size, and nothing it says believed unchecked.

On first contact the authority's certificate is fetched without trust and compared with the fingerprint in the token;
all else is said over TLS that trusts this authority alone and checks the server's name.
"""

import ssl
import threading
from dataclasses import asdict
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.contract.enrolment import (
    CA_PATH,
    ENROLL_PATH,
    RENEW_PATH,
    AuthorityResponse,
    EnrollRequest,
    EnrollResponse,
    ErrorResponse,
    RenewRequest,
)
from broker.contract.enrolment_token import EnrolmentToken
from broker.text import printable_line
from consumer.enrolment.grant_validation import fingerprint_of_pem, granted_by
from consumer.enrolment.keys import read_key, request_for, sign
from consumer.enrolment.store import CertifiedGrant, Enrolment
from consumer.errors import EnrolmentError
from consumer.ports import Clock

__all__ = [
    "EnrolmentClient",
]


_T = TypeVar("_T")
_QUIET_S = 10.0  # a server that says nothing for so long is given up
_MAX_ANSWER_BYTES = 1 << 16
_MAX_REASON = 300


class EnrolmentClient:
    """Speaks with the server at one https URL. `deadline` is in seconds of the clock's `monotonic()`.

    All methods raise EnrolmentError with one sentence: the server cannot be reached, is not the one that the token
    names, refuses, or answers what cannot be used.
    """

    def __init__(self, server: str, clock: Clock, deadline: float, cancelled: threading.Event) -> None:
        self.server = _checked(server)
        self._name = f"The enrolment server {printable_line(self.server, _MAX_REASON)}"
        self.clock = clock
        self._deadline = deadline
        self._cancelled = cancelled

    def enroll(self, token: EnrolmentToken, agent: str, key: Ed25519PrivateKey) -> CertifiedGrant:
        """Exchange the token for a certificate of this key in the agent's name."""
        authority = self._authority(token.fingerprint)
        request = EnrollRequest(token.text, agent, request_for(agent, key))
        answer = self._ask("POST", ENROLL_PATH, _trusting(authority), EnrollResponse, request)
        if fingerprint_of_pem(answer.ca) != token.fingerprint:
            raise EnrolmentError(f"{self._name} answers with another authority than the token's.")
        return granted_by(answer, self.server, agent, key, self.clock.now(), token.secret_hash)

    def renew(self, enrolment: Enrolment, key: Ed25519PrivateKey) -> CertifiedGrant:
        """Return a certificate of this new key, for the holder of the enrolment's certificate and key."""
        agent = enrolment.grant.agent
        csr = request_for(agent, key)
        try:
            certificate, trust = enrolment.tls.certificate.read_text(), _trusting(enrolment.tls.ca.read_text())
            request = RenewRequest(certificate, csr, sign(read_key(enrolment.tls.key), csr))
        except OSError as error:
            raise EnrolmentError(f"The enrolment in {enrolment.directory} cannot be used: {error}.") from error
        answer = self._ask("POST", RENEW_PATH, trust, EnrollResponse, request)
        return granted_by(answer, self.server, agent, key, self.clock.now(), enrolment.grant.token)

    def _authority(self, fingerprint: str) -> str:
        untrusting = ssl.create_default_context()
        untrusting.check_hostname, untrusting.verify_mode = False, ssl.CERT_NONE
        certificate = self._ask("GET", CA_PATH, untrusting, AuthorityResponse).certificate
        if fingerprint_of_pem(certificate) != fingerprint:
            raise EnrolmentError(
                f"{self._name} is not the one that the token was made for: its authority has another fingerprint."
            )
        return certificate

    def _ask(self, method: str, path: str, trust: ssl.SSLContext, kind: type[_T], question: Any = None) -> _T:
        body = asdict(question) if question is not None else None
        patience = max(0.1, min(_QUIET_S, self._deadline - self.clock.monotonic()))
        plain = {"Accept-Encoding": "identity"}
        try:
            with (
                httpx.Client(verify=trust, timeout=patience) as client,
                client.stream(method, self.server + path, json=body, headers=plain) as response,
            ):
                content = self._read(response)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise EnrolmentError(f"{self._name} cannot be reached: {str(error) or type(error).__name__}.") from error
        return self._answer(response.status_code, content, kind)

    def _read(self, response: httpx.Response) -> bytes:
        content = b""
        for block in response.iter_raw():
            content += block
            if len(content) > _MAX_ANSWER_BYTES:
                raise EnrolmentError(
                    f"{self._name} answers with more than {_MAX_ANSWER_BYTES} bytes; is its URL right?"
                )
            if self._cancelled.is_set():
                raise EnrolmentError("The enrolment was cancelled.")
            if self.clock.monotonic() >= self._deadline:
                raise EnrolmentError(f"{self._name} did not answer in time.")
        return content

    def _answer(self, status: int, content: bytes, kind: type[_T]) -> _T:
        try:
            if status == httpx.codes.OK:
                return msgspec.json.decode(content, type=kind)
            refusal = msgspec.json.decode(content, type=ErrorResponse)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if status >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise EnrolmentError(f"{self._name} cannot answer now ({status}); try again later.") from error
            raise EnrolmentError(
                f"{self._name} answers {status} with what no enrolment server says; is its URL right?"
            ) from error
        raise EnrolmentError(f"{self._name} refuses: {printable_line(refusal.message, _MAX_REASON)}")


def _checked(server: str) -> str:
    try:
        parts = urlsplit(server)
        usable = bool(parts.scheme == "https" and parts.hostname and parts.port != 0)
        usable = usable and not (parts.username or parts.query or parts.fragment)
    except ValueError:
        usable = False
    if not usable:
        raise EnrolmentError("The enrolment server's URL must look like https://HOST:PORT.")
    return server.rstrip("/")


def _trusting(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca)
