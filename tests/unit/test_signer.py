"""What the server signs, for whom, and with which keys."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.certificates import RevocationReason
from broker.config import ConfigurationError, load_config
from broker.contract.codec import MAX_FRAME_BYTES, decode_acks, decode_commands, decode_controls
from broker.contract.messages import Origin
from broker.contract.signing import (
    MAX_ENROLMENTS,
    MAX_SIGNATURES,
    MAX_SIGNED_FRAME_BYTES,
    Scope,
    SigningKey,
    open_envelope,
    payload_type,
    read_body,
)
from broker.contract.topics import Channel, Topics
from broker.enrolments import Enrolments
from broker.ledger import Ledger
from broker.mqtt import Delivery
from broker.server import Server
from broker.server_process import ServerProcess
from broker.signer import Signer
from broker.signing_keys import SigningKeyError, SigningKeys, create_signing_keys
from tests.enrolled import Registrar, signed
from tests.fakes.clock import TurnedClock
from tests.makers import NOW, result
from tests.unit.test_server import RememberingWire

KEY = SigningKey(Ed25519PrivateKey.generate())
ENROLMENTS = {"web-01": ["e2", "e1"]}


@pytest.fixture
def signer(clock: TurnedClock) -> Signer:
    return Signer(
        "acm-server",
        lambda: (KEY,),
        lambda agent: ENROLMENTS.get(agent, []),
        now=clock.now,
        monotonic=clock.monotonic,
    )


def opened(frame: bytes, channel: Channel) -> tuple[Scope, bytes]:
    return read_body(open_envelope(frame, payload_type(channel), [KEY.public]))


def test_commands_cancels_and_acks_are_signed_for_the_agents_enrolments(clock: TurnedClock, signer: Signer) -> None:
    ledger, wire = Ledger("sqlite://", now=clock.now), RememberingWire()
    server = Server(ledger, wire, Topics(), signer)
    sent = server.send_command("web-01", "restart-agent", {}, Origin("me", "test"))
    ledger.request_cancel(sent.id)
    server.step()
    feedback = json.dumps({**result(sent.id).to_dict(), "agent": "web-01"}).encode()
    server.receive([Delivery("acm/web-01/feedback", feedback, False, False, 1, 1)])
    scope, frame = opened(wire.on("command")[0], Channel.COMMAND)
    assert scope == Scope("acm-server", "web-01", ("e2", "e1"), clock.now())
    assert [it.id for it in decode_commands(frame, received_at=NOW, new_id=str)] == [sent.id]
    assert decode_controls(opened(wire.on("control")[0], Channel.CONTROL)[1])[0].command_id == sent.id
    assert decode_acks(opened(wire.on("ack")[0], Channel.ACK)[1])[0].command_id == sent.id
    ledger.close()


def test_an_agent_that_was_never_enrolled_is_spoken_to_unsigned(signer: Signer) -> None:
    assert signer.sign("web-02", Channel.COMMAND, b"[]") == b"[]"


def test_an_enrolment_is_looked_up_again_soon_and_a_missing_one_at_once(clock: TurnedClock) -> None:
    found: list[str] = []
    signer = Signer("s", lambda: (KEY,), lambda _: list(found), now=clock.now, monotonic=clock.monotonic)
    assert signer.sign("web-01", Channel.ACK, b"[]") == b"[]"
    found.append("e1")
    assert opened(signer.sign("web-01", Channel.ACK, b"[]"), Channel.ACK)[0].enrolments == ("e1",)
    found.append("e2")
    clock.turn(2.0)
    assert opened(signer.sign("web-01", Channel.ACK, b"[]"), Channel.ACK)[0].enrolments == ("e1", "e2")


def test_the_largest_signed_frame_is_a_frame(clock: TurnedClock) -> None:
    keys = tuple(SigningKey(Ed25519PrivateKey.generate()) for _ in range(MAX_SIGNATURES))
    scope = Scope("s" * 128, "a" * 63, tuple("e" * 36 for _ in range(MAX_ENROLMENTS)), clock.now())
    assert len(signed(keys, scope, b'"' + b"x" * (MAX_SIGNED_FRAME_BYTES - 2) + b'"')) <= MAX_FRAME_BYTES


def test_a_revoked_enrolment_and_one_that_is_over_are_not_signed_for(tmp_path: Path) -> None:

    registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db")
    first = registrar.enrol("web-01", tmp_path / "one", "mqtt://127.0.0.1")
    second = registrar.enrol("web-01", tmp_path / "two", "mqtt://127.0.0.1")
    clock = TurnedClock()
    book = Enrolments(registrar.ledger, now=clock.now)
    assert book.good_of("web-01") == [second, first]
    book.revoke(second, RevocationReason.UNSPECIFIED)
    assert book.good_of("web-01") == [first]
    clock.turn(400 * 86400)
    assert book.good_of("web-01") == []
    book.close()


def test_the_keys_are_secret_and_read_back(tmp_path: Path, clock: TurnedClock) -> None:
    create_signing_keys(tmp_path / "signing", clock.now())
    keys = SigningKeys(tmp_path / "signing")
    (entry,) = keys.entries
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "signing").iterdir()}
    assert modes == {"keys.json": 0o644, f"{entry.id}.key": 0o600}
    assert stat.S_IMODE((tmp_path / "signing").stat().st_mode) == 0o700
    assert [key.public.pem for key in keys.signing] == [entry.public] == list(keys.public)


def test_keys_are_never_overwritten(tmp_path: Path, clock: TurnedClock) -> None:
    create_signing_keys(tmp_path / "signing", clock.now())
    with pytest.raises(SigningKeyError, match="is not empty"):
        create_signing_keys(tmp_path / "signing", clock.now())


@pytest.mark.parametrize("name", ["keys.json", "{id}.key"])
@pytest.mark.parametrize(("content", "said"), [(b"no", "is damaged"), (None, r"acm keys (init|revoke)")])
def test_damaged_keys_are_one_sentence(
    tmp_path: Path, clock: TurnedClock, name: str, content: bytes | None, said: str
) -> None:
    create_signing_keys(tmp_path / "signing", clock.now())
    path = tmp_path / "signing" / name.format(id=SigningKeys(tmp_path / "signing").entries[0].id)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(SigningKeyError, match=said):
        SigningKeys(tmp_path / "signing")


def test_the_key_of_another_is_noticed(tmp_path: Path, clock: TurnedClock) -> None:
    for name in ("one", "two"):
        create_signing_keys(tmp_path / name, clock.now())
    one, two = (next((tmp_path / name).glob("*.key")) for name in ("one", "two"))
    one.write_bytes(two.read_bytes())
    with pytest.raises(SigningKeyError, match="is not the key that"):
        SigningKeys(tmp_path / "one")


def test_a_server_that_has_lost_its_keys_does_not_start_unsigned(tmp_path: Path) -> None:
    registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db")
    registrar.enrol("web-01", tmp_path / "state", "mqtt://127.0.0.1")
    flags = {"ledger": registrar.ledger, "ca": str(tmp_path / "another")}
    with pytest.raises(ConfigurationError, match="take nothing unsigned"):
        ServerProcess(load_config(None, flags, {}))


def test_each_key_signs(clock: TurnedClock) -> None:
    other = SigningKey(Ed25519PrivateKey.generate())
    signer = Signer("s", lambda: (KEY, other), lambda _: ["e1"], now=clock.now, monotonic=clock.monotonic)
    frame = signer.sign("web-01", Channel.ACK, b"[]")
    for key in (KEY, other):
        scope, _ = read_body(open_envelope(frame, payload_type(Channel.ACK), [key.public]))
        assert replace(scope, issuer="") == Scope("", "web-01", ("e1",), clock.now())
