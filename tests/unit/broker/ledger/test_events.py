"""The log of events: written with each change, in the order of commits, and bounded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from broker.app.factories import open_database
from broker.contract.messages import Origin, Status
from broker.contract.states import FeedbackKind, Outcome
from broker.ledger.enqueue import CommandRequest
from broker.ledger.event_log import EventLog, EventsPruned, StoredEvent
from broker.ledger.event_types import EventType
from broker.ledger.ledger import Ledger
from broker.ledger.pruning import LedgerPruning
from broker.ledger.tables import EVENTS, OPERATIONS
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.postgresql import PostgreSQL, shared_pooler
from tests.support.recorded import record_feedback, record_status
from tests.support.waiting import wait_for

REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))
ONLINE = Status("web-01", True, "1", "i", "b", "g")
WAITS_FOR_EVENTS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(ledger_url) as database:
        yield Ledger(database, now=clock.now)


def all_events(log: EventLog, position: int = 0) -> list[StoredEvent]:
    """Read to the end, and see that no number is missing."""
    found: list[StoredEvent] = []
    while (page := log.after(position)).position != position:
        found += page.events
        position = page.position
    assert [it.id for it in found] == list(range(found[0].id, found[0].id + len(found))) if found else True
    return found


def types(ledger: Ledger, position: int = 0) -> list[str]:
    return [it.type.value for it in all_events(ledger.events, position)]


def test_each_change_of_a_command_is_an_event(ledger: Ledger, clock: TurnedClock) -> None:
    command = ledger.add_command("web-01", REQUEST)
    ledger.claim_due(10)
    ledger.requeue_all()
    ledger.claim_due(10)
    for kind in (FeedbackKind.ACCEPTED, FeedbackKind.PROGRESS):
        record_feedback(ledger, "web-01", [replace(result(command.id), kind=kind)])
    clock.turn(1.5)
    record_feedback(ledger, "web-01", [result(command.id)])
    found = all_events(ledger.events)
    assert [it.type.value for it in found] == [
        "command_created",
        "command_sent",
        "command_accepted",
        "command_running",
        "command_completed",
    ]
    assert {(it.agent, it.command_id, it.command_type) for it in found} == {("web-01", command.id, "restart-agent")}
    assert [it.more for it in found] == [None] * 4 + [Outcome.SUCCESS]
    assert (found[-1].at - found[0].at).total_seconds() == 1.5


def test_commands_of_an_operation_are_cancelled_and_abandoned_one_by_one(ledger: Ledger) -> None:
    operation = ledger.add_operation([f"web-{number:02d}" for number in range(4)], "all", REQUEST)
    ledger.claim_due(2)
    position = ledger.events.end()
    ledger.cancel_operation(operation.id)
    ledger.abandon_operation(operation.id)
    found = all_events(ledger.events, position)
    assert [(it.type.value, it.more) for it in found] == [
        *[("command_completed", "cancelled")] * 2,
        *[("command_cancel_requested", None)] * 2,
        *[("command_completed", "interrupted")] * 2,
        ("operation_completed", None),
    ]
    assert {it.operation_id for it in found} == {operation.id}
    assert types(ledger)[:4] == ["command_created"] * 4


def test_operation_is_completed_with_the_last_of_its_commands(ledger: Ledger) -> None:
    operation = ledger.add_operation(["web-01", "web-02", "web-03"], "all", REQUEST)
    alone = ledger.add_command("web-01", REQUEST)
    ids = {it.agent: it.command.id for it in ledger.commands(operation_id=operation.id)}
    first, second, third = (ids[agent] for agent in sorted(ids))
    ledger.claim_due(9)
    position = ledger.events.end()
    for agent, command_id in (("web-01", first), ("web-01", alone.id), ("web-02", second)):
        record_feedback(ledger, agent, [replace(result(command_id), agent=agent)])
    assert types(ledger, position) == ["command_completed"] * 3
    ledger.abandon(third)
    ended, last = all_events(ledger.events, position)[-2:]
    assert (ended.type, last.type) == (EventType.COMMAND_COMPLETED, EventType.OPERATION_COMPLETED)
    assert (last.agent, last.command_id, last.operation_id) == ("web-03", third, operation.id)


def test_operation_that_is_not_written_yet_is_not_completed(ledger: Ledger) -> None:
    operation = ledger.add_operation(["web-01"], "all", REQUEST)
    with ledger.database.transaction() as connection:
        connection.execute(OPERATIONS.update().values(size=2))
    ledger.abandon_operation(operation.id)
    assert types(ledger) == ["command_created", "command_completed"]


def test_each_agent_that_joins_or_leaves_a_group_is_an_event(ledger: Ledger) -> None:
    ledger.groups.add("edge", ["web-01", "web-02"])
    ledger.groups.add("edge", ["web-02", "web-03"])
    ledger.groups.remove("edge", ["web-01", "web-09"])
    assert [(it.type.value, it.agent, it.more) for it in all_events(ledger.events)] == [
        ("agent_joined_group", "web-01", "edge"),
        ("agent_joined_group", "web-02", "edge"),
        ("agent_joined_group", "web-03", "edge"),
        ("agent_left_group", "web-01", "edge"),
    ]


def test_event_of_a_later_version_is_left_out_and_keeps_its_place(ledger: Ledger) -> None:
    ledger.add_operation(["web-01", "web-02", "web-03"], "all", REQUEST)
    first, second, third = all_events(ledger.events)
    with ledger.database.transaction() as connection:
        items = msgspec.json.decode(connection.scalar(sa.select(EVENTS.c["items"])) or "")
        items[1][0] = 999
        connection.execute(EVENTS.update().values(items=msgspec.json.encode(items).decode()))
    page = ledger.events.after(0)
    assert (page.events, page.position) == ((first, third), third.id)
    assert ledger.events.after(first.id).events == (third,)
    assert ledger.events.after(second.id).events == (third,)


def test_verdict_that_is_replaced_is_completed_twice(ledger: Ledger) -> None:
    command = ledger.add_command("web-01", REQUEST)
    ledger.claim_due(1)
    ledger.abandon(command.id)
    record_feedback(ledger, "web-01", [result(command.id)])
    assert [it.more for it in all_events(ledger.events)] == [None, None, "interrupted", "success"]


def test_expired_command_is_completed(ledger: Ledger, clock: TurnedClock) -> None:
    ledger.add_command("web-01", replace(REQUEST, expires_in_s=5.0))
    clock.turn(6.0)
    ledger.settle_expired(may_be_sent=False)
    assert all_events(ledger.events)[-1].more == "expired"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (replace(ONLINE, queue_depth=3, last_error="x"), []),
        (replace(ONLINE, incarnation="j"), ["agent_restarted"]),
        (replace(ONLINE, online=False, version="2"), ["agent_offline"]),
        (replace(ONLINE, version="2", groups=("edge",)), ["agent_changed"]),
        (replace(ONLINE, incarnation="j", version="2"), ["agent_restarted", "agent_changed"]),
    ],
)
def test_status_is_an_event_if_it_changes_what_is_known_of_its_agent(
    ledger: Ledger, status: Status, expected: list[str]
) -> None:
    record_status(ledger, ONLINE)
    assert types(ledger) == ["agent_first_seen", "agent_online"]
    position = ledger.events.end()
    record_status(ledger, status)
    assert types(ledger, position) == expected


def test_change_of_a_status_names_its_members(ledger: Ledger) -> None:
    record_status(ledger, ONLINE)
    record_status(ledger, replace(ONLINE, version="2", supported_types=("x",)))
    assert all_events(ledger.events)[-1].more == "version,supported_types"


def test_silent_agent_is_noted_once_until_it_speaks(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, ONLINE)
    assert ledger.note_silence() == []
    clock.turn(601.0)
    position = ledger.events.end()
    assert ledger.note_silence() == ["web-01"]
    assert ledger.note_silence() == []
    record_status(ledger, ONLINE)
    record_status(ledger, replace(ONLINE, online=False))
    clock.turn(601.0)
    assert ledger.note_silence() == []
    assert types(ledger, position) == ["agent_silent", "agent_online", "agent_offline"]


def test_forgotten_agent_is_an_event_after_those_of_its_commands(ledger: Ledger) -> None:
    ledger.add_command("web-01", REQUEST)
    ledger.forget("web-01")
    assert types(ledger) == ["command_created", "command_completed", "agent_forgotten"]


def test_what_is_rolled_back_is_no_event(ledger: Ledger) -> None:
    def refuse(connection: object, done: object) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        ledger.add_command("web-01", REQUEST, refuse)
    ledger.add_command("web-01", REQUEST)
    assert types(ledger) == ["command_created"]


def test_many_events_of_one_commit_are_read_from_any_place(ledger: Ledger) -> None:
    names = [f"web-{number:03d}" for number in range(1000)]
    ledger.add_operation(names, "all", REQUEST)
    found = all_events(ledger.events)
    assert [it.agent for it in found] == names
    with ledger.database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(EVENTS)) == 2
    for place in (0, 250, 499, 500, 999):
        assert all_events(ledger.events, found[place].id) == found[place + 1 :]


def test_events_begin_with_a_time(ledger: Ledger, clock: TurnedClock) -> None:
    ledger.add_command("web-01", REQUEST)
    assert ledger.events.before(clock.now()) == 0
    clock.turn(10.0)
    between = ledger.events.end()
    ledger.add_command("web-02", REQUEST)
    assert ledger.events.before(clock.now()) == between
    clock.turn(10.0)
    assert ledger.events.before(clock.now()) == ledger.events.end()


def test_old_events_are_removed_but_not_the_newest(ledger: Ledger, clock: TurnedClock) -> None:
    assert ledger.events.prune() == 0
    for _ in range(3):
        ledger.add_command("web-01", REQUEST)
    first, second, third = all_events(ledger.events)
    clock.turn(7 * 86400.0 + 1)
    assert ledger.events.prune() == 2
    assert all_events(ledger.events) == [third]
    assert all_events(ledger.events, second.id) == [third]
    with raises_code(EventsPruned, "events_pruned"):
        ledger.events.after(first.id)
    ledger.add_command("web-01", REQUEST)
    assert all_events(ledger.events)[-1].id == third.id + 1


def test_no_more_events_are_kept_than_so_many(ledger: Ledger, clock: TurnedClock) -> None:
    for _ in range(12):
        ledger.add_operation(["web-01", "web-02"], "all", REQUEST)
    log = EventLog(ledger.database, clock.now, most=10)
    log.prune()
    assert len(all_events(log)) == 10


def test_position_of_another_ledger_is_refused(ledger: Ledger, clock: TurnedClock) -> None:
    ledger.events.require(0)
    with raises_code(EventsPruned, "events_pruned"):
        ledger.events.require(5)
    ledger.add_command("web-01", REQUEST)
    ledger.events.require(ledger.events.end())
    with raises_code(EventsPruned, "events_pruned"):
        ledger.events.require(ledger.events.end() + 1)


def test_restored_ledger_begins_a_new_log_with_larger_numbers(ledger: Ledger, clock: TurnedClock) -> None:
    ledger.add_command("web-01", REQUEST)
    before = ledger.events.end()
    clock.turn(60.0)
    ledger.settle_restored()
    (ended,) = all_events(ledger.events)
    assert (ended.type, ended.more) == (EventType.COMMAND_COMPLETED, "interrupted")
    assert ended.id > before + 1
    with raises_code(EventsPruned, "events_pruned"):
        ledger.events.after(before)


def test_damaged_row_is_passed_over(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.add_command("web-01", REQUEST)
    before, damaged, after = all_events(ledger.events)
    with ledger.database.transaction() as connection:
        connection.execute(EVENTS.update().where(EVENTS.c.id == damaged.id).values(items="[[99"))
    for position, expected in ((0, [before, after]), (before.id, [after])):
        page = ledger.events.after(position)
        assert (list(page.events), page.position) == (expected, after.id)


def test_event_of_a_pruned_command_has_no_type_of_it(ledger: Ledger, clock: TurnedClock) -> None:
    command = ledger.add_command("web-01", REQUEST)
    ledger.abandon(command.id)
    clock.turn(60.0)
    LedgerPruning(ledger.database, clock.now()).run()
    assert {(it.command_id, it.command_type) for it in all_events(ledger.events)} == {(command.id, None)}


@contextmanager
def held_before_its_commit(ledger: Ledger, reached: Event, goes_on: Event) -> Iterator[None]:
    """Let a transaction of this ledger wait in the block, when it has written everything."""

    def hold(connection: sa.Connection) -> None:
        reached.set()
        assert goes_on.wait(30)

    event.listen(ledger.database._engine, "commit", hold)
    yield
    event.remove(ledger.database._engine, "commit", hold)


def test_events_are_read_in_the_order_of_commits_on_postgresql(postgresql: PostgreSQL, clock: TurnedClock) -> None:
    """Otherwise a reader would pass over a number that is committed later than the next one."""
    url = postgresql.new_database()
    reached, goes_on = Event(), Event()
    with open_database(url) as one, open_database(url) as other:
        slow, quick = Ledger(one, now=clock.now), Ledger(other, now=clock.now)
        quick.add_command("web-00", REQUEST)
        position = quick.events.end()
        threads = [Thread(target=lambda: slow.add_command("web-01", REQUEST))]
        with held_before_its_commit(slow, reached, goes_on):
            threads[0].start()
            assert reached.wait(30)
            threads.append(Thread(target=lambda: quick.add_command("web-02", REQUEST)))
            threads[1].start()
            with postgresql.connect(url) as connection:
                wait_for(lambda: connection.execute(WAITS_FOR_EVENTS).fetchone() == (1,), "the second to wait")
            assert quick.events.after(position).events == ()
            goes_on.set()
            for thread in threads:
                thread.join()
        assert [it.agent for it in all_events(quick.events, position)] == ["web-01", "web-02"]


@pytest.fixture(params=["sqlite", "postgresql", "pgbouncer"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    url: str = request.getfixturevalue("postgresql").new_database()
    return shared_pooler().pooled(url) if request.param == "pgbouncer" else url


def test_reader_beside_several_writers_misses_and_repeats_nothing(shared_url: str, clock: TurnedClock) -> None:
    agents, each = [f"web-{number:02d}" for number in range(4)], 25
    errors: list[Exception] = []

    def write(agent: str) -> None:
        try:
            with open_database(shared_url) as database:
                for _ in range(each):
                    Ledger(database, now=clock.now).add_command(agent, REQUEST)
        except Exception as error:
            errors.append(error)

    with open_database(shared_url) as database:
        log = Ledger(database, now=clock.now).events
        threads = [Thread(target=write, args=(agent,)) for agent in agents]
        for thread in threads:
            thread.start()
        found: list[Any] = []
        position = 0

        def read() -> bool:
            nonlocal position
            page = log.after(position)
            found.extend(page.events)
            position = page.position
            return len(found) >= len(agents) * each or bool(errors)

        wait_for(read, "all events")
        for thread in threads:
            thread.join()
    assert errors == []
    assert [it.id for it in found] == list(range(found[0].id, found[0].id + len(agents) * each))
    assert {agent: sum(it.agent == agent for it in found) for agent in agents} == dict.fromkeys(agents, each)
