"""Valid input to start from: the golden frames, and small archives and packages made here."""

import base64
import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.contract.dsse import Scope, SigningKey, payload_type, seal, write_body
from broker.contract.topics import Channel
from broker.release.manifest import FILES, MANIFEST, SIGNATURE, Manifest, PackagedFile, render_manifest
from consumer.trust.verification import NoTrust

__all__ = [
    "DEEP",
    "PUBLIC_KEY",
    "SIGNED",
    "FuzzedTrust",
    "archives",
    "enrolment_answers",
    "envelopes",
    "frames",
    "manifest",
    "packages",
    "signature",
]

_FRAMES = Path(__file__).parents[1] / "contract" / "frames"
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_KEY_ID = b"\x01\x02\x03\x04\x05\x06\x07\x08"
PUBLIC_KEY = base64.b64encode(b"Ed" + _KEY_ID + _KEY.public_key().public_bytes_raw()).decode()


DEEP = b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"


class FuzzedTrust:
    """Trusts only the key of this module."""

    enrolment_id = "e1"
    valid_until = NoTrust.valid_until
    keys = (SigningKey(_KEY).public,)


SIGNED = (b'[{"action":"cancel","command_id":"a"}]', b'{"command_id":"a","digest":"d"}', b"[]")


def envelopes() -> list[bytes]:
    """Return envelopes signed by the server for web-01, one signed by another key, and ones nested too deeply."""
    scope = Scope("acm-server", "web-01", ("e1",), datetime(2026, 1, 1, tzinfo=UTC))
    deep = write_body(scope, b"[" * 5000 + b"]" * 5000)
    stranger = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    channels = (Channel.CONTROL, Channel.ACK, Channel.COMMAND)
    signed = [
        (payload_type(channel), write_body(scope, frame)) for channel, frame in zip(channels, SIGNED, strict=True)
    ]
    good = [seal(kind, body, [SigningKey(_KEY)]) for kind, body in signed]
    return [*good, seal(*signed[0], [stranger]), seal(payload_type(Channel.COMMAND), deep, [stranger]), DEEP]


def enrolment_answers() -> list[bytes]:
    """Return a response that grants the request, one that refuses it, and one nested too deeply."""
    answer = (Path(__file__).parent / "enrolment-answer.json").read_bytes()
    return [answer, b'{"message": "The token is unknown."}', DEEP]


def frames(prefix: str) -> list[bytes]:
    """Return the golden frames whose names have this prefix."""
    return [path.read_bytes() for path in sorted(_FRAMES.glob(f"{prefix}*.json"))]


def signature(message: bytes) -> bytes:
    """Return the signature that minisign writes for a message."""
    signed = _KEY.sign(hashlib.blake2b(message).digest())
    comment = "a comment"
    lines = [
        "untrusted comment: none",
        base64.b64encode(b"ED" + _KEY_ID + signed).decode(),
        f"trusted comment: {comment}",
        base64.b64encode(_KEY.sign(signed + comment.encode())).decode(),
    ]
    return "\n".join([*lines, ""]).encode()


def manifest(content: bytes = b"#!/bin/sh\n") -> bytes:
    """Return the manifest of a package with one program."""
    file = PackagedFile(hashlib.sha256(content).hexdigest(), len(content), executable=True)
    return render_manifest(Manifest(1, "agent-command-manager", "1.4.2", "any", {"bin/acm-agent": file}))


def packages() -> list[bytes]:
    """Return a signed package, zipped."""
    document = manifest()
    content = {MANIFEST: document, SIGNATURE: signature(document), f"{FILES}/bin/acm-agent": b"#!/bin/sh\n"}
    return [gzip.compress(_tar(content), 1, mtime=0)]


def archives() -> list[bytes]:
    """Return archives in the formats that tarfile writes, some of them hostile."""
    plain: list[bytes] = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        plain.append(_tar({"a.toml": b"x = 1\n", "d/b.toml": b"y", f"{'n' * 80}/{'m' * 60}": b"long name"}, kind))
    plain.append(_tar({"../out": b"x"}))
    plain.append(_links())
    return [*plain, gzip.compress(plain[0], 1, mtime=0)]


def _tar(content: Mapping[str, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue().rstrip(b"\0") + b"\0" * 1024


def _links() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, target in (
            ("d", tarfile.DIRTYPE, ""),
            ("l", tarfile.SYMTYPE, "/etc"),
            ("h", tarfile.LNKTYPE, "d"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return file.getvalue()
