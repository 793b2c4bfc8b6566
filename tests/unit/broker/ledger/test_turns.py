"""All that arrived in a turn is recorded together: as if one by one, and by few statements."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.app.factories import open_database
from broker.contract.codec import encode
from broker.contract.messages import Command, Feedback, Origin, SequenceNumber, Status
from broker.contract.states import ErrorCode, FeedbackKind, Outcome
from broker.ledger.enqueue import CommandRequest
from broker.ledger.failures import RefusedByDatabase
from broker.ledger.ledger import Ledger
from broker.ledger.tables import AGENTS, COMMANDS, GROUP_MEMBERS, PRUNED_COMMANDS, STRAY_RESULTS
from broker.ledger.turns import Said
from tests.support.fakes.clock import TurnedClock
from tests.support.recorded import record_feedback, record_status

NAMES = ("a", "b", "c")
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


@contextmanager
def opened(url: str) -> Iterator[Ledger]:
    with open_database(url) as database:
        yield Ledger(database, now=TurnedClock().now)


def feedback(agent: str, kind: FeedbackKind, command_id: str | None = None, **members: Any) -> Feedback:
    return replace(Feedback(kind, agent, "g1", "i1", "pending", "m", command_id=command_id), **members)


def result(agent: str, command_id: str, digest: str = "d1", **members: Any) -> Feedback:
    echo = {"type": "restart-agent", "parameters": {}}
    ended = {"outcome": Outcome.SUCCESS, "digest": digest, "command": echo, **members}
    return feedback(agent, FeedbackKind.RESULT, command_id, **ended)


def status(agent: str, number: int = 1, **members: Any) -> Status:
    return replace(Status(agent, True, "1", "i1", "b1", "g1", order=(1, 1, number)), **members)


@contextmanager
def counted() -> Iterator[list[str]]:
    """Collect the statements of all databases."""
    statements: list[str] = []

    def collect(connection: object, cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", collect)
    yield statements
    sa.event.remove(sa.Engine, "before_cursor_execute", collect)


def statements_of_a_turn(url: str, prefix: str, count: int) -> tuple[int, int]:
    """Return how many statements it takes to claim commands of new agents, and to record all that they then say."""
    names = [f"{prefix}-{number:03}" for number in range(count)]
    with opened(url) as ledger:
        for _ in range(2):
            ledger.add_operation(names, "all", REQUEST)
        with counted() as claiming:
            claimed = ledger.claim_due(1000, names).commands
        said: dict[str, list[Said]] = {name: [] for name in names}
        for agent, command in claimed:
            said[agent] += [feedback(agent, FeedbackKind.ACCEPTED, command.id), result(agent, command.id)]
        for agent in names:
            newest = ledger.commands(agent)[0].command
            assert newest.sequence
            numbers = {"epoch": newest.sequence.epoch, "last_sequence": newest.sequence.number}
            said[agent] += [status(agent, **numbers), feedback(agent, FeedbackKind.PROGRESS, newest.id)]
        with counted() as recording:
            turn = ledger.record_turn(said)
        assert sum(len(recorded.acks) for _, recorded in turn.feedback) == 2 * count == len(claimed)
        assert all(row.result for name in names for row in ledger.commands(name))
    return len(claiming), len(recording)


def test_number_of_statements_does_not_depend_on_how_much_arrived(ledger_url: str) -> None:
    assert statements_of_a_turn(ledger_url, "few", 2) == statements_of_a_turn(ledger_url, "many", 40)


def test_messages_of_commands_are_what_encoding_gives(ledger_url: str) -> None:
    with opened(ledger_url) as ledger:
        sent: dict[str, Command] = {}
        for parameters in ({}, {"é": '"}\n\\'}, {"text": '"sequence":'}, {"notes": {"sequence": [1.5, None]}}):
            for wait in (None, 60.0):
                request = CommandRequest("x", parameters, Origin("é", "t"), expires_in_s=wait, timeout_s=wait)
                command = ledger.add_command("a", request)
                sent[command.id] = command
        assert [it.message for _, it in ledger.claim_due(9).commands] == [encode([it]) for it in sent.values()]


def test_text_that_would_be_cut_in_the_database_is_refused(ledger_url: str) -> None:
    with opened(ledger_url) as ledger:
        command = ledger.add_command("a", REQUEST)
        for said in (result("a", command.id, "d\0e"), status("a", store_generation="g\0h")):
            with pytest.raises(RefusedByDatabase):
                ledger.record_turn({"a": [said]})
        assert ledger.get(command.id).result is None


def test_result_of_a_completed_command_whose_digest_is_damaged_is_unmatched(ledger_url: str) -> None:
    with opened(ledger_url) as ledger:
        command = ledger.add_command("a", REQUEST)
        record_feedback(ledger, "a", [result("a", command.id)])
        remains = {"id": "pruned", "agent": "a", "epoch": 1, "number": 1, "completed_at": 1.0, "sha256": "0"}
        with ledger.database.transaction() as connection:
            connection.execute(COMMANDS.update().values(digest=None))
            connection.execute(PRUNED_COMMANDS.insert().values(remains))
        both = (command.id, "pruned")
        recorded = record_feedback(ledger, "a", [result("a", it, "d2", command=None) for it in both])
        assert {ack.command_id for ack in recorded.acks} == {*both}
        assert {it.command_id for it in ledger.page_of_unmatched(None, 9)[0]} == {*both}


# -- together as if one by one

_STATUSES = st.builds(
    lambda number, **members: ("status", number, members),
    st.integers(1, 6),
    online=st.booleans(),
    incarnation=st.sampled_from(["i1", "i2"]),
    groups=st.sampled_from([None, ("g",), ("g", "h")]),
    queue_depth=st.integers(0, 3),
)
_LOST = st.builds(lambda number: ("status", number, {"store_generation": "g2"}), st.integers(1, 6))
_PLAIN = st.tuples(
    st.sampled_from([FeedbackKind.ACCEPTED, FeedbackKind.PROGRESS, FeedbackKind.RESULT]),
    st.integers(0, 3),
    st.sampled_from(["d1", "d2", "server"]),
)
_UNUSUAL = st.tuples(
    st.sampled_from(["gap", "superseded", "refused", "unknown", "of another"]), st.integers(0, 3), st.just("d3")
)
_AGENTS = st.sampled_from(NAMES)
_MESSAGES = st.lists(st.tuples(_AGENTS, st.one_of(_STATUSES, _PLAIN)), max_size=12)
_ANY_MESSAGES = st.lists(st.tuples(_AGENTS, st.one_of(_STATUSES, _LOST, _PLAIN, _UNUSUAL)), max_size=12)


def message(agent: str, what: tuple[Any, ...], sent: Mapping[str, Sequence[Command]]) -> Said:
    kind, place, more = what
    if kind == "status":
        return status(agent, place, **more)
    command = sent[agent][place]
    if kind == "gap":
        return feedback(agent, FeedbackKind.GAP, sequence=command.sequence, expected=place + 1)
    if kind == "superseded":
        sequence = SequenceNumber(command.sequence.epoch, place + 1) if command.sequence else None
        return result(agent, command.id, more, code=ErrorCode.SUPERSEDED, sequence=sequence)
    if kind == "refused":
        return result(agent, command.id, more, code=ErrorCode.REJECTED, data={"refused": "message"})
    if kind == "unknown":
        return result(agent, f"unknown-{place}", more)
    if kind == "of another":
        return result(agent, sent[NAMES[NAMES.index(agent) - 1]][place].id, more)
    return result(agent, command.id, more) if kind is FeedbackKind.RESULT else feedback(agent, kind, command.id)


def outcome_of(turns: Sequence[Sequence[int]], messages: Sequence[tuple[str, tuple[Any, ...]]]) -> dict[str, Any]:
    """Return what is in a ledger after these turns, each with the messages at these places; ids become places."""
    with tempfile.TemporaryDirectory() as directory, opened(f"sqlite:///{Path(directory)}/ledger.db") as ledger:
        sent = {agent: [ledger.add_command(agent, REQUEST) for _ in range(4)] for agent in NAMES}
        record_status(ledger, *(status(agent) for agent in NAMES[:2]))
        ledger.claim_due(2, NAMES)
        ledger.claim_due(1, ["c"])
        ledger.request_cancel(sent["a"][0].id)
        ledger.abandon(sent["b"][0].id)
        for places in turns:
            said: dict[str, list[Said]] = {}
            for agent, what in (messages[place] for place in places):
                said.setdefault(agent, []).append(message(agent, what, sent))
            ledger.record_turn(said)
        ids = {command.id: f"{agent}{place}" for agent in NAMES for place, command in enumerate(sent[agent])}
        return dumped(ledger, ids)


def dumped(ledger: Ledger, ids: Mapping[str, str]) -> dict[str, Any]:
    """Return all rows, without what is random: ids, and the exact ends of timeouts."""
    found = {}
    with ledger.database.reading() as connection:
        for table in (AGENTS, COMMANDS, STRAY_RESULTS, GROUP_MEMBERS):
            rows = [{**row} for row in connection.execute(table.select()).mappings()]
            for row in rows:
                row |= {name: row[name] is not None for name in ("request", "resend_at", "body_check") if name in row}
            text = repr(sorted(rows, key=lambda row: repr([row.get(name) for name in ("name", "agent", "number")])))
            for command_id, place in ids.items():
                text = text.replace(command_id, place)
            found[table.name] = text
    return found


@settings(max_examples=30, derandomize=True)
@given(_ANY_MESSAGES)
def test_turn_of_many_agents_leaves_what_a_turn_of_each_leaves(messages: list[tuple[str, tuple[Any, ...]]]) -> None:
    each = [[place for place, (agent, _) in enumerate(messages) if agent == name] for name in NAMES]
    assert outcome_of([range(len(messages))], messages) == outcome_of(each, messages)


@settings(max_examples=30, derandomize=True)
@given(_MESSAGES)
def test_turn_leaves_what_its_messages_leave_one_by_one(messages: list[tuple[str, tuple[Any, ...]]]) -> None:
    one_by_one = [[place] for place in range(len(messages))]
    assert outcome_of([range(len(messages))], messages) == outcome_of(one_by_one, messages)
