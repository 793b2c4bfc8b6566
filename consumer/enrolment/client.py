"""The client of an enrolment server over HTTPS: bounded in time and size; every response is validated.

On first contact the authority's certificate is fetched without trust and compared with the fingerprint in the token;
every other request uses TLS that trusts this authority alone and checks the server's name.
"""

import re
import ssl
import threading
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from email.utils import parsedate_to_datetime
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
from consumer.enrolment.grant_validation import (
    CertificateRequest,
    fingerprint_of_pem,
    first_certificate,
    validate_response,
)
from consumer.enrolment.keys import read_key, sign_text, signing_request
from consumer.enrolment.store import CertifiedGrant, Enrolment
from consumer.errors import EnrolmentError
from consumer.ports import Clock
from consumer.system.https import https_client

__all__ = [
    "EnrolmentClient",
]


_T = TypeVar("_T")
_READ_TIMEOUT_S = 10.0  # without a byte from the server
_MAX_RESPONSE_BYTES = 1 << 16
_MAX_REASON_LENGTH = 300
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")  # or an IPv4 address


class EnrolmentClient:
    """A client of the server at one https URL. `deadline` is in seconds of the clock's `monotonic()`.

    All methods raise EnrolmentError: the server cannot be reached, is not the one that the token names, refuses, or
    sends a response that cannot be used.
    """

    def __init__(self, server: str, clock: Clock, deadline: float, cancelled: threading.Event) -> None:
        self.server = _checked(server)
        self._name = f"The enrolment server {printable_line(self.server, _MAX_REASON_LENGTH)}"
        self.clock = clock
        self._deadline = deadline
        self._cancelled = cancelled

    def enroll(self, token: EnrolmentToken, agent: str, key: Ed25519PrivateKey) -> CertifiedGrant:
        """Exchange the token for a certificate for this key in the agent's name."""
        authority = self._authority(token.fingerprint)
        request = EnrollRequest(token.text, agent, signing_request(agent, key))
        response = self._request("POST", ENROLL_PATH, _trusting(authority), EnrollResponse, request)
        if fingerprint_of_pem(response.ca) != token.fingerprint:
            raise EnrolmentError(
                f"{self._name} sent the certificate of a different authority than the token's.", code="wrong_authority"
            )
        requested = CertificateRequest(self.server, agent, key, token.secret_hash)
        return validate_response(response, requested, self.clock.now())

    def renew(self, enrolment: Enrolment, key: Ed25519PrivateKey) -> CertifiedGrant:
        """Return a certificate for this new key; the enrolment's current key signs the request."""
        agent = enrolment.grant.agent
        csr = signing_request(agent, key)
        try:
            certificate, trust = enrolment.tls.certificate.read_text(), _trusting(enrolment.tls.ca.read_text())
            request = RenewRequest(certificate, csr, sign_text(read_key(enrolment.tls.key), csr))
        except (OSError, ValueError) as error:  # ValueError: not a text, or no certificate in it
            raise _unusable(enrolment, error) from error
        response = self._request("POST", RENEW_PATH, trust, EnrollResponse, request)
        requested = CertificateRequest(self.server, agent, key, enrolment.grant.token)
        return validate_response(response, requested, self.clock.now())

    def ask_time(self, enrolment: Enrolment) -> datetime | None:
        """Ask the server for nothing but an answer, as a renewal would; return its time (UTC), None if it has none."""
        try:
            trust = _trusting(enrolment.tls.ca.read_text())
        except (OSError, ValueError) as error:
            raise _unusable(enrolment, error) from error
        status, content, date = self._answer("GET", CA_PATH, trust)
        self._decode(status, content, AuthorityResponse)
        with suppress(ValueError):
            return parsedate_to_datetime(date)
        return None

    def _authority(self, fingerprint: str) -> str:
        untrusting = ssl.create_default_context()
        untrusting.check_hostname, untrusting.verify_mode = False, ssl.CERT_NONE
        certificate = self._request("GET", CA_PATH, untrusting, AuthorityResponse).certificate
        if fingerprint_of_pem(certificate) != fingerprint:
            raise EnrolmentError(
                f"{self._name} is not the server that the token is for: its authority has a different fingerprint.",
                code="wrong_authority",
            )
        return first_certificate(certificate)  # the fingerprint is of this one alone

    def _request(self, method: str, path: str, trust: ssl.SSLContext, kind: type[_T], document: Any = None) -> _T:
        status, content, _ = self._answer(method, path, trust, document)
        return self._decode(status, content, kind)

    def _answer(self, method: str, path: str, trust: ssl.SSLContext, document: Any = None) -> tuple[int, bytes, str]:
        """Return the status, the content and the date of the response."""
        body = asdict(document) if document is not None else None
        timeout = max(0.1, min(_READ_TIMEOUT_S, self._deadline - self.clock.monotonic()))
        uncompressed = {"Accept-Encoding": "identity"}
        try:
            with (
                https_client(trust, timeout) as client,
                client.stream(method, self.server + path, json=body, headers=uncompressed) as response,
            ):
                return response.status_code, self._read(response), response.headers.get("Date", "")
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise EnrolmentError(
                f"{self._name} cannot be reached: {str(error) or type(error).__name__}.", code="unreachable"
            ) from error

    def _read(self, response: httpx.Response) -> bytes:
        content = b""
        for block in response.iter_raw():
            content += block
            if len(content) > _MAX_RESPONSE_BYTES:
                raise EnrolmentError(
                    f"The response of {self._name} is larger than {_MAX_RESPONSE_BYTES} bytes. Check the URL.",
                    code="response_too_large",
                )
            if self._cancelled.is_set():
                raise EnrolmentError("The enrolment was cancelled.", code="cancelled")
            if self.clock.monotonic() >= self._deadline:
                raise EnrolmentError(f"{self._name} did not answer in time.", code="timed_out")
        return content

    def _decode(self, status: int, content: bytes, kind: type[_T]) -> _T:
        try:
            if status == httpx.codes.OK:
                return msgspec.json.decode(content, type=kind)
            refusal = msgspec.json.decode(content, type=ErrorResponse)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if status >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise EnrolmentError(
                    f"{self._name} cannot answer now (HTTP {status}); try again later.", code="unavailable"
                ) from error
            raise EnrolmentError(
                f"{self._name} sent an unexpected response (HTTP {status}). Check the URL.", code="unexpected_response"
            ) from error
        raise EnrolmentError(
            f"{self._name} refuses: {printable_line(refusal.message, _MAX_REASON_LENGTH)}", code="refused"
        )


def _checked(server: str) -> str:
    try:
        parts = urlsplit(server)
        usable = bool(parts.scheme == "https" and parts.hostname and parts.port != 0)
        usable = usable and not ("@" in parts.netloc or parts.query or parts.fragment)
        usable = usable and bool(":" in (parts.hostname or "") or _NAME.fullmatch(parts.hostname or ""))
    except ValueError:
        usable = False
    if not usable:
        raise EnrolmentError(
            "The enrolment server's URL must look like https://HOST:PORT, with one host.", code="invalid_url"
        )
    return server.rstrip("/")


def _unusable(enrolment: Enrolment, error: Exception) -> EnrolmentError:
    return EnrolmentError(f"The enrolment in {enrolment.directory} cannot be used: {error}.", code="enrolment_unusable")


def _trusting(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca)
