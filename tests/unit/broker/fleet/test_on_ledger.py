"""The fleet on a ledger: what an operator sees and does, with and without groups."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from broker.app.factories import open_database
from broker.contract.messages import Origin, Status
from broker.contract.states import AgentState, CommandState, ErrorCode, Outcome
from broker.contract.topics import InvalidName
from broker.errors import BrokerError, CodedError, InvalidArgument
from broker.fleet.models import AgentFilter, CommandFilter, CommandView, EventFilter, PageOf, SendRequest
from broker.fleet.on_ledger import LedgerFleet
from broker.fleet.targets import UnknownAgent
from broker.ledger.command_pages import WINDOW
from broker.ledger.commands import AlreadyCompleted, UnknownCommand
from broker.ledger.ledger import Ledger
from broker.ledger.operations import UnknownOperation
from broker.ledger.server_lock import ServerLock
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status

ORIGIN = Origin("alice", "api")
ALL = CommandFilter()
RESTART = SendRequest("restart-agent", all=True)


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(ledger_url) as database:
        ledger = Ledger(database, now=clock.now)
        for name in ("db-01", "web-01", "web-02"):
            record_status(ledger, Status(name, True, "1", "i", "b", "g"))
        ledger.groups.add("edge", ["web-01", "web-02"])
        ledger.groups.add("core", ["db-01"])
        yield ledger


@pytest.fixture
def fleet(ledger: Ledger) -> LedgerFleet:
    return LedgerFleet(ledger, ORIGIN)


@pytest.fixture
def edge(ledger: Ledger) -> LedgerFleet:
    """The fleet as a principal sees it whose only group is edge."""
    return LedgerFleet(ledger, ORIGIN, frozenset({"edge"}))


def sent_to(fleet: LedgerFleet, agent: str, command_type: str = "restart-agent", **members: Any) -> CommandView:
    command = fleet.send(SendRequest(command_type, agents=(agent,), **members)).command
    assert command is not None
    return command


def all_pages(fleet: LedgerFleet, which: CommandFilter, limit: int = 2) -> list[CommandView]:
    """Return the commands of all pages, each of which is at most as long as the limit."""
    found: list[CommandView] = []
    cursor: str | None = None
    while True:
        page = fleet.commands(which, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        found += page.items
        if (cursor := page.next) is None:
            return found


def test_command_to_one_agent_is_added_with_its_origin(fleet: LedgerFleet, ledger: Ledger) -> None:
    sent = sent_to(fleet, "web-01", parameters={"delay_s": 2.0}, expires_in_s=60.0, timeout_s=5.0)
    assert sent == fleet.command(sent.id)
    assert (sent.agent, sent.state, sent.outcome, sent.operation_id) == ("web-01", CommandState.QUEUED, None, None)
    command = ledger.get(sent.id).command
    assert (command.origin, command.parameters, command.timeout_s) == (ORIGIN, {"delay_s": 2.0}, 5.0)
    assert sent.expires_at == sent.created_at + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("request_", "agents"),
    [
        (SendRequest("start-agent", agents=("web-02", "db-01")), ["db-01", "web-02"]),
        (SendRequest("start-agent", agents=("web-*",)), ["web-01", "web-02"]),
        (SendRequest("start-agent", group="edge"), ["web-01", "web-02"]),
        (SendRequest("start-agent", all=True), ["db-01", "web-01", "web-02"]),
    ],
)
def test_command_to_many_agents_is_an_operation(fleet: LedgerFleet, request_: SendRequest, agents: list[str]) -> None:
    operation = fleet.send(request_).operation
    assert operation is not None
    assert operation.size == len(agents)
    progress = fleet.operation(operation.id)
    assert (progress.operation, progress.counts, progress.done) == (operation, {"queued": len(agents)}, False)
    assert [it.agent for it in all_pages(fleet, CommandFilter(operation=operation.id))] == agents
    assert fleet.operations().items == (operation,)


def test_dry_run_checks_and_names_the_agents_but_sends_nothing(fleet: LedgerFleet) -> None:
    sent = fleet.send(replace(RESTART, dry_run=True))
    assert (sent.agents, sent.command, sent.operation) == (("db-01", "web-01", "web-02"), None, None)
    assert fleet.commands(ALL) == PageOf(())
    with raises_code(BrokerError, "unknown_parameter"):
        fleet.send(replace(RESTART, dry_run=True, parameters={"delay": 1}))


def test_type_that_is_unknown_here_is_sent_with_a_warning(fleet: LedgerFleet) -> None:
    sent = fleet.send(SendRequest("rotate-everything", agents=("web-01",)))
    assert sent.command is not None
    assert "rotate-everything" in sent.warnings[0]


@pytest.mark.parametrize(
    ("request_", "error", "code"),
    [
        (SendRequest("restart-agent"), InvalidArgument, "ambiguous_target"),
        (SendRequest("restart-agent", agents=("web-01",), all=True), InvalidArgument, "ambiguous_target"),
        (SendRequest("restart-agent", agents=("mail-01",)), UnknownAgent, "unknown_agent"),
        (SendRequest("restart-agent", agents=("mail-*",)), UnknownAgent, "no_agent_matches"),
        (SendRequest("restart-agent", agents=("a b",)), InvalidName, "invalid_name"),
        (
            SendRequest("restart-agent", agents=("web-01",), parameters={"delay_s": -1}),
            BrokerError,
            "invalid_parameter",
        ),
    ],
)
def test_bad_request_is_refused(fleet: LedgerFleet, request_: SendRequest, error: type[CodedError], code: str) -> None:
    with raises_code(error, code):
        fleet.send(request_)
    assert fleet.commands(ALL) == PageOf(())


def test_new_agent_is_accepted_if_that_is_asked_for(fleet: LedgerFleet) -> None:
    request = SendRequest("restart-agent", agents=("new-01",), allow_unknown=True)
    assert fleet.send(request).command is not None


def test_result_of_a_command_is_shown(fleet: LedgerFleet, ledger: Ledger) -> None:
    sent = sent_to(fleet, "web-01")
    record_feedback(ledger, "web-01", [result(sent.id)])
    shown = fleet.command(sent.id)
    assert (shown.state, shown.outcome) == (CommandState.COMPLETED, Outcome.SUCCESS)
    assert shown.result is not None
    assert shown.result["message"] == "Done."
    assert shown.completed_at is not None


def test_secret_parameter_is_masked(fleet: LedgerFleet) -> None:
    sent = fleet.send(SendRequest("rotate-password", {"password": "hunter2"}, agents=("web-01",))).command
    assert sent is not None
    assert "hunter2" not in str(sent)
    assert "hunter2" not in str(fleet.command(sent.id))


def test_commands_are_filtered_by_everything_that_is_given(
    fleet: LedgerFleet, ledger: Ledger, clock: TurnedClock
) -> None:
    first = sent_to(fleet, "web-01")
    clock.turn(10)
    second = sent_to(fleet, "web-01", "start-agent")
    third = sent_to(fleet, "db-01")
    clock.turn(10)
    operation = fleet.send(SendRequest("restart-agent", group="edge")).operation
    record_feedback(ledger, "web-01", [result(first.id)])
    ledger.fail(third.id, ErrorCode.INVALID, "It was refused.")
    assert operation is not None
    of_operation = all_pages(fleet, CommandFilter(operation=operation.id))
    newest = [it.id for it in all_pages(fleet, ALL)]
    assert newest[2:] == [*sorted([second.id, third.id], reverse=True), first.id]
    assert sorted(newest[:2]) == sorted(it.id for it in of_operation)
    since, until = second.created_at, second.created_at + timedelta(seconds=1)
    for which, expected in (
        (CommandFilter(agent="db-01"), [third.id]),
        (CommandFilter(agent="web-01"), [of_operation[0].id, second.id, first.id]),
        (CommandFilter(type="start-agent"), [second.id]),
        (CommandFilter(type="start"), []),
        (CommandFilter(agent="web-01", type="restart-agent"), [of_operation[0].id, first.id]),
        (CommandFilter(state=CommandState.QUEUED, agent="web-01"), [of_operation[0].id, second.id]),
        (CommandFilter(state=CommandState.RUNNING), []),
        (CommandFilter(outcome=Outcome.SUCCESS), [first.id]),
        (CommandFilter(outcome=Outcome.ERROR), [third.id]),
        (CommandFilter(state=CommandState.COMPLETED), [third.id, first.id]),
        (CommandFilter(since=since, until=until), sorted([second.id, third.id], reverse=True)),
        (CommandFilter(since=since, agent="web-01"), [of_operation[0].id, second.id]),
        (CommandFilter(until=since), [first.id]),
        (CommandFilter(operation=operation.id, outcome=Outcome.SUCCESS), []),
    ):
        assert [it.id for it in all_pages(fleet, which, limit=1)] == expected, which


def test_pages_go_on_beyond_a_window_without_a_match(fleet: LedgerFleet, ledger: Ledger) -> None:
    oldest = sent_to(fleet, "web-01", "start-agent")
    request = SendRequest("restart-agent", agents=tuple(f"new-{n:03d}" for n in range(WINDOW + 1)), allow_unknown=True)
    fleet.send(request)
    page = fleet.commands(CommandFilter(type="start-agent"))
    assert page.items == ()
    assert fleet.commands(CommandFilter(type="start-agent"), cursor=page.next).items == (oldest,)
    assert len(all_pages(fleet, ALL, limit=100)) == WINDOW + 2


@pytest.mark.parametrize("cursor", ["", "x", "é", "!!!!", "bnVsbA", "WzEsMl0", "A" * 9])
def test_cursor_of_no_list_is_refused(fleet: LedgerFleet, cursor: str) -> None:
    for read in (
        lambda: fleet.commands(ALL, cursor=cursor),
        lambda: fleet.agents(AgentFilter(), cursor=cursor),
        lambda: fleet.operations(cursor=cursor),
    ):
        with raises_code(InvalidArgument, "invalid_cursor"):
            read()


def test_agents_are_filtered_and_paged(fleet: LedgerFleet, ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, Status("db-01", False, "1", "i", "b", "g"))
    sent_to(fleet, "web-02")
    lock = ServerLock(ledger.database, "acm-server", clock.now)
    lock.acquire()
    everyone = fleet.agents(AgentFilter())
    first = fleet.agents(AgentFilter(), limit=2)
    second = fleet.agents(AgentFilter(), cursor=first.next, limit=2)
    of_filter = [
        [it.name for it in fleet.agents(which).items]
        for which in (
            AgentFilter(name="web-*"),
            AgentFilter(state=AgentState.OFFLINE),
            AgentFilter(state=AgentState.ONLINE, group="edge"),
            AgentFilter(group="nobody"),
        )
    ]
    assert fleet.agent("web-02") == everyone.items[2]
    lock.release()
    assert [(it.name, it.open_commands) for it in everyone.items] == [("db-01", 0), ("web-01", 0), ("web-02", 1)]
    assert (first.items + second.items, everyone.next, second.next) == (everyone.items, None, None)
    assert of_filter == [["web-01", "web-02"], ["db-01"], ["web-01", "web-02"], []]


def test_agent_is_not_called_online_while_no_server_runs(fleet: LedgerFleet) -> None:
    assert fleet.agent("web-01").state is AgentState.UNKNOWN


def test_open_command_is_cancelled_or_abandoned_once(fleet: LedgerFleet, ledger: Ledger) -> None:
    never_sent, sent = sent_to(fleet, "web-01"), sent_to(fleet, "web-02")
    ledger.claim_due(10, ["web-02"])
    assert fleet.cancel(never_sent.id).outcome is Outcome.ERROR
    assert fleet.cancel(sent.id).cancel_requested
    assert fleet.abandon(sent.id).state is CommandState.COMPLETED
    for again in (fleet.cancel, fleet.abandon):
        with pytest.raises(AlreadyCompleted):
            again(sent.id)
    with pytest.raises(UnknownCommand):
        fleet.cancel("none")


def test_operation_is_cancelled_or_abandoned(fleet: LedgerFleet, ledger: Ledger) -> None:
    operation = fleet.send(RESTART).operation
    assert operation is not None
    ledger.claim_due(10, ["web-01"])
    assert fleet.cancel_operation(operation.id).count == 3
    assert fleet.operation(operation.id).counts == {"sent": 1, "error": 2}
    assert fleet.abandon_operation(operation.id).count == 1
    assert fleet.operation(operation.id).done
    with pytest.raises(UnknownOperation):
        fleet.abandon_operation("none")


def test_principal_with_groups_sees_nothing_else(fleet: LedgerFleet, edge: LedgerFleet) -> None:
    mine, other = sent_to(fleet, "web-01"), sent_to(fleet, "db-01")
    operation = fleet.send(RESTART).operation
    of_others = fleet.send(SendRequest("restart-agent", group="core")).operation
    assert operation is not None
    assert of_others is not None
    assert {it.agent for it in all_pages(edge, ALL)} == {"web-01", "web-02"}
    assert edge.command(mine.id) == mine
    assert [it.name for it in edge.agents(AgentFilter()).items] == ["web-01", "web-02"]
    assert [it.name for it in edge.groups()] == ["edge"]
    assert edge.operation(operation.id).counts == {"queued": 2}
    assert edge.operations().items == (operation,)
    for error, call in (
        (UnknownCommand, lambda: edge.command(other.id)),
        (UnknownCommand, lambda: edge.timeline(other.id)),
        (UnknownCommand, lambda: edge.cancel(other.id)),
        (UnknownCommand, lambda: edge.abandon(other.id)),
        (UnknownAgent, lambda: edge.agent("db-01")),
        (UnknownAgent, lambda: edge.commands(CommandFilter(agent="db-01"))),
        (UnknownOperation, lambda: edge.operation(of_others.id)),
        (UnknownOperation, lambda: edge.cancel_operation(of_others.id)),
        (UnknownAgent, lambda: edge.send(SendRequest("restart-agent", agents=("db-01",)))),
        (UnknownAgent, lambda: edge.send(SendRequest("restart-agent", group="core"))),
    ):
        with pytest.raises(error):
            call()


def test_principal_with_groups_commands_only_their_agents(fleet: LedgerFleet, edge: LedgerFleet) -> None:
    operation = fleet.send(RESTART).operation
    assert operation is not None
    assert edge.send(replace(RESTART, dry_run=True)).agents == ("web-01", "web-02")
    assert edge.cancel_operation(operation.id).count == 2
    assert fleet.operation(operation.id).counts == {"queued": 1, "error": 2}
    assert edge.abandon_operation(operation.id).count == 0


def test_what_belongs_to_an_answer_is_written_with_it_or_not_at_all(ledger: Ledger, fleet: LedgerFleet) -> None:
    answers: list[object] = []
    noting = LedgerFleet(ledger, ORIGIN, also=lambda connection, answer: answers.append(answer))

    def refuse(connection: sa.Connection, answer: object) -> None:
        raise InvalidArgument("It was answered before.")

    refusing = LedgerFleet(ledger, ORIGIN, also=refuse)
    one = noting.send(SendRequest("restart-agent", agents=("web-01",)))
    many = noting.send(RESTART)
    assert one.command is not None
    assert many.operation is not None
    before = all_pages(fleet, ALL)
    for call in (
        lambda: refusing.send(SendRequest("restart-agent", agents=("web-01",))),
        lambda: refusing.send(RESTART),
        lambda: refusing.cancel(one.command.id),
        lambda: refusing.abandon(one.command.id),
        lambda: refusing.cancel_operation(many.operation.id),
        lambda: refusing.abandon_operation(many.operation.id),
    ):
        with pytest.raises(InvalidArgument):
            call()
    assert all_pages(fleet, ALL) == before
    assert len(fleet.operations().items) == 1
    done = [noting.cancel(one.command.id), noting.cancel_operation(many.operation.id)]
    assert answers == [one, many, *done]


def test_ids_are_found_by_their_beginning_among_what_the_principal_sees(fleet: LedgerFleet, edge: LedgerFleet) -> None:
    own, other = sent_to(fleet, "web-01").id, sent_to(fleet, "db-01").id
    for_others = fleet.send(SendRequest("restart-agent", group="core")).operation
    assert for_others is not None
    assert fleet.find_ids(own.upper()).commands == (own,)
    assert fleet.find_ids(for_others.id[:-1]).operations == (for_others.id,)
    assert edge.find_ids(own[:-1]).commands == (own,)
    assert (edge.find_ids(other).commands, edge.find_ids(for_others.id).operations) == ((), ())
    assert fleet.find_ids("nonsense").commands == ()


def test_principal_with_groups_sends_only_its_own_again(fleet: LedgerFleet, edge: LedgerFleet) -> None:
    sent = fleet.send(RESTART).operation
    assert sent is not None
    fleet.abandon_operation(sent.id)
    again = edge.retry_operation(sent.id).operation
    assert again is not None
    assert {it.agent for it in fleet.newest_commands(CommandFilter(operation=again.id))} == {"web-01", "web-02"}
    other = sent_to(fleet, "db-01").id
    fleet.abandon(other)
    with pytest.raises(UnknownCommand):
        edge.retry(other)


def test_principal_with_groups_adds_no_unknown_agent_to_them(fleet: LedgerFleet, edge: LedgerFleet) -> None:
    for name in ("db-01", "new-01"):
        with pytest.raises(UnknownAgent):
            edge.add_to_group("edge", [name], allow_unknown=True)
    assert fleet.add_to_group("edge", ["new-01"], allow_unknown=True).agents == ("new-01", "web-01", "web-02")
    assert edge.group("edge") == edge.remove_from_group("edge", ["nobody"])
    with raises_code(UnknownAgent, "unknown_group"):
        edge.group("core")


def test_agent_is_shown_with_those_of_its_groups_that_may_be_seen(fleet: LedgerFleet, edge: LedgerFleet) -> None:
    fleet.add_to_group("core", ["web-01"])
    assert (fleet.agent("web-01").groups, edge.agent("web-01").groups) == (("core", "edge"), ("edge",))


def test_group_that_may_not_be_seen_is_in_no_answer(ledger: Ledger, fleet: LedgerFleet, edge: LedgerFleet) -> None:
    fleet.add_to_group("core", ["web-01"])
    record_status(ledger, Status("web-01", True, "1", "i2", "b", "g", groups=("core", "edge")))
    status = edge.agent("web-01").status
    assert (status or {})["groups"] == ["edge"]
    assert edge.agents(AgentFilter(group="core")) == PageOf(())
    with raises_code(UnknownAgent, "no_agent_matches"):
        edge.send(SendRequest("restart-agent", group="core"))
    assert {it.group for it in edge.events(EventFilter()) if it.group} == {"edge"}


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (SendRequest("restart-agent", agents=("web-01", "db-01")), "some agents"),
        (SendRequest("restart-agent", agents=("web-01", "db-*")), "some agents"),
        (SendRequest("restart-agent", group="core"), "some agents"),
        (SendRequest("restart-agent", group="edge"), "group edge"),
        (SendRequest("restart-agent", agents=("web-*", "web-01")), "web-*,web-01"),
        (RESTART, "all agents"),
    ],
)
def test_operation_names_no_agent_or_group_that_may_not_be_seen(
    fleet: LedgerFleet, edge: LedgerFleet, request_: SendRequest, shown: str
) -> None:
    fleet.add_to_group("core", ["web-01"])
    sent = fleet.send(request_).operation
    assert sent is not None
    fleet.abandon_operation(sent.id)
    assert edge.operation(sent.id).operation.target == shown
    assert [it.target for it in edge.operations().items] == [shown]
    again = edge.retry_operation(sent.id).operation
    assert (again and again.target, fleet.operation(sent.id).operation) == (shown, sent)
