"""Which messages an agent accepts as its server's, and how it refuses everything else."""

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.contract.codec import encode
from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from broker.contract.dsse import Scope, SignatureError, SigningKey
from broker.contract.messages import Feedback, SequenceNumber
from broker.contract.states import ErrorCode, FeedbackKind
from broker.contract.topics import Channel
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.gaps import Gaps
from consumer.engine.receiver import CommandReceiver
from consumer.errors import EnrolmentError
from consumer.trust.side_by_side import SideBySide
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import NoTrust, Verifier
from tests.support.enrolled import signed
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.fakes.refusals import KeptRefusals, Receipt
from tests.support.makers import command, inbound
from tests.support.stored import all_commands

SERVER, OLD_SERVER, STRANGER = (SigningKey(Ed25519PrivateKey.generate()) for _ in range(3))
REPORTS = FeedbackFactory("web-01", "i1", "g1")
DEEP = base64.b64encode(b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}").decode()


class EnrolledTrust:
    enrolment_id = "e1"
    valid_until = NoTrust.valid_until
    keys = (OLD_SERVER.public, SERVER.public)


def scope(clock: TurnedClock) -> Scope:
    return Scope("acm-server", "web-01", ("e1",), clock.now())


def verifier(clock: TurnedClock, *, accept_unsigned: bool = False) -> Verifier:
    return Verifier("web-01", EnrolledTrust(), TrustedClock(clock), accept_unsigned=accept_unsigned)


def receive(store: MemoryCommandStore, clock: TurnedClock, payload: bytes, **options: Any) -> Receipt:
    refusals = KeptRefusals()
    gaps = Gaps(store, REPORTS, clock)
    receiver = CommandReceiver(store, REPORTS, clock, verifier(clock, **options), NoTrust(), refusals, gaps)
    return Receipt([item.feedback for item in receiver.receive([inbound(payload)])], refusals.refused)


def only(receipt: Receipt) -> Feedback:
    (said,) = receipt.feedback
    return said


def ids(store: MemoryCommandStore) -> list[str]:
    return [stored.command.id for stored in all_commands(store)]


def test_signed_command_is_stored(store: MemoryCommandStore, clock: TurnedClock) -> None:
    receive(store, clock, signed((SERVER,), scope(clock), encode([command("a", 1), command("b", 2)])))
    assert (ids(store), store.last_sequence) == (["a", "b"], SequenceNumber(7, 2))


def test_one_trusted_signature_is_enough(store: MemoryCommandStore, clock: TurnedClock) -> None:
    receive(store, clock, signed((STRANGER, OLD_SERVER), scope(clock), encode([command("a", 1)])))
    assert ids(store) == ["a"]


def test_every_trusted_signer_is_recorded(store: MemoryCommandStore, clock: TurnedClock) -> None:
    receive(store, clock, signed((STRANGER, SERVER, OLD_SERVER), scope(clock), encode([command("a", 1)])))
    (stored,) = all_commands(store)
    assert stored.signed_by == (OLD_SERVER.public.id, SERVER.public.id)


@pytest.mark.parametrize("keyid", ["", "unknown"])
def test_key_id_that_names_no_trusted_key_is_only_a_hint(
    store: MemoryCommandStore, clock: TurnedClock, keyid: str
) -> None:
    envelope = json.loads(signed((SERVER,), scope(clock), encode([command("a", 1)])))
    envelope["signatures"][0]["keyid"] = keyid
    receive(store, clock, json.dumps(envelope).encode())
    (stored,) = all_commands(store)
    assert stored.signed_by == (SERVER.public.id,)


def test_key_that_is_only_named_is_not_recorded_as_signer(store: MemoryCommandStore, clock: TurnedClock) -> None:
    envelope = json.loads(signed((STRANGER, OLD_SERVER), scope(clock), encode([command("a", 1)])))
    envelope["signatures"][0]["keyid"] = SERVER.public.id
    receive(store, clock, json.dumps(envelope).encode())
    (stored,) = all_commands(store)
    assert stored.signed_by == (OLD_SERVER.public.id,)


@pytest.mark.parametrize(
    ("signed_by", "unsigned", "good"),
    [
        (None, False, True),
        ((), True, True),
        ((), False, False),
        ((STRANGER.public.id, SERVER.public.id), False, True),
        ((STRANGER.public.id,), False, False),
        ((STRANGER.public.id,), True, False),
    ],
)
def test_pending_command_needs_one_signer_that_is_still_trusted(
    clock: TurnedClock, signed_by: tuple[str, ...] | None, unsigned: bool, good: bool
) -> None:
    assert (verifier(clock, accept_unsigned=unsigned).check_signers(signed_by) is None) is good


def plain(clock: TurnedClock) -> bytes:
    return encode([command("a", 1)])


def by_a_stranger(clock: TurnedClock) -> bytes:
    return signed((STRANGER,), scope(clock), plain(clock))


def by_nobody(clock: TurnedClock) -> bytes:
    return signed((), scope(clock), plain(clock))


def for_another_agent(clock: TurnedClock) -> bytes:
    return signed((SERVER,), replace(scope(clock), audience="web-02"), plain(clock))


def for_another_enrolment(clock: TurnedClock) -> bytes:
    return signed((SERVER,), replace(scope(clock), enrolments=("e0", "e2")), plain(clock))


def as_an_ack(clock: TurnedClock) -> bytes:
    return signed((SERVER,), scope(clock), plain(clock), Channel.ACK)


def under_the_name_of_a_trusted_key(clock: TurnedClock) -> bytes:
    envelope = json.loads(by_a_stranger(clock))
    envelope["signatures"][0]["keyid"] = SERVER.public.id
    return json.dumps(envelope).encode()


def with_another_payload(clock: TurnedClock) -> bytes:
    envelope = json.loads(signed((SERVER,), scope(clock), plain(clock)))
    payload = base64.b64decode(envelope["payload"]).replace(b"restart-agent", b"upgrade-agent")
    return json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}).encode()


REFUSED = [
    (plain, "unsigned", ()),
    (by_a_stranger, "untrusted", (STRANGER.public.id,)),
    (by_nobody, "untrusted", ("no key",)),
    (under_the_name_of_a_trusted_key, "untrusted", ()),
    (with_another_payload, "untrusted", ()),
    (as_an_ack, "wrong_type", ("'application/vnd.acm.ack+json'",)),
    (for_another_agent, "wrong_audience", ("'web-02'", "'web-01'")),
    (for_another_enrolment, "wrong_enrolment", ("'web-01'",)),
]


@pytest.mark.parametrize(("make", "code", "named"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_wrongly_signed_command_is_rejected_and_uses_no_number(
    store: MemoryCommandStore,
    clock: TurnedClock,
    make: Callable[[TurnedClock], bytes],
    code: str,
    named: tuple[str, ...],
) -> None:
    refusal = verifier(clock).open(Channel.COMMAND, make(clock)).refusal
    assert refusal is not None
    assert refusal.code == code
    result = only(receive(store, clock, make(clock)))
    assert (result.kind, result.command_id, result.code) == (FeedbackKind.RESULT, "a", ErrorCode.REJECTED)
    assert result.message == refusal.message
    assert [name in result.message for name in named] == [True] * len(named)
    assert (ids(store), store.last_sequence) == ([], None)


def test_signature_after_the_certificates_expiry_is_refused(clock: TurnedClock) -> None:
    trust = EnrolledTrust()
    trust.valid_until = clock.now()
    opened = Verifier("web-01", trust, TrustedClock(clock), accept_unsigned=False)
    late = replace(scope(clock), not_before=clock.now() + timedelta(days=1, seconds=1))
    refusal = opened.open(Channel.COMMAND, signed((SERVER,), late, plain(clock))).refusal
    assert refusal is not None
    assert refusal.code == "signed_after_expiry"


@pytest.mark.parametrize("make", [by_a_stranger, for_another_agent], ids=lambda value: value.__name__)
def test_wrong_signature_is_rejected_even_if_unsigned_is_accepted(
    store: MemoryCommandStore, clock: TurnedClock, make: Callable[[TurnedClock], bytes]
) -> None:
    assert only(receive(store, clock, make(clock), accept_unsigned=True)).code == ErrorCode.REJECTED
    assert only(receive(store, clock, plain(clock), accept_unsigned=True)).kind == FeedbackKind.ACCEPTED


def test_refused_repeat_of_a_known_command_is_answered_only(store: MemoryCommandStore, clock: TurnedClock) -> None:
    receive(store, clock, signed((SERVER,), scope(clock), encode([command("a", 1)])))
    again = replace(command("a", 1), sequence=SequenceNumber(8, 1))
    assert only(receive(store, clock, encode([again]))).kind == FeedbackKind.ACCEPTED
    assert store.last_sequence == SequenceNumber(7, 1)


def test_signed_command_without_a_number_is_rejected(store: MemoryCommandStore, clock: TurnedClock) -> None:
    refusal = only(receive(store, clock, signed((SERVER,), scope(clock), encode([command("a")]))))
    assert (refusal.code, "no sequence number" in refusal.message) == (ErrorCode.REJECTED, True)


@pytest.mark.parametrize(
    "broken",
    [
        {"payloadType": "application/vnd.acm.command+json", "payload": DEEP, "signatures": []},
        {"payloadType": "application/vnd.acm.command+json"},
        {"payloadType": "x", "payload": "", "signatures": [{"sig": "A" * 88}] * 9},
        {"payloadType": "application/vnd.acm.command+json", "payload": "***", "signatures": []},
        {"payloadType": "application/vnd.acm.command+json", "payload": "bm8=", "signatures": []},
        {"payloadType": "application/vnd.acm.command+json", "payload": "A" * 270_000, "signatures": []},
    ],
)
def test_malformed_envelope_is_reported_and_not_answered(
    store: MemoryCommandStore, clock: TurnedClock, broken: dict[str, Any]
) -> None:
    receipt = receive(store, clock, json.dumps(broken).encode(), accept_unsigned=True)
    assert (receipt.feedback, len(receipt.refused)) == ([], 1)


def test_slow_machine_clock_is_corrected_by_the_server(store: MemoryCommandStore, clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    opened = Verifier("web-01", EnrolledTrust(), time, accept_unsigned=False)
    later = replace(scope(clock), not_before=clock.now() + timedelta(days=1))
    opened.open(Channel.COMMAND, for_another_agent(clock))
    assert time.behind_s is None
    opened.open(Channel.ACK, signed((SERVER,), later, b"[]", Channel.ACK))
    assert (time.behind_s, time.now() - clock.now()) == (86400, timedelta(days=1))


def test_agent_that_is_not_enrolled_takes_no_signing_keys() -> None:
    with raises_code(EnrolmentError, "not_enrolled"):
        NoTrust().update(UpdateSigningKeys(1, ("key",)))


def test_frames_that_are_verified_side_by_side_are_judged_as_one_by_one(clock: TurnedClock) -> None:
    frame = encode([command("a", 1)])
    payloads = [
        signed((SERVER,), scope(clock), frame),
        b"[]",
        b'{"payloadType": "x"}',
        signed((STRANGER,), scope(clock), frame),
        signed((SERVER,), scope(clock), frame, Channel.ACK),
        signed((OLD_SERVER, SERVER), scope(clock), frame),
        signed((SERVER,), replace(scope(clock), audience="db-01"), frame),
    ]

    def outcome(opened: Verifier, payload: bytes) -> object:
        try:
            return opened.open(Channel.COMMAND, payload)
        except SignatureError as error:
            return error.code, str(error)

    one_by_one = verifier(clock)
    several = Verifier(
        "web-01",
        EnrolledTrust(),
        TrustedClock(clock),
        accept_unsigned=False,
        side_by_side=SideBySide(lambda work: threading.Thread(target=work).start(), 2),
    )
    several.verify_ahead(Channel.COMMAND, payloads)
    assert [outcome(several, it) for it in payloads] == [outcome(one_by_one, it) for it in payloads]


def test_what_was_verified_ahead_counts_for_its_channel_and_keys_alone(clock: TurnedClock) -> None:
    trust = EnrolledTrust()
    opened = Verifier("web-01", trust, TrustedClock(clock), accept_unsigned=False, side_by_side=SideBySide(no_help, 1))
    payload = signed((SERVER,), scope(clock), encode([command("a", 1)]))
    for channel, keys in ((Channel.ACK, trust.keys), (Channel.COMMAND, (OLD_SERVER.public,))):
        opened.verify_ahead(Channel.COMMAND, [payload] * 4)
        trust.keys = keys
        assert opened.open(channel, payload).refusal is not None


def no_help(work: Callable[[], None]) -> None:
    raise RuntimeError("can't start new thread")
