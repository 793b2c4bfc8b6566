"""Signatures that the minisign tool itself has made, and what becomes of them when something is changed."""

import base64
import subprocess
from pathlib import Path

import pytest

from broker.release.minisign import MinisignError, PublicKey, verify_signature

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
def test_what_minisign_signs_is_right(tmp_path: Path, flags: list[str]) -> None:
    ours, other = make_key(tmp_path / "ours"), make_key(tmp_path / "other")
    signature = verify_signature(MESSAGE, sign(tmp_path / "ours", *flags), [other, ours])
    assert (signature.key_id, signature.prehashed) == (ours.id, not flags)
    assert signature.trusted_comment == "release of today"
    assert (tmp_path / "ours.pub").read_text().splitlines()[0].endswith(f" {ours.id}")


@pytest.mark.parametrize("flags", [[], ["-l"]], ids=["prehashed", "legacy"])
def test_another_message_or_another_comment_is_wrong(tmp_path: Path, flags: list[str]) -> None:
    key = make_key(tmp_path / "ours")
    text = sign(tmp_path / "ours", *flags)
    with pytest.raises(MinisignError, match=f"not one by the key {key.id} of what it stands beside"):
        verify_signature(MESSAGE + b"more", text, [key])
    with pytest.raises(MinisignError, match="not one by the key"):
        verify_signature(MESSAGE, text.replace("today", "tomorrow"), [key])


def test_the_algorithm_cannot_be_changed(tmp_path: Path) -> None:
    key = make_key(tmp_path / "ours")
    lines = sign(tmp_path / "ours").splitlines()
    raw = base64.b64decode(lines[1])
    lines[1] = base64.b64encode(b"Ed" + raw[2:]).decode()
    with pytest.raises(MinisignError, match="not one by the key"):
        verify_signature(MESSAGE, "\n".join(lines), [key])


def test_a_signature_by_another_key_names_that_key(tmp_path: Path) -> None:
    ours, other = make_key(tmp_path / "ours"), make_key(tmp_path / "other")
    with pytest.raises(MinisignError, match=f"by the key {ours.id}, which is none of the keys given"):
        verify_signature(MESSAGE, sign(tmp_path / "ours"), [other])


def test_a_key_with_the_id_of_ours_is_not_ours(tmp_path: Path) -> None:
    ours, other = make_key(tmp_path / "ours"), make_key(tmp_path / "other")
    with pytest.raises(MinisignError, match="not one by the key"):
        verify_signature(MESSAGE, sign(tmp_path / "ours"), [PublicKey(ours.id, other.key)])


@pytest.mark.parametrize("text", ["", "x", "RWQ", "A" * 56, "RUQ" + "A" * 53])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(MinisignError, match="is not a public key of minisign"):
        PublicKey.parse(text)


def raw(algorithm: bytes) -> str:
    return base64.b64encode(algorithm + bytes(72)).decode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has four lines"),
        ("a\nb\nc\nd\n", "has four lines"),
        ("a\nRUQ\ntrusted comment: c\nd\n", "'RUQ' is not a signature of minisign"),
        (f"a\n{raw(b'XX')}\ntrusted comment: c\nd\n", "is not a signature of minisign"),
        (f"a\n{raw(b'ED')}\ntrusted comment: c\nd\n", "'d' is not a signature of minisign"),
    ],
)
def test_what_is_no_signature_is_refused(text: str, says: str) -> None:
    with pytest.raises(MinisignError, match=says):
        verify_signature(MESSAGE, text, [])
