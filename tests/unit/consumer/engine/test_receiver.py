"""What the receiver takes in, refuses and remembers."""

import json
from typing import Any

from structlog.testing import capture_logs

from broker.contract.messages import Feedback, SequenceNumber
from broker.contract.states import ErrorCode, FeedbackKind, Outcome, State
from broker.mqtt.inbound import Inbound
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.gaps import Gaps
from consumer.engine.receiver import CommandReceiver
from consumer.engine.refusals import Refusals
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import NoTrust, Verifier
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.fakes.refusals import KeptRefusals
from tests.support.makers import NOW, inbound, result, stored_result
from tests.support.stored import all_commands

REPORTS = FeedbackFactory("web-01", "i1", "g1")


def receiver(
    store: MemoryCommandStore,
    refusals: Refusals | None = None,
    *,
    accept_unsigned: bool = True,
    gaps: Gaps | None = None,
) -> CommandReceiver:
    verifier = Verifier("web-01", NoTrust(), TrustedClock(TurnedClock()), accept_unsigned=accept_unsigned)
    gaps = gaps or Gaps(store, REPORTS, TurnedClock())
    return CommandReceiver(store, REPORTS, TurnedClock(), verifier, NoTrust(), refusals or KeptRefusals(), gaps)


def message(name: str, number: int | None = None, epoch: int = 7) -> dict[str, Any]:
    said: dict[str, Any] = {
        "id": name,
        "type": "restart-agent",
        "parameters": {},
        "origin": {"name": "n", "module": "m"},
        "created_at": "2026-01-02T00:00:00Z",
    }
    return said | ({"sequence": {"epoch": epoch, "number": number}} if number else {})


def delivery(said: Any, **members: Any) -> Inbound:
    return inbound(said if isinstance(said, bytes) else json.dumps(said).encode(), **members)


def receive(store: MemoryCommandStore, *said: Any, accept_unsigned: bool = True) -> list[Feedback]:
    clock = TurnedClock()
    gaps = Gaps(store, REPORTS, clock)
    takes = receiver(store, accept_unsigned=accept_unsigned, gaps=gaps)
    received = takes.receive([delivery(item) for item in said])
    clock.turn(0.04)
    return [item.feedback for item in (*gaps.take_due(), *received)]


def ids(store: MemoryCommandStore) -> list[str]:
    return [stored.command.id for stored in all_commands(store)]


def test_commands_in_sequence_are_stored_and_accepted(store: MemoryCommandStore) -> None:
    said = receive(store, message("a", 1), [message("b", 2), message("c", 3)])
    assert ids(store) == ["a", "b", "c"]
    assert [(item.kind, item.command_id) for item in said] == [(FeedbackKind.ACCEPTED, name) for name in "abc"]
    assert store.last_sequence == SequenceNumber(7, 3)


def test_command_after_a_gap_is_not_stored_and_the_expected_number_is_sent(store: MemoryCommandStore) -> None:
    (gap,) = receive(store, message("c", 3))
    assert (gap.kind, gap.expected, gap.sequence) == (FeedbackKind.GAP, 1, SequenceNumber(7, 3))
    assert ids(store) == []


def test_new_epoch_begins_at_number_one(store: MemoryCommandStore) -> None:
    receive(store, message("a", 1), message("b", 2))
    (gap,) = receive(store, message("d", 2, epoch=8))
    assert gap.expected == 1
    receive(store, message("c", 1, epoch=8))
    assert store.last_sequence == SequenceNumber(8, 1)


def test_command_of_an_ended_epoch_is_ignored(store: MemoryCommandStore) -> None:
    receive(store, message("a", 1))
    refusals = KeptRefusals()
    assert receiver(store, refusals).receive([delivery(message("x", 2, epoch=6))]) == []
    assert ids(store) == ["a"]
    assert [(it.code, "epoch 6" in it.message) for it in refusals.refused] == [("ended_epoch", True)]
    (known,) = receive(store, message("a", 1, epoch=6))
    assert known.command_id == "a"


def test_epoch_of_a_lost_store_has_ended() -> None:
    store = MemoryCommandStore(closed_epoch=7)
    assert receive(store, message("a", 1), message("b", 2)) == []
    receive(store, message("b", 1, epoch=8))
    assert ids(store) == ["b"]


def test_command_with_a_used_number_never_runs(store: MemoryCommandStore) -> None:
    receive(store, message("a", 1))
    (refusal,) = receive(store, message("x", 1))
    assert (refusal.kind, refusal.code) == (FeedbackKind.RESULT, ErrorCode.SUPERSEDED)
    assert ids(store) == ["a"]


def test_repeated_command_is_answered_with_its_state_or_result(store: MemoryCommandStore) -> None:
    receive(store, message("a", 1))
    stored = store.mark_processing(next(store.get_next_commands(1)), NOW, "i1")
    (running,) = receive(store, message("a", 1))
    assert (running.kind, running.status) == (FeedbackKind.ACCEPTED, State.PROCESSING)
    store.mark_completed(stored, stored_result("a"))
    assert receive(store, message("a", 1)) == [result("a")]
    store.delete_completed_commands(["a"], NOW)
    (remembered,) = receive(store, message("a", 1))
    assert (remembered.kind, remembered.outcome, remembered.digest) == (FeedbackKind.RESULT, Outcome.SUCCESS, "d")
    assert ids(store) == []


def test_renumbered_command_uses_up_its_new_number(store: MemoryCommandStore) -> None:
    receive(store, message("a", 1), message("b", 2))
    receive(store, message("b", 1, epoch=8), message("c", 2, epoch=8))
    assert ids(store) == ["a", "b", "c"]
    assert store.last_sequence == SequenceNumber(8, 2)


def test_repeated_command_never_moves_the_sequence_back_or_over_a_gap(store: MemoryCommandStore) -> None:
    receive(store, message("a", 1), message("b", 2), message("c", 3))
    receive(store, message("a", 1), message("b", 7), message("a", 2, epoch=8))
    assert store.last_sequence == SequenceNumber(7, 3)


def test_unsigned_command_needs_accept_unsigned(store: MemoryCommandStore) -> None:
    (refusal,) = receive(store, message("a"), accept_unsigned=False)
    assert (refusal.code, ids(store)) == (ErrorCode.REJECTED, [])
    assert "--accept-unsigned" in refusal.message
    receive(store, message("a"))
    assert ids(store) == ["a"]


def test_redelivery_without_an_id_is_recognized_and_a_repeat_is_not(store: MemoryCommandStore) -> None:
    form = {"origin": {"name": "n", "module": "m"}, "command": "restart-agent", "parameters": {}, "status": "pending"}
    takes = receiver(store)
    takes.receive([delivery(form, mid=5)])
    takes.receive([delivery(form, mid=5, duplicate=True)])
    assert len(ids(store)) == 1
    takes.receive([delivery(form, mid=5)])
    takes.receive([delivery(form, mid=6, duplicate=True)])
    assert len(ids(store)) == 3


def test_bad_message_is_refused_without_the_others(store: MemoryCommandStore) -> None:
    bad = [delivery(b"\xff"), delivery({"id": 1}), delivery(b"x" * 300_000)]
    refusals = KeptRefusals()
    receiver(store, refusals).receive([delivery(message("a", 1)), *bad, delivery(message("b", 2))])
    assert ids(store) == ["a", "b"]
    assert [it.code for it in refusals.refused] == ["not_json", "wrong_type", "frame_too_large"]
    assert "300000" in refusals.refused[2].message


def test_flood_of_bad_messages_is_logged_once(store: MemoryCommandStore) -> None:
    refusals = KeptRefusals()
    with capture_logs() as logs:
        receiver(store, refusals).receive([delivery(b"\xff")] * 500)
    assert [entry["event"] for entry in logs] == ["message_refused"]
    assert len(refusals.refused) == 500


def test_retained_command_is_refused(store: MemoryCommandStore) -> None:
    refusals = KeptRefusals()
    receiver(store, refusals).receive([delivery(message("a", 1), retained=True)])
    assert ids(store) == []
    assert [it.code for it in refusals.refused] == ["retained"]


def test_gap_names_the_number_that_is_expected_when_it_is_sent(store: MemoryCommandStore) -> None:
    """The expected number may arrive after a later one, in the same turn."""
    gap, accepted = receive(store, message("b", 2), message("a", 1))
    assert (accepted.command_id, gap.sequence, gap.expected) == ("a", SequenceNumber(7, 2), 2)
    (accepted,) = receive(store, message("d", 4), message("b", 2), message("c", 3), message("d", 4))[-1:]
    assert (accepted.command_id, store.last_sequence) == ("d", SequenceNumber(7, 4))
    assert [item.kind for item in receive(store, message("f", 6), message("e", 5), message("f", 6))] == ["accepted"] * 2


def test_command_without_room_is_dropped_and_requested_once_there_is_room(store: MemoryCommandStore) -> None:
    clock = TurnedClock()
    gaps = Gaps(store, REPORTS, clock)
    takes = receiver(store, gaps=gaps)
    store.full = True
    said = takes.receive([delivery(message("a", 1)), delivery(message("b", 2)), delivery(message("u"))])
    assert [(it.feedback.command_id, it.feedback.code) for it in said] == [("u", ErrorCode.REJECTED)]
    assert (ids(store), store.last_sequence) == ([], None)
    clock.turn(1.0)
    assert (gaps.next_due(), gaps.take_due()) == (None, [])
    store.full = False
    (gap,) = gaps.take_due()
    assert (gap.feedback.sequence, gap.feedback.expected) == (SequenceNumber(7, 2), 1)
    assert (gaps.next_due(), gaps.take_due()) == (None, [])
