"""One damaged row of the ledger stops no other, is reported, and is set aside. On both databases."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from broker.app.factories import open_database
from broker.contract.codec import decode_commands, encode
from broker.contract.messages import Command, Feedback, Origin, Status
from broker.contract.states import ErrorCode
from broker.contract.topics import Topics
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.pruning import LedgerPruning
from broker.ledger.tables import AGENTS, COMMANDS, CommandState
from broker.server.server import Server
from tests.support.damage import overwrite
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, inbound_on, result
from tests.support.postgresql import PostgreSQL
from tests.support.recorded import record_feedback, record_status
from tests.unit.broker.server.test_server import RememberingWire

NOT_JSON, NOT_UTF8 = b'{"id":', b'{"id":"\xff\xfe"}'


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(ledger_url) as database:
        yield Ledger(database, now=clock.now)


@pytest.fixture
def wire() -> RememberingWire:
    return RememberingWire()


@pytest.fixture
def server(ledger: Ledger, wire: RememberingWire) -> Server:
    return Server(ledger, wire, Topics())


def add(ledger: Ledger, agent: str = "web-01", **parameters: Any) -> Command:
    return ledger.add_command(agent, CommandRequest("restart-agent", parameters, Origin("me", "test")))


def sent(wire: RememberingWire) -> list[str]:
    frames = wire.on("/command")
    return [it.id for frame in frames for it in decode_commands(frame, received_at=NOW, new_id=lambda: "new")]


def status(agent: str = "web-01", **members: Any) -> Status:
    return replace(Status(agent, True, "1", "i1", "b1", "g1"), **members)


def receive(server: Server, *messages: Status | Feedback) -> None:
    for message in messages:
        channel = "status" if isinstance(message, Status) else "feedback"
        payload = encode([message])
        server.receive([inbound_on(f"acm/{message.agent}/{channel}", payload)])


def altered(command: Command) -> bytes:
    """A single bit of the content, in a row that can still be decoded."""
    return encode([replace(command, sequence=None)]).replace(b'"a"', b'"q"')


@pytest.mark.parametrize("damage", [NOT_JSON, NOT_UTF8, b"[]", b""])
def test_damaged_command_ends_alone_and_is_set_aside(
    ledger: Ledger, ledger_url: str, server: Server, wire: RememberingWire, damage: bytes
) -> None:
    damaged, other, next_one = add(ledger), add(ledger, "web-02"), add(ledger)
    overwrite(ledger_url, COMMANDS.c.body, damaged.id, damage)
    with capture_logs() as logs:
        server.step()
    assert sent(wire) == [next_one.id, other.id]
    row = ledger.get(damaged.id)
    assert (row.state, row.command.type) == ("completed", "unreadable")
    assert row.result
    assert row.result["code"] == "interrupted"
    (found,) = ledger.damaged_rows()
    assert (found.table, found.key, found.agent) == ("commands", damaged.id, "web-01")
    assert [(it["event"], it["key"]) for it in logs] == [("damaged_row_set_aside", damaged.id)]
    states = {it.command.id: it.state for it in ledger.commands()}
    assert states == {damaged.id: "completed", other.id: "sent", next_one.id: "sent"}


def test_altered_command_is_not_sent(ledger: Ledger, ledger_url: str, server: Server, wire: RememberingWire) -> None:
    command = add(ledger, text="a")
    overwrite(ledger_url, COMMANDS.c.body, command.id, altered(command))
    server.step()
    assert sent(wire) == []
    result_of = ledger.get(command.id).result or {}
    assert (result_of["code"], "damaged" in result_of["message"]) == (ErrorCode.INTERRUPTED, True)
    assert '"text":"q"' in ledger.damaged_rows()[0].content


def test_command_whose_agent_was_altered_reaches_no_other_agent(
    ledger: Ledger, ledger_url: str, server: Server, wire: RememberingWire
) -> None:
    command, _ = add(ledger), add(ledger, "web-11")
    server.step()
    wire.sent.clear()
    overwrite(ledger_url, COMMANDS.c.number, command.id, 99)  # free in the other agent's epoch
    overwrite(ledger_url, COMMANDS.c.agent, command.id, b"web-11")
    ledger.requeue_all()
    server.step()
    assert command.id not in sent(wire)


@pytest.mark.parametrize("damage", [NOT_JSON, NOT_UTF8])
def test_result_of_a_damaged_command_is_stored_and_acked(
    ledger: Ledger, ledger_url: str, server: Server, wire: RememberingWire, damage: bytes
) -> None:
    command = add(ledger)
    server.step()
    overwrite(ledger_url, COMMANDS.c.body, command.id, damage)
    receive(server, result(command.id))
    assert [json.loads(frame)["command_id"] for frame in wire.on("/ack")] == [command.id]
    row = ledger.get(command.id)
    assert (row.state, row.result and row.result["outcome"]) == (CommandState.COMPLETED, "success")


@pytest.mark.parametrize("damage", [NOT_JSON, NOT_UTF8])
def test_damaged_result_is_shown_as_such_beside_the_others(ledger: Ledger, ledger_url: str, damage: bytes) -> None:
    damaged, other = add(ledger), add(ledger)
    for command in (damaged, other):
        record_feedback(ledger, "web-01", [result(command.id)])
    overwrite(ledger_url, COMMANDS.c.result, damaged.id, damage)
    found = {row.command.id: row.result for row in ledger.commands()}
    assert [result and result["outcome"] for result in found.values()] == ["success", "success"]
    assert "damaged" in str(found[damaged.id])
    assert [it.key for it in ledger.damaged_rows()] == [damaged.id]


@pytest.mark.parametrize(
    ("column", "damage"),
    [
        (AGENTS.c.status, NOT_JSON),
        (AGENTS.c.status, NOT_UTF8),
        (AGENTS.c.past_incarnations, NOT_JSON),
        (AGENTS.c.past_incarnations, NOT_UTF8),
        (AGENTS.c.attempts, 1 << 30),
        (AGENTS.c.epoch, 1 << 62),
        (AGENTS.c.next_number, -5),
    ],
    ids=str,
)
def test_damaged_agent_is_reported_and_works_on(
    ledger: Ledger, ledger_url: str, server: Server, wire: RememberingWire, column: sa.Column[Any], damage: bytes | int
) -> None:
    for agent in ("web-01", "web-02"):
        receive(server, status(agent))
        add(ledger, agent)
    overwrite(ledger_url, column, "web-01", damage)
    assert [row.name for row in ledger.agents()] == ["web-01", "web-02"]
    receive(server, status(incarnation="i2"), status(incarnation="i3"))
    late = add(ledger)
    server.step()
    assert set(sent(wire)) >= {late.id, *(row.command.id for row in ledger.commands("web-02"))}
    assert [row.state for row in ledger.commands()] == [CommandState.SENT] * 3
    assert ledger.agents()[0].status == status(incarnation="i3")
    assert {it.key for it in ledger.damaged_rows()} == {"web-01"}


@pytest.mark.parametrize("column", [COMMANDS.c.state, COMMANDS.c.cancel])
def test_damaged_state_stops_nobody(
    ledger: Ledger, ledger_url: str, server: Server, wire: RememberingWire, column: sa.Column[Any]
) -> None:
    damaged, other = add(ledger), add(ledger, "web-02")
    operation = ledger.add_operation(["web-03"], "web-03", CommandRequest("restart-agent", {}, Origin("me", "test")))
    of_operation = ledger.commands(operation_id=operation.id)[0].command.id
    for name in (damaged.id, of_operation):
        overwrite(ledger_url, column, name, b"qu\xe5ued")
    assert len(ledger.commands()) == 3
    assert ledger.operations.progress(operation.id).counts()
    assert {it.key for it in ledger.damaged_rows()} == {damaged.id, of_operation}
    server.step()
    assert sent(wire) == [other.id]
    assert ledger.get(damaged.id).state is CommandState.COMPLETED


def test_cancel_for_a_damaged_name_is_not_due_for_ever(
    ledger: Ledger, ledger_url: str, server: Server, wire: RememberingWire
) -> None:
    command = add(ledger)
    server.step()
    ledger.request_cancel(command.id)
    record_status(ledger, status("web 01"))  # the row that PostgreSQL wants
    overwrite(ledger_url, COMMANDS.c.agent, command.id, b"web 01")
    server.step()
    assert wire.on("/control") == []
    assert ledger.due_agents("", 9) == []


def test_damaged_rows_are_pruned(ledger: Ledger, ledger_url: str, clock: TurnedClock) -> None:
    damaged, unseen = add(ledger), add(ledger)
    for command in (damaged, unseen):
        record_feedback(ledger, "web-01", [result(command.id)])
        overwrite(ledger_url, COMMANDS.c.body, command.id, NOT_UTF8)
    clock.turn(2 * 86400.0)
    assert LedgerPruning(ledger.database, clock.now()).run()["commands"] == 2
    assert ledger.damaged_rows() == []


def test_lost_store_of_an_agent_with_a_damaged_command_is_noticed(
    ledger: Ledger, ledger_url: str, server: Server
) -> None:
    receive(server, status())
    commands = [add(ledger), add(ledger)]
    server.step()
    overwrite(ledger_url, COMMANDS.c.body, commands[0].id, NOT_JSON)
    receive(server, status(store_generation="g2"))
    assert [row.result and row.result["code"] for row in ledger.commands()] == ["interrupted"] * 2


@pytest.fixture
def instance() -> Iterator[PostgreSQL]:
    own = PostgreSQL(is_durable=True)
    yield own
    own.remove()


def test_value_that_postgresql_cannot_decompress_stops_no_other_row(instance: PostgreSQL, clock: TurnedClock) -> None:
    url = instance.new_database()
    with open_database(url) as database:
        ledger = Ledger(database, now=clock.now)
        damaged = add(ledger, text="".join(random.Random(1).choices(("aaa", "bbb"), k=3000)))  # compressed to 1.5 KB
        other = add(ledger, "web-02")
    with instance.connect(url) as connection:
        (path,) = connection.execute("SELECT pg_relation_filepath('commands')").fetchone() or ("",)
    instance.kill_after_checkpoint()
    file = instance.data / path
    content = bytearray(file.read_bytes())
    at = content.find(damaged.id.encode())
    for place in range(at + 300, at + 700, 7):
        content[place] ^= 0xFF
    file.write_bytes(content)
    instance.start()
    with open_database(url) as database:
        ledger, wire = Ledger(database, now=clock.now), RememberingWire()
        Server(ledger, wire, Topics()).step()
        assert sent(wire) == [other.id]
        row = ledger.get(damaged.id)
        assert (row.state, (row.result or {})["code"]) == (CommandState.COMPLETED, "interrupted")
        assert [it.key for it in ledger.damaged_rows()] == [damaged.id]
