"""The messages of enrolment over HTTPS, in JSON; cf. EST (RFC 7030): `cacerts`, `simpleenroll`, `simplereenroll`.

The agent generates its own key and sends a certificate signing request (PKCS #10, RFC 2986). Certificates, requests
and keys are in PEM (RFC 7468).
"""

from dataclasses import dataclass
from datetime import datetime

__all__ = [
    "CA_PATH",
    "ENROLL_PATH",
    "RENEW_PATH",
    "AuthorityResponse",
    "EnrollRequest",
    "EnrollResponse",
    "ErrorResponse",
    "RenewRequest",
]


CA_PATH = "/v1/ca"
ENROLL_PATH = "/v1/enrol"
RENEW_PATH = "/v1/renew"


@dataclass(frozen=True)
class AuthorityResponse:
    """Response to GET /v1/ca: the authority's certificate, to be compared with the fingerprint in the token."""

    certificate: str


@dataclass(frozen=True)
class EnrollRequest:
    """Body of POST /v1/enrol: exchange a one-time token for a certificate in the agent's name."""

    token: str
    agent: str
    csr: str


@dataclass(frozen=True)
class RenewRequest:
    """Body of POST /v1/renew: exchange a valid certificate for a new one.

    `signature` is the Ed25519 signature over the bytes of `csr` by the key of `certificate`, in base64.
    """

    certificate: str
    csr: str
    signature: str


@dataclass(frozen=True)
class EnrollResponse:
    """Response to both requests: everything that an agent needs to connect.

    `signing_keys` are the public keys that verify commands; a list with a later `signing_keys_version` replaces them.
    """

    agent: str
    enrolment_id: str
    certificate: str
    ca: str
    broker: str
    topic_prefix: str
    signing_keys: tuple[str, ...]
    not_after: datetime
    signing_keys_version: int = 0


@dataclass(frozen=True)
class ErrorResponse:
    """Body of a response with a status of 400 or more: one sentence that a user can act on (RFC 9457: `detail`)."""

    message: str
