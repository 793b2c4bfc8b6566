"""Which keys an agent trusts, and what happens to commands while these change."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.app.factories import open_database
from broker.contract.codec import encode
from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys, UpdateSigningKeysData
from broker.contract.dsse import Scope, SigningKey
from broker.contract.messages import Command, Feedback, Origin, SequenceNumber, Status
from broker.contract.states import ErrorCode, FeedbackKind, State
from broker.contract.topics import Topics
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from broker.server.server import Server
from broker.signing.key_store import SigningKeys, create_signing_keys
from broker.signing.signer import Signer
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.gaps import Gaps
from consumer.engine.receiver import CommandReceiver
from consumer.engine.start_check import StartCheck
from consumer.enrolment.keys import new_key
from consumer.enrolment.store import CertifiedGrant, Enrolment, EnrolmentDirectory, Grant
from consumer.enrolment.trusted_keys import EnrolmentTrust
from consumer.errors import EnrolmentError
from consumer.handler import Context, Result
from consumer.handlers.update_signing_keys import handler
from consumer.ports import StoredCommand
from consumer.services import NoService
from consumer.trust.refusal import Refusal
from consumer.trust.side_by_side import SideBySide
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import Verifier
from tests.support.enrolled import enrolled_by, signed
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.fakes.refusals import KeptRefusals, Receipt
from tests.support.makers import NOW, command, inbound, inbound_on
from tests.support.recorded import record_status
from tests.support.stored import all_commands
from tests.support.unmatched_results import unmatched_results
from tests.unit.broker.server.test_server import RememberingWire

A, B, C = (SigningKey(Ed25519PrivateKey.generate()) for _ in range(3))


def pems(*keys: SigningKey) -> tuple[str, ...]:
    return tuple(key.public.pem for key in keys)


def ids(*keys: SigningKey) -> tuple[str, ...]:
    return tuple(key.public.id for key in keys)


def says(version: int, *keys: SigningKey) -> UpdateSigningKeys:
    return UpdateSigningKeys(version, pems(*keys))


GRANT = Grant("web-01", "e1", "https://acm", "mqtts://acm", "acm", pems(A), NOW, NOW + timedelta(days=30), "t" * 64, 5)


def add(enrolments: EnrolmentDirectory, name: str = "1", grant: Grant = GRANT) -> Enrolment:
    added = enrolments.add(CertifiedGrant(grant, name, "certificate", "ca"), new_key())
    enrolments.make_current(name)
    return added


@pytest.fixture
def enrolments(tmp_path: Path) -> EnrolmentDirectory:
    found = EnrolmentDirectory(tmp_path)
    add(found)
    return found


def trust_of(enrolments: EnrolmentDirectory) -> EnrolmentTrust:
    """The trust of an agent that starts now."""
    current = enrolments.current()
    assert current is not None
    return EnrolmentTrust(enrolments, current)


@pytest.fixture
def trust(enrolments: EnrolmentDirectory) -> EnrolmentTrust:
    return trust_of(enrolments)


def known(trust: EnrolmentTrust) -> tuple[Any, ...]:
    return trust.version, tuple(trust.key_ids)


def test_update_of_the_keys_applies_at_once_and_after_a_restart(
    enrolments: EnrolmentDirectory, trust: EnrolmentTrust
) -> None:
    assert known(trust) == (5, ids(A))
    trust.update(says(6, A, B))
    assert known(trust) == known(trust_of(enrolments)) == (6, ids(A, B))


@pytest.mark.parametrize("version", [4, 5])
def test_older_key_list_changes_nothing(enrolments: EnrolmentDirectory, trust: EnrolmentTrust, version: int) -> None:
    trust.update(says(version, B))
    assert known(trust) == known(trust_of(enrolments)) == (5, ids(A))


def test_list_with_an_invalid_key_changes_nothing(enrolments: EnrolmentDirectory, trust: EnrolmentTrust) -> None:
    done = execute(trust, UpdateSigningKeys(6, (*pems(B), "no key")))
    assert done.code == ErrorCode.INVALID
    assert known(trust) == known(trust_of(enrolments)) == (5, ids(A))


def test_renewal_replaces_the_keys_only_by_a_newer_list(enrolments: EnrolmentDirectory, trust: EnrolmentTrust) -> None:
    trust.update(says(6, A, B))
    trust.renewed(GRANT)
    assert known(trust) == (6, ids(A, B))
    newer = replace(GRANT, signing_keys=pems(B), signing_keys_version=7)
    add(enrolments, "2", newer)
    trust.renewed(newer)
    assert known(trust) == known(trust_of(enrolments)) == (7, ids(B))
    trust.update(says(8, B, C))
    assert known(trust_of(enrolments)) == (8, ids(B, C))


def test_new_enrolment_begins_with_the_keys_of_its_grant(enrolments: EnrolmentDirectory, trust: EnrolmentTrust) -> None:
    trust.update(says(9, A, B))
    other = replace(GRANT, enrolment_id="e2", signing_keys=pems(C), signing_keys_version=2)
    add(enrolments, "2", other)
    enrolments.keep_only("2")
    assert known(trust_of(enrolments)) == (2, ids(C))
    trust.renewed(other)
    assert (trust.enrolment_id, known(trust)) == ("e2", (2, ids(C)))


def test_stored_keys_survive_removal_of_other_enrolments(enrolments: EnrolmentDirectory, trust: EnrolmentTrust) -> None:
    trust.update(says(6, A, B))
    enrolments.keep_only("1")
    assert known(trust_of(enrolments)) == (6, ids(A, B))


def test_grant_of_an_earlier_version_is_readable(enrolments: EnrolmentDirectory, tmp_path: Path) -> None:
    path = tmp_path / "enrolment" / "enrolments" / "1" / "enrolment.json"
    old = msgspec.json.decode(path.read_bytes())
    del old["signing_keys_version"]
    path.write_bytes(msgspec.json.encode(old))
    assert known(trust_of(enrolments)) == (0, ids(A))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "enrolment_unreadable"),
        (b'{"enrolment_id": "e1", "version": 9, "keys": ["no key"]}', "invalid_signing_keys"),
    ],
)
def test_damaged_key_list_is_an_error(
    enrolments: EnrolmentDirectory, tmp_path: Path, content: bytes, code: str
) -> None:
    (tmp_path / "enrolment" / "signing-keys.json").write_bytes(content)
    with raises_code(EnrolmentError, code):
        trust_of(enrolments)


def execute(trust: EnrolmentTrust, said: UpdateSigningKeys, sent: Command | None = None) -> Result:
    around = Context(TurnedClock(), NoService(), Path("/nowhere"))
    done = handler(trust).execute(sent or command("a", command_type=UPDATE_SIGNING_KEYS), said, around)
    assert isinstance(done, Result)
    return done


def test_result_of_an_update_lists_the_trusted_keys(trust: EnrolmentTrust) -> None:
    done = execute(trust, says(6, A, B))
    assert (done.code, done.data) == (None, UpdateSigningKeysData(6, ids(A, B)))
    assert execute(trust, says(6, A, B)) == done, "run again after a crash"
    older = execute(trust, says(5, C))
    assert (older.code, older.data) == (None, done.data)


def test_empty_key_list_is_invalid(trust: EnrolmentTrust) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"version": 6, "keys": []}, UpdateSigningKeys)


# -- on the wire


class Agent:
    """Receives for web-01."""

    def __init__(
        self, trust: EnrolmentTrust, *, accept_unsigned: bool = False, side_by_side: SideBySide | None = None
    ) -> None:
        self.store = MemoryCommandStore()
        clock = TurnedClock()
        verifier = Verifier(
            "web-01", trust, TrustedClock(clock), accept_unsigned=accept_unsigned, side_by_side=side_by_side
        )
        self._refusals = KeptRefusals()
        feedback = FeedbackFactory("web-01", "i1", "g1")
        gaps = Gaps(self.store, feedback, clock)
        self._receiver = CommandReceiver(self.store, feedback, clock, verifier, trust, self._refusals, gaps)

    def receive(self, *frames: bytes) -> Receipt:
        self._refusals.refused.clear()
        received = self._receiver.receive([inbound(frame, mid=mid) for mid, frame in enumerate(frames, 1)])
        return Receipt([item.feedback for item in received], [*self._refusals.refused])

    @property
    def stored(self) -> list[str]:
        return [stored.command.id for stored in all_commands(self.store)]


@pytest.fixture(params=["one by one", "side by side"])
def agent(trust: EnrolmentTrust, request: pytest.FixtureRequest) -> Agent:
    return Agent(trust, side_by_side=SideBySide(on_a_thread, 2) if request.param == "side by side" else None)


def on_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work).start()


def update(name: str, number: int, said: UpdateSigningKeys, **changes: Any) -> Command:
    parameters = msgspec.to_builtins(said)
    return replace(command(name, number, UPDATE_SIGNING_KEYS), parameters=parameters, **changes)


def frame(said: Command, *keys: SigningKey) -> bytes:
    return signed(keys, Scope("acm-server", "web-01", ("e1",), NOW), encode([said]))


def test_messages_after_an_update_are_verified_with_the_new_keys(agent: Agent, trust: EnrolmentTrust) -> None:
    """All messages waited at the broker while the agent was offline: rotation, revocation, commands between."""
    receipt = agent.receive(
        frame(command("a", 1), A),
        frame(update("u", 2, says(6, A, B)), A, B),
        frame(command("b", 3), A, B),
        frame(update("v", 4, says(7, B)), B),
        frame(command("c", 5), B),
        frame(command("d", 6), A),
    )
    assert agent.stored == ["a", "u", "b", "v", "c"]
    assert known(trust) == (7, ids(B))
    refusal = receipt.feedback[-1]
    assert (refusal.command_id, refusal.code) == ("d", ErrorCode.REJECTED)
    assert (refusal.data, [it.message for it in receipt.refused]) == ({"refused": "message"}, [refusal.message])


def test_known_command_with_a_revoked_signature_is_answered(agent: Agent, trust: EnrolmentTrust) -> None:
    agent.receive(frame(command("a", 1), A))
    trust.update(says(6, B))
    (said,) = agent.receive(frame(command("a", 1), A)).feedback
    assert (said.kind, said.command_id) == (FeedbackKind.ACCEPTED, "a")


@pytest.mark.parametrize(
    "said",
    [
        update("u", 1, says(6, B), expires_at=NOW - timedelta(days=90)),
        replace(update("u", 1, says(6, B)), parameters={"version": 6, "keys": ["no key"]}),
        replace(update("u", 1, says(6, B)), parameters={}),
    ],
    ids=["expired", "malformed", "without parameters"],
)
def test_update_that_would_not_run_is_not_applied_on_arrival(
    agent: Agent, trust: EnrolmentTrust, said: Command
) -> None:
    agent.receive(frame(said, A))
    assert known(trust) == (5, ids(A))


EPOCH = 2**50
DAY_MS = 86_400_000
SIGNED_MS = int(NOW.timestamp() * 1000)


def test_attacker_with_a_key_cannot_block_its_revocation(agent: Agent, trust: EnrolmentTrust) -> None:
    """The attacker has A and signs anything with it; only B signs the lists that revoke A."""
    trust.update(says(6, A, B))
    agent.receive(*[frame(command(f"attacker{number}", number), A) for number in (1, 2, 3)])
    late = agent.receive(frame(update("late", 2, says(7, B, C)), B)).feedback[0]
    assert (late.code, "version 7" in late.message, known(trust)) == (ErrorCode.SUPERSEDED, True, (7, ids(B, C)))
    trust.update(says(8, A, B))
    agent.receive(frame(replace(command("attacker4"), sequence=SequenceNumber(SIGNED_MS, 1)), A))
    assert agent.receive(frame(update("ended", 4, says(9, B, C)), B)).feedback == []
    assert known(trust) == (9, ids(B, C))
    trust.update(says(10, A, B))
    agent.receive(frame(replace(command("taken"), sequence=SequenceNumber(SIGNED_MS, 2)), A))
    agent.receive(frame(update("taken", 3, says(11, B, C)), B))
    assert known(trust) == (11, ids(B, C))
    agent.store.remember_cancel("cancelled", NOW + timedelta(days=8))
    agent.receive(frame(update("cancelled", 4, says(12, B)), B))
    assert known(trust) == (12, ids(B))


def test_epoch_far_ahead_is_refused_and_ends_no_epoch(agent: Agent) -> None:
    agent.receive(frame(command("a", 1), A))
    receipt = agent.receive(frame(replace(command("attacker"), sequence=SequenceNumber(EPOCH, 1)), A))
    (said,) = receipt.feedback
    assert (said.code, said.data) == (ErrorCode.REJECTED, {"refused": "message"})
    assert [it.message for it in receipt.refused] == [said.message], "the status shows it"
    agent.receive(frame(command("b", 2), A))
    assert (agent.stored, agent.store.last_sequence) == (["a", "b"], SequenceNumber(7, 2))


def test_server_can_step_past_the_agents_epoch(agent: Agent) -> None:
    """As after an attack with a stolen key, or with a clock that was set back."""
    far = SIGNED_MS + 365 * DAY_MS
    agent.receive(frame(replace(command("a"), sequence=SequenceNumber(far, 1)), A))
    agent.receive(frame(replace(command("b"), sequence=SequenceNumber(far + 1, 1)), A))
    assert agent.stored == ["a", "b"]


def test_key_list_with_a_version_far_ahead_is_refused(agent: Agent, trust: EnrolmentTrust) -> None:
    """Otherwise no list of the server, from a command or a renewal, would be newer."""
    receipt = agent.receive(frame(update("attacker", 1, says(SIGNED_MS + DAY_MS + 1, C)), A))
    assert [said.code for said in receipt.feedback] == [ErrorCode.REJECTED]
    assert (agent.stored, known(trust), len(receipt.refused)) == ([], (5, ids(A)), 1)
    agent.receive(frame(update("u", 1, says(SIGNED_MS + DAY_MS, A, B)), A))
    assert known(trust) == (SIGNED_MS + DAY_MS, ids(A, B))


def test_message_signed_after_the_certificate_expires_is_refused(agent: Agent, trust: EnrolmentTrust) -> None:
    """Otherwise the signed time would bound nothing: the signer chooses it."""

    def signed_at(end: timedelta) -> Receipt:
        scope = Scope("acm-server", "web-01", ("e1",), NOW + end)
        return agent.receive(signed((A,), scope, encode([command("a", 1)])))

    late = timedelta(days=31, seconds=1)
    assert len(signed_at(late).refused) == 1
    assert agent.stored == []
    trust.renewed(replace(GRANT, not_after=NOW + timedelta(days=60)))
    signed_at(late)
    assert agent.stored == ["a"]


def test_update_expired_by_the_servers_clock_is_not_applied(agent: Agent, trust: EnrolmentTrust) -> None:
    expiring = update("u", 1, says(6, B), expires_at=NOW + timedelta(days=2))
    agent.receive(signed((A,), Scope("acm-server", "web-01", ("e1",), NOW + timedelta(days=3)), encode([expiring])))
    assert known(trust) == (5, ids(A))


@pytest.mark.parametrize("cancelled", [True, False])
def test_update_applied_on_arrival_is_never_reported_as_not_begun(trust: EnrolmentTrust, cancelled: bool) -> None:
    said = update("u", 1, says(6, B), expires_at=NOW - timedelta(days=90))
    trust.update(says(6, B))
    stored = StoredCommand("c/1", said, State.PENDING, NOW)
    check = StartCheck(TurnedClock(), lambda signed_by: Refusal("signers_revoked", "Revoked."))
    assert check.unfit(stored, was_cancelled=cancelled) is None
    assert execute(trust, says(6, B), said).data == UpdateSigningKeysData(6, ids(B))
    assert execute(trust, says(7, C), said).code == ErrorCode.EXPIRED, "its arrival changed nothing"
    assert known(trust) == (6, ids(B))


def test_keys_are_never_accepted_from_an_unsigned_message(trust: EnrolmentTrust) -> None:
    agent = Agent(trust, accept_unsigned=True)
    (refusal,) = agent.receive(encode([update("u", 1, says(6, C))])).feedback
    assert refusal.code == ErrorCode.REJECTED
    (refusal,) = agent.receive(frame(update("u", 1, says(6, C)), C)).feedback
    assert refusal.code == ErrorCode.REJECTED
    assert (agent.stored, known(trust)) == ([], (5, ids(A)))
    agent.receive(encode([command("a", 1)]))
    assert agent.stored == ["a"]


# -- what the server does with refusals


class Sender:
    """A server that signs with the keys of a directory, and its ledger."""

    def __init__(self, directory: Path) -> None:
        self.clock = TurnedClock()
        create_signing_keys(directory, self.clock.now())
        self.keys = SigningKeys(directory)
        self.ledger = Ledger(open_database("sqlite://"), now=self.clock.now)
        self.wire = RememberingWire()
        signer = Signer(
            "acm-server",
            lambda: self.keys.signing,
            enrolled_by("e1"),
            now=self.clock.now,
            monotonic=self.clock.monotonic,
        )
        self.server = Server(self.ledger, self.wire, Topics(), signer)
        record_status(self.ledger, Status("web-01", True, "1", "i1", "b1", "g1"))

    def send(self) -> str:
        sent = self.ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test"))).id
        self.server.step()
        return sent

    def receives(self, *said: Feedback) -> None:
        self.server.receive([inbound_on("acm/web-01/feedback", encode(said))])

    def state(self, sent: str) -> CommandState:
        return self.ledger.get(sent).state

    @property
    def on_the_wire(self) -> list[bytes]:
        return self.wire.on("/command")


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    sender = Sender(tmp_path / "signing")
    yield sender
    sender.ledger.database.close()


def granted_by(sender: Sender, state: Path) -> EnrolmentTrust:
    """The trust of an agent whose grant has the sender's present keys."""
    state.mkdir(mode=0o700)
    enrolments, now = EnrolmentDirectory(state), sender.keys.update
    add(enrolments, "1", replace(GRANT, signing_keys=now.keys, signing_keys_version=now.version))
    return trust_of(enrolments)


def test_command_refused_for_its_old_signature_is_resent_and_runs(sender: Sender, tmp_path: Path) -> None:
    """The broker held it while the keys changed, and a renewal brought the new keys before it arrived.

    If the refusal were its result, the ledger would say rejected while the agent runs the resent command.
    """
    trust = granted_by(sender, tmp_path / "agent")
    agent = Agent(trust)
    sent = sender.send()
    kept = sender.on_the_wire
    (old,) = sender.keys.entries
    sender.keys.rotate(sender.clock.now())
    sender.keys.revoke(old.id, sender.clock.now())
    now = sender.keys.update
    trust.renewed(replace(GRANT, signing_keys=now.keys, signing_keys_version=now.version))
    receipt = agent.receive(*kept)
    assert [said.code for said in receipt.feedback] == [ErrorCode.REJECTED]
    sender.receives(*receipt.feedback)
    assert (sender.state(sent), unmatched_results(sender.ledger)) == (CommandState.SENT, [])
    sender.clock.turn(2)
    sender.server.step()
    receipt = agent.receive(*sender.on_the_wire)
    assert agent.stored == [sent]
    sender.receives(*receipt.feedback)
    assert sender.state(sent) == CommandState.ACCEPTED


def test_refusal_of_an_unknown_command_is_stored_as_unmatched(sender: Sender, tmp_path: Path) -> None:
    agent = Agent(granted_by(sender, tmp_path / "agent"))
    sender.receives(*agent.receive(frame(command("forged", 1), C)).feedback)
    (stray,) = unmatched_results(sender.ledger)
    assert (stray["command_id"], stray["code"]) == ("forged", "rejected")


def test_rejection_of_the_command_itself_is_its_result(sender: Sender) -> None:
    sent = sender.send()
    said = FeedbackFactory("web-01", "i1", "g1").result(
        command(sent), Result("The agent leaves.", code=ErrorCode.REJECTED), NOW
    )
    sender.receives(said.feedback)
    assert sender.state(sent) == CommandState.COMPLETED


def test_refused_message_is_not_a_result_of_an_unsigned_command(trust: EnrolmentTrust) -> None:
    """For example, if the agent is enrolled and the ledger was restored from an older backup."""
    ledger, wire = Ledger(open_database("sqlite://"), now=TurnedClock().now), RememberingWire()
    server = Server(ledger, wire, Topics())
    sent = ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test"))).id
    server.step()
    said = Agent(trust).receive(*wire.on("/command")).feedback
    server.receive([inbound_on("acm/web-01/feedback", encode(said))])
    assert (ledger.get(sent).state, wire.on("/ack")) == (CommandState.SENT, [])
    ledger.database.close()
