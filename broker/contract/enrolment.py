"""What an agent and an enrolment server say to each other over HTTPS, as JSON.

The agent makes its key itself and sends a certificate signing request (PKCS#10, RFC 2986). Certificates, requests and
keys are PEM texts (RFC 7468).
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
    """Answer to GET /v1/ca: the certificate of the authority, to be compared with the fingerprint in the token."""

    certificate: str


@dataclass(frozen=True)
class EnrollRequest:
    """POST /v1/enrol: exchange a one-time token for a certificate in the agent's name."""

    token: str
    agent: str
    csr: str


@dataclass(frozen=True)
class RenewRequest:
    """POST /v1/renew: a new certificate for the holder of a valid one.

    `signature` is base64 of the Ed25519 signature, by the key of `certificate`, of the bytes of `csr`.
    """

    certificate: str
    csr: str
    signature: str


@dataclass(frozen=True)
class EnrollResponse:
    """Answer to both: all that an agent needs.

    `signing_keys` are the public keys that commands are signed with; a list of a later `signing_keys_version` replaces
    them.
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
