"""The messages that the server signs, the enrolments it signs for, and the keys it signs with."""

import json
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.app.config import ServerConfigurationError, load_config
from broker.app.credentials import open_enrolments, signer_of
from broker.app.factories import open_database
from broker.app.server import ServerProcess
from broker.contract.codec import MAX_FRAME_BYTES, decode_acks, decode_commands, decode_controls, to_json
from broker.contract.dsse import (
    MAX_ENROLMENTS,
    MAX_SIGNATURES,
    Scope,
    SigningKey,
    payload_type,
    read_body,
    read_envelope,
)
from broker.contract.limits import MAX_SIGNED_FRAME_BYTES
from broker.contract.messages import Origin, Status
from broker.contract.topics import Channel, Topics
from broker.enrolment.store import EnrolmentStore
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.pki.revocation_list import RevocationReason
from broker.server.server import Server
from broker.signing.key_list import SigningKeyError
from broker.signing.key_source import SigningKeySource
from broker.signing.key_store import SigningKeys, create_signing_keys
from broker.signing.recipient import Recipient
from broker.signing.signer import Signer
from tests.support.enrolled import Registrar, enrolled_by, signed
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, inbound_on, result
from tests.support.recorded import record_status
from tests.unit.broker.server.test_server import RememberingWire

KEY = SigningKey(Ed25519PrivateKey.generate())


class Fleet:
    """Agents as recipients, which a test may change. Counts the look-ups."""

    def __init__(self, **agents: Recipient) -> None:
        self.agents = {name.replace("_", "-"): recipient for name, recipient in agents.items()}
        self.look_ups = 0

    def __call__(self, agents: Iterable[str]) -> dict[str, Recipient]:
        self.look_ups += 1
        others = any(recipient.enrolments for recipient in self.agents.values())
        return {agent: self.agents.get(agent, Recipient(enrolments_exist=others)) for agent in agents}


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(web_01=Recipient(("e2", "e1")))


@pytest.fixture
def signer(clock: TurnedClock, fleet: Fleet) -> Signer:
    return Signer("acm-server", lambda: (KEY,), fleet, now=clock.now, monotonic=clock.monotonic)


def signed_by(key: SigningKey, frame: bytes, channel: Channel) -> bytes:
    envelope = read_envelope(frame)
    assert envelope is not None
    payload, _ = envelope.verify(payload_type(channel), [key.public])
    return payload


def opened(frame: bytes, channel: Channel) -> tuple[Scope, bytes]:
    return read_body(signed_by(KEY, frame, channel))


def test_commands_cancels_and_acks_are_signed_for_the_enrolments(clock: TurnedClock, signer: Signer) -> None:
    ledger, wire = Ledger(open_database("sqlite://"), now=clock.now), RememberingWire()
    server = Server(ledger, wire, Topics(), signer)
    sent = ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    server.step()
    ledger.request_cancel(sent.id)
    server.step()
    feedback = json.dumps({**to_json(result(sent.id)), "agent": "web-01"}).encode()
    server.receive([inbound_on("acm/web-01/feedback", feedback)])
    scope, frame = opened(wire.on("command")[0], Channel.COMMAND)
    assert scope == Scope("acm-server", "web-01", ("e2", "e1"), clock.now())
    assert [it.id for it in decode_commands(frame, received_at=NOW, new_id=str)] == [sent.id]
    assert decode_controls(opened(wire.on("control")[0], Channel.CONTROL)[1])[0].command_id == sent.id
    assert decode_acks(opened(wire.on("ack")[0], Channel.ACK)[1])[0].command_id == sent.id
    ledger.database.close()


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        (Recipient(accepts_unsigned=True, enrolments_exist=True), None),
        (Recipient(accepts_unsigned=False), "not_enrolled"),
        (Recipient(accepts_unsigned=False, enrolments_exist=True), "not_enrolled"),
        (Recipient(enrolments_exist=True), "status_unknown"),
        (Recipient(), None),
    ],
    ids=[
        "accepts it",
        "refuses it",
        "refuses it and is not alone",
        "unknown among enrolled ones",
        "no agent is enrolled",
    ],
)
def test_unenrolled_agent_gets_unsigned_frames_only_if_it_accepts_them(
    signer: Signer, fleet: Fleet, recipient: Recipient, code: str | None
) -> None:
    fleet.agents["web-02"] = recipient
    assert signer.sign("web-02", Channel.COMMAND, b"[]") == (None if code else b"[]")
    held = signer.held(["web-01", "web-02"])
    assert {agent: hold.code for agent, hold in held.items()} == ({"web-02": code} if code else {})


def test_enrolled_agent_never_gets_unsigned_frames_even_without_keys(clock: TurnedClock, fleet: Fleet) -> None:
    fleet.agents["web-01"] = Recipient(("e1",), accepts_unsigned=True)
    keys: list[SigningKey] = []
    signer = Signer("s", lambda: keys, fleet, now=clock.now, monotonic=clock.monotonic)
    assert signer.sign("web-01", Channel.ACK, b"[]") is None
    assert signer.held(["web-01"])["web-01"].code == "no_signing_keys"
    keys.append(KEY)
    assert signer.held(["web-01"]) == {}
    assert read_envelope(signer.sign("web-01", Channel.ACK, b"[]") or b"")


def test_enrolments_are_cached_briefly_and_missing_ones_not_at_all(
    clock: TurnedClock, fleet: Fleet, signer: Signer
) -> None:
    assert list(signer.held(["web-02"])) == ["web-02"]
    fleet.agents["web-02"] = Recipient(("e1",))
    assert signer.held(["web-02"]) == {}
    assert listed(signer, "web-02") == ("e1",)
    fleet.agents["web-02"] = Recipient(("e3", "e1"))
    clock.turn(2.0)
    assert listed(signer, "web-02") == ("e3", "e1")
    fleet.agents["web-02"] = Recipient(("e4", "e3", "e1"))
    assert signer.held(["web-02"], uncached=True) == {}
    assert listed(signer, "web-02") == ("e4", "e3", "e1")


def test_agents_of_a_step_are_looked_up_together(fleet: Fleet, signer: Signer) -> None:
    agents = [f"web-{number}" for number in range(50)]
    fleet.agents |= dict.fromkeys(agents, Recipient(("e1",)))
    for _ in range(3):
        assert signer.held(agents) == {}
        for agent in agents:
            signer.sign(agent, Channel.COMMAND, b"[]")
    assert fleet.look_ups == 1


def test_reported_enrolment_is_addressed_however_many_are_newer(fleet: Fleet, signer: Signer) -> None:
    newer = tuple(f"e{number}" for number in range(20, 1, -1))
    fleet.agents |= {
        "web-02": Recipient((*newer, "e1"), enrolment_id="e1"),
        "web-03": Recipient((*newer, "e1"), enrolment_id="of-another"),
    }
    assert listed(signer, "web-02") == ("e1", *newer[: MAX_ENROLMENTS - 1])
    assert listed(signer, "web-03") == newer[:MAX_ENROLMENTS]


def listed(signer: Signer, agent: str) -> tuple[str, ...]:
    return opened(signer.sign(agent, Channel.ACK, b"[]") or b"", Channel.ACK)[0].enrolments


def test_largest_signed_frame_fits_a_frame(clock: TurnedClock) -> None:
    keys = tuple(SigningKey(Ed25519PrivateKey.generate()) for _ in range(MAX_SIGNATURES))
    scope = Scope("s" * 128, "a" * 63, tuple("e" * 36 for _ in range(MAX_ENROLMENTS)), clock.now())
    assert len(signed(keys, scope, b'"' + b"x" * (MAX_SIGNED_FRAME_BYTES - 2) + b'"')) <= MAX_FRAME_BYTES


def test_expired_enrolment_is_addressed_and_revoked_one_is_not(tmp_path: Path) -> None:
    """The broker rejects expired certificates; sending unsigned frames instead would lose the queued commands."""
    clock = TurnedClock()
    registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db", clock.now)
    first = registrar.enroll("web-01", tmp_path / "one", "mqtt://127.0.0.1")
    clock.turn(1)
    second = registrar.enroll("web-01", tmp_path / "two", "mqtt://127.0.0.1")
    database = open_database(registrar.ledger)
    enrolments, ledger = EnrolmentStore(database, now=clock.now), Ledger(database, now=clock.now)
    assert enrolments.recipients(["web-01", "web-02"]) == {
        "web-01": Recipient((second, first), enrolments_exist=True),
        "web-02": Recipient(enrolments_exist=True),
    }
    enrolments.revoke_enrolment(second, RevocationReason.UNSPECIFIED)
    clock.turn(400 * 86400)
    record_status(ledger, Status("web-01", True, "1", "i1", "b1", "g1", enrolment_id=first))
    assert enrolments.recipients(["web-01"])["web-01"] == Recipient((first,), False, first, True)
    enrolments.revoke_enrolment(first, RevocationReason.UNSPECIFIED)
    assert enrolments.recipients(["web-01"])["web-01"] == Recipient((), False, first, True)
    database.close()


def test_signing_keys_are_secret_and_read_back(tmp_path: Path, clock: TurnedClock) -> None:
    create_signing_keys(tmp_path / "signing", clock.now())
    keys = SigningKeys(tmp_path / "signing")
    (entry,) = keys.entries
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "signing").iterdir()}
    assert modes == {"keys.json": 0o644, f"{entry.id}.key": 0o600}
    assert stat.S_IMODE((tmp_path / "signing").stat().st_mode) == 0o700
    assert [key.public.pem for key in keys.signing] == [entry.public] == list(keys.update.keys)


def test_signing_keys_are_never_overwritten(tmp_path: Path, clock: TurnedClock) -> None:
    create_signing_keys(tmp_path / "signing", clock.now())
    with raises_code(SigningKeyError, "directory_not_empty"):
        create_signing_keys(tmp_path / "signing", clock.now())


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("keys.json", b"no", "damaged_signing_keys"),
        ("keys.json", None, "no_signing_keys"),
        ("{id}.key", b"no", "damaged_signing_key"),
        ("{id}.key", None, "missing_signing_key"),
    ],
)
def test_damaged_or_missing_key_files_are_rejected(
    tmp_path: Path, clock: TurnedClock, name: str, content: bytes | None, code: str
) -> None:
    create_signing_keys(tmp_path / "signing", clock.now())
    path = tmp_path / "signing" / name.format(id=SigningKeys(tmp_path / "signing").entries[0].id)
    path.unlink() if content is None else path.write_bytes(content)
    with raises_code(SigningKeyError, code) as caught:
        SigningKeys(tmp_path / "signing")
    assert str(path.parent if code == "no_signing_keys" else path) in str(caught.value)


def test_key_file_of_another_directory_is_rejected(tmp_path: Path, clock: TurnedClock) -> None:
    for name in ("one", "two"):
        create_signing_keys(tmp_path / name, clock.now())
    one, two = (next((tmp_path / name).glob("*.key")) for name in ("one", "two"))
    one.write_bytes(two.read_bytes())
    with raises_code(SigningKeyError, "mismatched_signing_key"):
        SigningKeys(tmp_path / "one")


def test_server_without_its_keys_does_not_start_if_agents_are_enrolled(tmp_path: Path) -> None:
    registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db")
    registrar.enroll("web-01", tmp_path / "state", "mqtt://127.0.0.1")
    flags = {"ledger": registrar.ledger, "ca": str(tmp_path / "another")}
    with raises_code(ServerConfigurationError, "lost_signing_keys"):
        ServerProcess(load_config(None, flags, {}))


def test_keys_created_while_the_server_runs_are_used(tmp_path: Path) -> None:
    config = load_config(None, {"ledger": f"sqlite:///{tmp_path}/ledger.db", "ca": str(tmp_path / "ca")}, {})
    with open_enrolments(config) as enrolments:
        signer = signer_of(config, enrolments)
        assert signer.sign("web-01", Channel.COMMAND, b"[]") == b"[]"
        registrar = Registrar(tmp_path / "ca", config.ledger)
        registrar.enroll("web-01", tmp_path / "state", "mqtt://127.0.0.1")
        assert signer.held(["web-01"]) == {}
        assert read_envelope(signer.sign("web-01", Channel.COMMAND, b"[]") or b"")


def test_inaccessible_key_directory_is_reported() -> None:
    with raises_code(SigningKeyError, "inaccessible_signing_keys") as caught:
        SigningKeySource(Path("/" + "x" * 1000))()
    assert "File name too long" in str(caught.value)


def test_each_key_signs(clock: TurnedClock) -> None:
    other = SigningKey(Ed25519PrivateKey.generate())
    signer = Signer("s", lambda: (KEY, other), enrolled_by("e1"), now=clock.now, monotonic=clock.monotonic)
    frame = signer.sign("web-01", Channel.ACK, b"[]") or b""
    for key in (KEY, other):
        scope, _ = read_body(signed_by(key, frame, Channel.ACK))
        assert replace(scope, issuer="") == Scope("", "web-01", ("e1",), clock.now())
