"""The ledger, on a real SQLite file and on a real PostgreSQL."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from broker.app.factories import open_database
from broker.contract.codec import MAX_FRAME_BYTES, DecodeError, to_json
from broker.contract.messages import Command, Feedback, JournalMark, Origin, Status
from broker.contract.states import ErrorCode, FeedbackKind, Outcome
from broker.contract.topics import InvalidName
from broker.errors import LedgerError
from broker.ledger.audits import Verified
from broker.ledger.commands import UnknownCommand
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.location import with_absolute_path
from broker.ledger.tables import COMMANDS, CommandState
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.recorded import record_feedback, record_status
from tests.support.unmatched_results import unmatched_results

LONG_AFTER = 400.0


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    opened = Ledger(open_database(ledger_url), now=clock.now)
    yield opened
    opened.database.close()


def add(ledger: Ledger, agent: str = "web-01", **parameters: Any) -> Command:
    return ledger.add_command(agent, CommandRequest("restart-agent", parameters, Origin("me", "test")))


def take(ledger: Ledger) -> list[str]:
    return [command.id for _, command in ledger.claim_due(100).commands]


def feedback(kind: FeedbackKind, command: Command | None = None, **members: Any) -> Feedback:
    reported = Feedback(kind, "web-01", "g1", "i1", "pending", "So it is.", **members)
    return replace(reported, command_id=command.id) if command else reported


def result(command: Command, digest: str = "d1") -> Feedback:
    ended = feedback(FeedbackKind.RESULT, command, outcome=Outcome.SUCCESS, digest=digest)
    return replace(ended, status="completed")


def accept(ledger: Ledger, command: Command) -> None:
    record_feedback(ledger, "web-01", [feedback(FeedbackKind.ACCEPTED, command)])


def status(generation: str = "g1", *, online: bool = True, **members: Any) -> Status:
    reported = Status("web-01", online, "1", "i1", "b1", generation)
    return replace(reported, **members)


def numbers(ledger: Ledger, *commands: Command) -> list[tuple[int, int]]:
    found = [ledger.get(command.id).command.sequence for command in commands]
    return [(sequence.epoch, sequence.number) for sequence in found if sequence]


def test_sequence_numbers_are_contiguous_for_each_agent(ledger: Ledger) -> None:
    sent = [add(ledger), add(ledger, "web-02"), add(ledger), add(ledger, "web-02")]
    assert [command.sequence.number for command in sent if command.sequence] == [1, 1, 2, 2]
    first, third = sent[0].sequence, sent[2].sequence
    assert first
    assert third
    assert first.epoch == third.epoch


def test_commands_are_claimed_once_and_in_sequence(ledger: Ledger) -> None:
    sent = [add(ledger).id for _ in range(5)]
    assert take(ledger) == sent
    assert take(ledger) == []
    assert {row.state for row in ledger.commands()} == {CommandState.SENT}


def test_command_that_an_online_agent_does_not_accept_is_resent(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, status())
    command = add(ledger)
    take(ledger)
    ledger.requeue_overdue()
    assert take(ledger) == []
    clock.turn(LONG_AFTER)
    ledger.requeue_overdue()
    assert take(ledger) == [command.id]
    accept(ledger, command)
    clock.turn(LONG_AFTER)
    ledger.requeue_overdue()
    assert take(ledger) == []


def test_offline_agent_gets_its_commands_when_it_is_back(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, status(online=False))
    command = add(ledger)
    take(ledger)
    clock.turn(LONG_AFTER)
    ledger.requeue_overdue()
    assert take(ledger) == []
    record_status(ledger, status())
    assert take(ledger) == [command.id]


def test_new_incarnation_and_new_connection_requeue_immediately(ledger: Ledger) -> None:
    record_status(ledger, status())
    command = add(ledger)
    take(ledger)
    record_status(ledger, status(queue_depth=3))
    assert take(ledger) == []
    record_status(ledger, status(incarnation="i2"))
    assert take(ledger) == [command.id]
    ledger.requeue_all()
    assert take(ledger) == [command.id]


def test_command_states_only_go_forward(ledger: Ledger) -> None:
    command = add(ledger)
    seen = [ledger.get(command.id).state]
    take(ledger)
    for kind in (FeedbackKind.ACCEPTED, FeedbackKind.PROGRESS, FeedbackKind.ACCEPTED):
        record_feedback(ledger, "web-01", [feedback(kind, command)])
        seen.append(ledger.get(command.id).state)
    record_feedback(ledger, "web-01", [result(command), feedback(FeedbackKind.ACCEPTED, command)])
    seen.append(ledger.get(command.id).state)
    assert [str(state) for state in seen] == ["queued", "accepted", "running", "running", "completed"]


def test_result_is_stored_acked_and_never_replaced(ledger: Ledger) -> None:
    command = add(ledger)
    first, other = result(command), result(command, "d2")
    acks = record_feedback(ledger, "web-01", [first, first, other]).acks
    assert [(ack.command_id, ack.digest) for ack in acks] == [
        (command.id, "d1"),
        (command.id, "d1"),
        (command.id, "d2"),
    ]
    kept = ledger.get(command.id).result
    assert kept
    assert kept["digest"] == "d1"
    assert [unmatched["digest"] for unmatched in unmatched_results(ledger)] == ["d2"]


def test_result_of_unknown_command_or_other_agent_is_unmatched(ledger: Ledger) -> None:
    command = add(ledger, "web-02")
    stranger = replace(command, id="never-sent")
    assert len(record_feedback(ledger, "web-01", [result(command), result(stranger), result(stranger)]).acks) == 3
    assert ledger.get(command.id).state is CommandState.QUEUED
    assert [unmatched["command_id"] for unmatched in unmatched_results(ledger)] == [command.id, "never-sent"]


def test_unmatched_results_of_an_agent_are_bounded(ledger: Ledger, clock: TurnedClock) -> None:
    honest = add(ledger)
    record_feedback(ledger, "web-02", [replace(result(honest), command_id="from-web-02")])
    for round_ in range(5):
        invented = [replace(result(honest), command_id=f"invented-{round_}-{number:03}") for number in range(150)]
        clock.turn(1.0)
        assert len(record_feedback(ledger, "web-01", invented).acks) == 150
    kept = [unmatched["command_id"] for unmatched in unmatched_results(ledger)]
    assert kept == ["from-web-02", *(f"invented-4-{number:03}" for number in range(50, 150))]
    record_feedback(ledger, "web-01", [result(honest)])
    assert ledger.get(honest.id).state is CommandState.COMPLETED


def test_gap_is_resent_from_the_expected_number(ledger: Ledger) -> None:
    sent = [add(ledger) for _ in range(4)]
    take(ledger)
    accept(ledger, sent[0])
    gap = feedback(FeedbackKind.GAP, sequence=sent[3].sequence, expected=2)
    record_feedback(ledger, "web-01", [gap])
    assert take(ledger) == [command.id for command in sent[1:]]


def test_agent_restored_from_a_snapshot_gets_a_new_epoch(ledger: Ledger) -> None:
    old, new = add(ledger), add(ledger)
    take(ledger)
    record_feedback(ledger, "web-01", [result(old)])
    before = numbers(ledger, new)[0][0]
    record_feedback(ledger, "web-01", [feedback(FeedbackKind.GAP, sequence=new.sequence, expected=1)])
    ((epoch, number),) = numbers(ledger, new)
    assert (epoch > before, number) == (True, 1)
    assert take(ledger) == [new.id]


def test_lost_store_interrupts_sent_commands_and_renumbers_the_rest(ledger: Ledger) -> None:
    record_status(ledger, status("g1"))
    done, lost = add(ledger), add(ledger)
    take(ledger)
    record_feedback(ledger, "web-01", [result(done)])
    waiting = [add(ledger), add(ledger)]
    before = numbers(ledger, lost)[0][0]
    record_status(ledger, status("g2"))
    assert ledger.get(done.id).result == to_json(result(done))
    settled = ledger.get(lost.id).result
    assert settled
    assert (settled["code"], settled["outcome"]) == (ErrorCode.INTERRUPTED, Outcome.ERROR)
    assert [number for _, number in numbers(ledger, *waiting)] == [1, 2]
    assert numbers(ledger, waiting[0])[0][0] > before
    assert take(ledger) == [command.id for command in waiting]


def test_lost_store_is_detected_even_without_an_earlier_status(ledger: Ledger) -> None:
    sent = add(ledger)
    take(ledger)
    queued = add(ledger)
    (epoch, _), _ = numbers(ledger, sent, queued)
    record_status(ledger, status("g2", closed_epoch=epoch))
    assert (ledger.get(sent.id).result or {})["code"] == ErrorCode.INTERRUPTED
    ((later, number),) = numbers(ledger, queued)
    assert later > epoch
    assert number == 1
    record_status(ledger, status("g2", closed_epoch=epoch))
    assert numbers(ledger, queued) == [(later, 1)]


def test_gap_from_a_store_without_a_status_yet_changes_nothing(ledger: Ledger) -> None:
    record_status(ledger, status("g1"))
    command = add(ledger)
    take(ledger)
    gap = replace(feedback(FeedbackKind.GAP, sequence=command.sequence, expected=1), store_generation="g2")
    record_feedback(ledger, "web-01", [gap])
    assert take(ledger) == []


def test_ledger_restored_from_a_backup_begins_a_new_epoch(ledger: Ledger) -> None:
    command = add(ledger)
    ((epoch, _),) = numbers(ledger, command)
    record_status(ledger, status(epoch=epoch, last_sequence=1))
    assert numbers(ledger, command) == [(epoch, 1)]
    record_status(ledger, status(epoch=epoch, last_sequence=9))
    ((later, number),) = numbers(ledger, command)
    assert (later > epoch, number) == (True, 1)


def test_agent_that_went_back_in_time_gets_again_what_it_had_accepted(ledger: Ledger) -> None:
    """A snapshot of a machine, or a write-ahead log cut short by a flipped bit: no later command shows it."""
    sent = [add(ledger) for _ in range(3)]
    ((epoch, _), *_) = numbers(ledger, *sent)
    take(ledger)
    record_status(ledger, status(epoch=epoch, last_sequence=0))
    for command in sent:
        accept(ledger, command)
    record_feedback(ledger, "web-01", [feedback(FeedbackKind.PROGRESS, sent[1])])
    record_status(ledger, status(online=False, epoch=epoch, last_sequence=0))
    assert take(ledger) == [], "a last will was written before"
    record_status(ledger, status(incarnation="i2", epoch=epoch, last_sequence=1))
    assert [ledger.get(command.id).state for command in sent] == ["accepted", "sent", "sent"]
    assert take(ledger) == [command.id for command in sent[1:]]
    assert numbers(ledger, *sent) == [(epoch, 1), (epoch, 2), (epoch, 3)]


def test_resumed_snapshot_with_the_same_incarnation_is_noticed(ledger: Ledger) -> None:
    sent = [add(ledger), add(ledger)]
    ((epoch, _), *_) = numbers(ledger, *sent)
    take(ledger)
    for command in sent:
        accept(ledger, command)
    record_status(ledger, status(epoch=epoch, last_sequence=2))
    assert take(ledger) == []
    record_status(ledger, status(epoch=epoch, last_sequence=1))
    assert take(ledger) == [sent[1].id]


def test_agent_that_went_back_before_a_completed_command_gets_a_new_epoch(ledger: Ledger) -> None:
    done, running = add(ledger), add(ledger)
    ((epoch, _), _) = numbers(ledger, done, running)
    take(ledger)
    record_feedback(ledger, "web-01", [result(done), feedback(FeedbackKind.PROGRESS, running)])
    record_status(ledger, status(last_sequence=0))
    ((later, number),) = numbers(ledger, running)
    assert (later > epoch, number) == (True, 1)
    assert take(ledger) == [running.id]


@pytest.mark.parametrize("lost", [1, 2])
def test_what_is_sent_again_after_a_rollback_is_sent_until_it_is_accepted(
    ledger: Ledger, clock: TurnedClock, lost: int
) -> None:
    sent = add(ledger)
    take(ledger)
    accept(ledger, sent)
    record_status(ledger, status())
    for _ in range(lost):
        assert take(ledger) == [sent.id]
        clock.turn(LONG_AFTER / 2)
        ledger.requeue_overdue()
    assert take(ledger) == [sent.id]


def test_agent_that_never_accepted_an_abandoned_command_did_not_go_back(ledger: Ledger) -> None:
    gone = add(ledger)
    before = numbers(ledger, gone)
    ledger.abandon(gone.id)
    record_status(ledger, status())
    assert numbers(ledger, add(ledger)) == [(before[0][0], 2)]


def test_clock_that_is_set_back_does_not_stop_the_resending(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, status())
    command = add(ledger)
    for _ in range(3):
        assert take(ledger) == [command.id]
        clock.turn(-86400.0)
        ledger.requeue_overdue()
    clock.turn(LONG_AFTER)
    ledger.requeue_overdue()
    assert take(ledger) == [command.id]


def superseded(command: Command) -> Feedback:
    return replace(result(command, "d9"), outcome=Outcome.ERROR, code=ErrorCode.SUPERSEDED, sequence=command.sequence)


def test_superseded_command_is_renumbered_and_stays_open(ledger: Ledger) -> None:
    """The ledger was restored from a backup, and sends before the agent's status has arrived."""
    sent = [add(ledger), add(ledger)]
    before = numbers(ledger, *sent)[0][0]
    take(ledger)
    assert record_feedback(ledger, "web-01", [superseded(command) for command in sent]).acks == []
    ((epoch, first), (same, second)) = numbers(ledger, *sent)
    assert (epoch > before, epoch == same, first, second) == (True, True, 1, 2)
    assert take(ledger) == [command.id for command in sent]
    record_feedback(ledger, "web-01", [superseded(sent[0])])
    assert numbers(ledger, *sent) == [(epoch, 1), (epoch, 2)], "a refusal from the old epoch begins no new one"
    record_feedback(ledger, "web-01", [result(sent[0]), superseded(sent[0])])
    assert (ledger.get(sent[0].id).result or {})["digest"] == "d1"


def test_conflicts_of_one_frame_begin_one_epoch(ledger: Ledger, clock: TurnedClock) -> None:
    sent = [add(ledger) for _ in range(5)]
    clock.turn(1.0)
    record_feedback(ledger, "web-01", [superseded(command) for command in sent * 100])
    ((epoch, first), *others) = numbers(ledger, *sent)
    assert (epoch, first) == (int(clock.now().timestamp() * 1000), 1)
    assert others == [(epoch, number) for number in range(2, 6)]


def test_conflict_without_a_number_changes_nothing(ledger: Ledger) -> None:
    command = add(ledger)
    before = numbers(ledger, command)
    assert record_feedback(ledger, "web-01", [replace(superseded(command), sequence=None)]).acks == []
    assert numbers(ledger, command) == before


def test_only_the_last_gap_of_a_frame_counts(ledger: Ledger) -> None:
    sent = [add(ledger) for _ in range(4)]
    take(ledger)
    gaps = [feedback(FeedbackKind.GAP, sequence=sent[3].sequence, expected=number) for number in (1, 2, 3)]
    record_feedback(ledger, "web-01", gaps)
    assert take(ledger) == [command.id for command in sent[2:]]


def test_new_connection_requeues_nothing_of_agents_that_are_offline(ledger: Ledger) -> None:
    for name, online in (("web-01", True), ("web-02", False)):
        record_status(ledger, replace(status(online=online), agent=name))
    sent = {name: add(ledger, name) for name in ("web-01", "web-02", "never-seen")}
    ledger.claim_due(9)
    for command in sent.values():
        ledger.request_cancel(command.id)
    ledger.claim_due(9)
    ledger.requeue_all()
    claimed = ledger.claim_due(9)
    assert {agent for agent, _ in claimed.commands} == {agent for agent, _ in claimed.cancels}
    assert [agent for agent, _ in claimed.commands] == ["never-seen", "web-01"]
    record_status(ledger, replace(status(), agent="web-02"))
    assert [agent for agent, _ in ledger.claim_due(9).commands] == ["web-02"]


def test_claim_is_shared_out_among_the_agents(ledger: Ledger) -> None:
    for name in ("a", "z"):
        command = add(ledger, name)
        ledger.claim_due(1, [name])
        ledger.request_cancel(command.id)
        add(ledger, name)
    for _ in range(200):
        add(ledger, "deep-01")
    claimed = ledger.claim_due(60, ["z", "deep-01", "a"])
    assert [agent for agent, _ in claimed.commands] == ["z", *["deep-01"] * 20, "a"]
    assert [agent for agent, _ in claimed.cancels] == ["z", "a"]


def test_claim_is_bounded_in_characters(ledger: Ledger) -> None:
    for number in range(60):
        add(ledger, f"web-{number:02}", text="x" * 150_000)
    claimed = [len(ledger.claim_due(100).commands) for _ in range(4)]
    assert (sum(claimed), max(claimed)) == (60, 28)


def test_abandoned_command_is_interrupted_until_a_late_result_tells_more(ledger: Ledger) -> None:
    record_status(ledger, status())
    gone, other = add(ledger, token="secret-token"), add(ledger)
    take(ledger)
    ledger.request_cancel(gone.id)
    row = ledger.abandon(gone.id)
    assert row.result is not None
    assert (row.state, row.result["code"], row.cancel_requested) == (CommandState.COMPLETED, "interrupted", False)
    assert "by the user" in row.result["message"]
    assert len(record_feedback(ledger, "web-01", [result(gone)]).acks) == 1
    late = ledger.get(gone.id)
    assert late == ledger.abandon(gone.id)
    assert (late.result or {})["outcome"] == "success"
    assert late.verdict == row.result
    gap = feedback(FeedbackKind.GAP, sequence=other.sequence, expected=1)
    record_feedback(ledger, "web-01", [gap])
    assert numbers(ledger, other)[0][1] == 1, "its number is not waited for"
    with pytest.raises(UnknownCommand):
        ledger.abandon("nothing")


def test_command_too_long_to_sign_is_completed_and_delays_no_other(ledger: Ledger) -> None:
    old, behind = add(ledger), add(ledger)
    text = sa.func.replace(COMMANDS.c.body, '"parameters":{}', f'"parameters":{{"text":"{"x" * 200_000}"}}')
    with ledger.database.transaction() as connection:
        connection.execute(COMMANDS.update().where(COMMANDS.c.id == old.id).values(body=text, body_check=None))
    assert take(ledger) == [behind.id]
    row = ledger.get(old.id)
    assert row.result is not None
    assert (row.state, row.result["code"]) == (CommandState.COMPLETED, "invalid")


def test_last_will_keeps_the_enrolment_of_the_status_before(ledger: Ledger) -> None:
    record_status(ledger, status(enrolment_id="e1"))
    record_status(ledger, status(online=False))
    (row,) = ledger.agents()
    assert row.status is not None
    assert (row.status.online, row.status.enrolment_id) == (False, "e1")


def test_cancel_is_resent_until_the_command_is_completed(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, status())
    command = add(ledger)
    ledger.claim_due(9)
    assert ledger.request_cancel(command.id).cancel_requested
    assert ledger.claim_due(9).cancels == [("web-01", command.id)]
    assert ledger.claim_due(9).cancels == []
    clock.turn(LONG_AFTER)
    ledger.requeue_overdue()
    assert ledger.claim_due(9).cancels == [("web-01", command.id)]
    record_feedback(ledger, "web-01", [result(command)])
    assert not ledger.request_cancel(command.id).cancel_requested
    assert ledger.claim_due(9).cancels == []


def test_ledger_survives_a_restart_and_is_shared_by_two_processes(
    ledger: Ledger, ledger_url: str, clock: TurnedClock
) -> None:
    command = add(ledger, section="service")
    other = Ledger(open_database(ledger_url), now=clock.now)
    second = add(other)
    assert take(ledger) == [command.id, second.id]
    assert other.get(command.id).command == command
    assert [row.command.id for row in other.commands("web-01", CommandState.SENT)] == [second.id, command.id]
    other.database.close()


def test_agents_are_listed_with_their_last_status_and_open_commands(ledger: Ledger, clock: TurnedClock) -> None:
    add(ledger, "web-02")
    record_status(ledger, status(queue_depth=2))
    rows = ledger.agents()
    assert [(row.name, row.open_commands) for row in rows] == [("web-01", 0), ("web-02", 1)]
    assert rows[0].status == status(queue_depth=2)
    assert (rows[0].seen_at, rows[1].status) == (clock.now(), None)


def test_agent_whose_status_is_overdue_is_silent(ledger: Ledger, clock: TurnedClock) -> None:
    add(ledger, "never-seen")
    record_status(ledger, status())
    states = [[row.state for row in ledger.agents()]]
    for seconds in (600.0, 1.0, -86_401.0):  # the last one sets the clock back
        clock.turn(seconds)
        states.append([row.state for row in ledger.agents()])
    assert [web for _, web in states] == ["online", "online", "silent", "silent"]
    assert {never for never, _ in states} == {"unknown"}
    record_status(ledger, status(online=False))
    assert ledger.agents()[1].state == "offline"


def test_silent_agent_gets_its_commands_again_with_its_next_status(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, status())
    command = add(ledger)
    assert take(ledger) == [command.id]
    clock.turn(601.0)
    for _ in range(3):
        ledger.requeue_overdue()
        assert take(ledger) == []
        clock.turn(LONG_AFTER)
    record_status(ledger, status(queue_depth=1))
    ledger.requeue_overdue()
    assert take(ledger) == [command.id]


def test_status_that_the_broker_delivers_again_does_not_show_that_the_agent_lives(
    ledger: Ledger, clock: TurnedClock
) -> None:
    record_status(ledger, status())
    clock.turn(601.0)
    record_status(ledger, status(), repeated={"web-01"})
    assert ledger.agents()[0].state == "silent"
    record_status(ledger, status(queue_depth=1), repeated={"web-01"})
    assert ledger.agents()[0].state == "online"


def test_two_clients_of_one_name_are_noticed(ledger: Ledger, clock: TurnedClock) -> None:
    """Each takes over the session of the other, and the broker publishes the last will of the one before."""
    found = []
    for incarnation in ("a", "b", "c", "a", "b", "d", "d"):
        found.append(record_status(ledger, status(incarnation=incarnation)).conflicts)
        record_status(ledger, status(incarnation=incarnation, online=False))
    assert found == [[], [], [], ["web-01"], ["web-01"], [], []]
    assert ledger.agents()[0].name_conflict
    clock.turn(601.0)
    assert not ledger.agents()[0].name_conflict


def test_old_status_that_the_broker_delivers_again_is_no_second_client(ledger: Ledger) -> None:
    for incarnation in ("a", "b"):
        record_status(ledger, status(incarnation=incarnation))
    assert record_status(ledger, status(incarnation="a"), repeated={"web-01"}).conflicts == []
    assert not ledger.agents()[0].name_conflict


def test_restored_ledger_sends_nothing_that_was_open_in_it(ledger: Ledger) -> None:
    sent, accepted, queued = add(ledger), add(ledger), add(ledger, "web-02")
    record_feedback(ledger, "web-01", [feedback(FeedbackKind.ACCEPTED, accepted)])
    before = numbers(ledger, sent)[0][0]
    assert ledger.settle_restored() == 3
    codes = [(ledger.get(command.id).result or {})["code"] for command in (sent, accepted, queued)]
    assert codes == ["interrupted"] * 3
    assert take(ledger) == []
    ((epoch, number),) = numbers(ledger, add(ledger))
    assert (epoch > before, number) == (True, 1)


def test_last_will_does_not_move_the_journal_head_back(ledger: Ledger) -> None:
    old, new = JournalMark(3, "a" * 64), JournalMark(9, "b" * 64)
    record_status(ledger, status(audit_head=new))
    record_status(ledger, status(online=False, audit_head=old))
    (row,) = ledger.agents()
    assert row.status is not None
    assert (row.status.online, row.status.audit_head) == (False, new)
    record_status(ledger, status(audit_head=old))
    assert ledger.agents()[0].status == status(audit_head=old)


def test_verified_journal_head_is_stored_for_each_agent(ledger: Ledger, clock: TurnedClock) -> None:
    assert ledger.audits.verified("web-01") is None
    ledger.audits.accept("web-01", JournalMark(3, "a" * 64))
    clock.turn(5.0)
    ledger.audits.mark_verified("web-01", JournalMark(9, "b" * 64))
    verified = Verified(JournalMark(9, "b" * 64), clock.now(), JournalMark(3, "a" * 64))
    assert (ledger.audits.verified("web-01"), ledger.audits.verified("web-02")) == (verified, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, Path("x"), "caf\udce9", 2**64])
def test_parameter_that_json_does_not_have_is_refused(ledger: Ledger, value: object) -> None:
    with raises_code(DecodeError, "integer_out_of_range" if isinstance(value, int) else "not_json"):
        add(ledger, x=value)
    assert ledger.commands() == []


def test_command_that_no_agent_could_read_is_refused_before_it_is_stored(ledger: Ledger) -> None:
    with pytest.raises(DecodeError):
        add(ledger, text="x" * MAX_FRAME_BYTES)
    with pytest.raises(InvalidName):
        add(ledger, "Web 01")
    assert ledger.commands() == []


def test_unusable_ledger_and_unknown_command_are_errors(ledger: Ledger, clock: TurnedClock, tmp_path: Path) -> None:
    with pytest.raises(UnknownCommand) as unknown:
        ledger.get("nothing")
    assert "'nothing'" in str(unknown.value)
    with pytest.raises(UnknownCommand):
        ledger.request_cancel("nothing")
    codes = {
        "no url": "bad_ledger_url",
        "nodatabase://x": "unsupported_database",
        f"sqlite:///{tmp_path}/missing/ledger.db": "ledger_cannot_be_opened",
    }
    for url, code in codes.items():
        with raises_code(LedgerError, code) as refused:
            open_database(url)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@db:port/acm", "me:hunter2@db"])
@pytest.mark.parametrize("use", [open_database, with_absolute_path])
def test_unreadable_url_is_refused_without_its_password(use: Callable[[str], object], url: str) -> None:
    with raises_code(LedgerError, "bad_ledger_url") as refused:
        use(url)
    assert "hunter2" not in str(refused.value)


def test_acceptance_of_no_command_is_passed_over(ledger: Ledger) -> None:
    command = add(ledger)
    record_feedback(ledger, "web-01", [feedback(FeedbackKind.ACCEPTED), feedback(FeedbackKind.ACCEPTED, command)])
    assert ledger.get(command.id).state is CommandState.ACCEPTED


@pytest.mark.parametrize("echo", [{"type": 1, "parameters": {}}, {"type": "restart-agent", "parameters": []}])
def test_result_with_an_unreadable_echo_completes_its_command(ledger: Ledger, echo: dict[str, Any]) -> None:
    command = add(ledger)
    record_feedback(ledger, "web-01", [replace(result(command), command=echo)])
    assert ledger.get(command.id).state is CommandState.COMPLETED
