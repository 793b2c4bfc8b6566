"""Verification of signatures made by the minisign tool itself, unchanged and changed."""

import base64
import subprocess
from pathlib import Path

import pytest

from broker.release.minisign import MinisignError, PublicKey, verify_signature
from tests.support.errors import raises_code

MESSAGE = b"a manifest\n"


def make_key(path: Path) -> PublicKey:
    argv = ["minisign", "-G", "-W", "-p", f"{path}.pub", "-s", f"{path}.key"]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return PublicKey.parse(Path(f"{path}.pub").read_text())


def sign(path: Path, *flags: str) -> str:
    message = path.with_name("message")
    message.write_bytes(MESSAGE)
    argv = ["minisign", "-S", "-s", f"{path}.key", "-m", str(message), "-t", "release of today", *flags]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return message.with_name("message.minisig").read_text()


@pytest.mark.parametrize("flags", [[], ["-l"]], ids=["prehashed", "legacy"])
def test_signature_made_by_minisign_is_verified(tmp_path: Path, flags: list[str]) -> None:
    ours, other = make_key(tmp_path / "ours"), make_key(tmp_path / "other")
    signature = verify_signature(MESSAGE, sign(tmp_path / "ours", *flags), [other, ours])
    assert (signature.key_id, signature.prehashed) == (ours.id, not flags)
    assert signature.trusted_comment == "release of today"
    assert (tmp_path / "ours.pub").read_text().splitlines()[0].endswith(f" {ours.id}")


@pytest.mark.parametrize("flags", [[], ["-l"]], ids=["prehashed", "legacy"])
def test_signature_of_another_message_or_comment_is_refused(tmp_path: Path, flags: list[str]) -> None:
    key = make_key(tmp_path / "ours")
    text = sign(tmp_path / "ours", *flags)
    with raises_code(MinisignError, "bad_signature"):
        verify_signature(MESSAGE + b"more", text, [key])
    with raises_code(MinisignError, "bad_signature"):
        verify_signature(MESSAGE, text.replace("today", "tomorrow"), [key])


def test_signature_with_changed_algorithm_is_refused(tmp_path: Path) -> None:
    key = make_key(tmp_path / "ours")
    lines = sign(tmp_path / "ours").splitlines()
    raw = base64.b64decode(lines[1])
    lines[1] = base64.b64encode(b"Ed" + raw[2:]).decode()
    with raises_code(MinisignError, "bad_signature"):
        verify_signature(MESSAGE, "\n".join(lines), [key])


def test_signature_by_an_unknown_key_is_refused_with_its_id(tmp_path: Path) -> None:
    ours, other = make_key(tmp_path / "ours"), make_key(tmp_path / "other")
    with raises_code(MinisignError, "unknown_key") as caught:
        verify_signature(MESSAGE, sign(tmp_path / "ours"), [other])
    assert ours.id in str(caught.value)


def test_signature_by_another_key_with_our_id_is_refused(tmp_path: Path) -> None:
    ours, other = make_key(tmp_path / "ours"), make_key(tmp_path / "other")
    with raises_code(MinisignError, "bad_signature"):
        verify_signature(MESSAGE, sign(tmp_path / "ours"), [PublicKey(ours.id, other.key)])


@pytest.mark.parametrize("text", ["", "x", "RWQ", "A" * 56, "RUQ" + "A" * 53])
def test_malformed_public_key_is_refused(text: str) -> None:
    with raises_code(MinisignError, "malformed"):
        PublicKey.parse(text)


def raw(algorithm: bytes) -> str:
    return base64.b64encode(algorithm + bytes(72)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\nb\nc\nd\n",
        "a\nRUQ\ntrusted comment: c\nd\n",
        f"a\n{raw(b'XX')}\ntrusted comment: c\nd\n",
        f"a\n{raw(b'ED')}\ntrusted comment: c\nd\n",
    ],
)
def test_malformed_signature_is_refused(text: str) -> None:
    with raises_code(MinisignError, "malformed"):
        verify_signature(MESSAGE, text, [])
