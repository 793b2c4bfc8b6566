"""Agents that are enrolled without an enrolment server: this writes the files and rows of both sides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.contract.dsse import Scope, SigningKey, payload_type, seal, write_body
from broker.contract.topics import Channel
from broker.pki.authority import CertificateAuthority, create_authority
from broker.signing.key_store import SigningKeys, create_signing_keys
from broker.signing.recipient import Recipient
from consumer.enrolment.store import CertifiedGrant, EnrolmentDirectory, Grant
from tests.support.enrolling import EnrolmentBackend


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Registrar:
    """An authority in `directory` with signing keys in `signing` there; enrolls agents in the ledger at `ledger`."""

    directory: Path
    ledger: str
    clock: Callable[[], datetime] = now

    def __post_init__(self) -> None:
        create_authority(self.directory, "test", self.clock())
        create_signing_keys(self.directory / "signing", self.clock())
        self.authority = CertificateAuthority(self.directory, now=self.clock)
        self.keys = SigningKeys(self.directory / "signing")

    def enroll(self, agent: str, state: Path, broker: str) -> str:
        """Enroll the agent of a state directory at a broker; return the enrolment's id."""
        key = Ed25519PrivateKey.generate()
        backend = EnrolmentBackend(self.authority, self.ledger, self.clock)
        with backend.database:
            token = backend.token(agent)
            issued = backend.enroll(agent, key, token)
        grant = Grant(
            agent=agent,
            enrolment_id=issued.enrolment_id,
            server="https://127.0.0.1:1",
            broker=broker,
            topic_prefix="acm",
            signing_keys=self.keys.update.keys,
            granted_at=self.clock(),
            not_after=issued.not_after,
            token=token.secret_hash,
            signing_keys_version=self.keys.version,
        )
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        enrolments = EnrolmentDirectory(state)
        name = issued.enrolment_id
        enrolments.add(CertifiedGrant(grant, name, issued.certificate, self.authority.certificate), key)
        enrolments.make_current(name)
        return issued.enrolment_id


def signed(keys: tuple[SigningKey, ...], scope: Scope, frame: bytes, channel: Channel = Channel.COMMAND) -> bytes:
    """Return a frame signed by a server with these keys."""
    return seal(payload_type(channel), write_body(scope, frame), keys)


def enrolled_by(*enrolments: str) -> Callable[[Sequence[str]], Mapping[str, Recipient]]:
    """Return recipients for a Signer: each agent has these enrolments."""
    return lambda agents: dict.fromkeys(agents, Recipient(enrolments, enrolments_exist=True))
