"""An enrolled agent, and frames signed for it like those of `acm server`, without a server and a ledger."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.contract.dsse import SigningKey
from broker.contract.topics import Channel
from broker.signing.recipient import Recipient
from broker.signing.signer import Signer
from consumer.enrolment.keys import new_key
from consumer.enrolment.store import CertifiedGrant, EnrolmentDirectory, Grant

__all__ = ["Sign", "enroll", "unsigned"]

Sign = Callable[[Channel, bytes], bytes]


def unsigned(channel: Channel, frame: bytes) -> bytes:
    """Return the frame unchanged."""
    return frame


def enroll(agent: str, state: Path, broker: str) -> Sign:
    """Enroll the agent of a state directory; return a signer for it. Over plain MQTT it presents no certificate."""
    key, enrolment_id = SigningKey(Ed25519PrivateKey.generate()), str(uuid.uuid4())
    now = datetime.now(UTC)
    grant = Grant(
        agent=agent,
        enrolment_id=enrolment_id,
        server="https://127.0.0.1:1",
        broker=broker,
        topic_prefix="acm",
        signing_keys=(key.public.pem,),
        granted_at=now,
        not_after=now + timedelta(days=30),
        token="unused",
    )
    state.mkdir(mode=0o700)
    enrolments = EnrolmentDirectory(state)
    enrolments.add(CertifiedGrant(grant, enrolment_id, "unused", "unused"), new_key())
    enrolments.make_current(enrolment_id)
    recipient = Recipient((enrolment_id,), enrolments_exist=True)
    signer = Signer(
        "acm-server",
        lambda: [key],
        lambda agents: dict.fromkeys(agents, recipient),
        now=lambda: datetime.now(UTC),
        monotonic=monotonic,
    )

    def sign(channel: Channel, frame: bytes) -> bytes:
        signed = signer.sign(agent, channel, frame)
        assert signed is not None
        return signed

    return sign
