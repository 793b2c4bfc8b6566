"""Expired commands that can no longer begin are completed by the server."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from broker.app.factories import open_database
from broker.cli.main import app
from broker.contract.codec import encode
from broker.contract.messages import Command, Feedback, Origin, Status
from broker.contract.states import ErrorCode, FeedbackKind
from broker.contract.topics import Topics
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from broker.server.server import Server
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import inbound_on, result
from tests.support.recorded import record_feedback, record_status
from tests.unit.broker.server.test_server import RememberingWire

ONLINE = Status("web-01", True, "1", "i", "b", "g")


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(ledger_url) as database:
        yield Ledger(database, now=clock.now)


@pytest.fixture
def server(ledger: Ledger, clock: TurnedClock) -> Server:
    return Server(ledger, RememberingWire(), Topics(), monotonic=clock.monotonic)


def add(ledger: Ledger, expires_in_s: float | None = 10.0) -> Command:
    return ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test"), expires_in_s))


def publish(server: Server, status: Status) -> None:
    server.receive([inbound_on("acm/web-01/status", encode([status]))])


def accepted(command: Command) -> Feedback:
    return replace(
        result(command.id), kind=FeedbackKind.ACCEPTED, status="accepted", outcome=None, digest=None, finished_at=None
    )


def code_of(ledger: Ledger, command: Command) -> str | None:
    row = ledger.get(command.id)
    return row.result["code"] if row.result else None


def turn(server: Server, clock: TurnedClock, seconds: float, *, connected: bool = True) -> None:
    clock.turn(seconds)
    server.settle(connected=connected)
    if connected:
        server.step()


@pytest.mark.parametrize("connected", [True, False])
def test_command_that_was_never_sent_expires_at_its_time(
    server: Server, ledger: Ledger, clock: TurnedClock, connected: bool
) -> None:
    command, lasting = add(ledger), add(ledger, None)
    clock.turn(9.0)
    server.settle(connected=connected)
    assert ledger.get(command.id).state is CommandState.QUEUED
    clock.turn(1.0)
    with capture_logs() as logs:
        server.settle(connected=connected)
    assert code_of(ledger, command) == ErrorCode.EXPIRED
    assert ledger.get(lasting.id).state is CommandState.QUEUED
    assert [(log["event"], log["command_id"]) for log in logs] == [("command_expired", command.id)]
    server.step()
    assert ledger.get(lasting.id).state is CommandState.SENT


@pytest.mark.parametrize("seen", ["never", "offline", "silent"])
def test_command_that_was_sent_to_an_agent_that_is_away_expires_a_minute_later(
    server: Server, ledger: Ledger, clock: TurnedClock, seen: str
) -> None:
    server.connected()
    if seen != "never":
        publish(server, replace(ONLINE, online=seen == "silent"))
    command = add(ledger)
    turn(server, clock, 0.0)
    assert ledger.get(command.id).state is CommandState.SENT
    turn(server, clock, 60.0)
    assert ledger.get(command.id).state is CommandState.SENT
    turn(server, clock, 601.0 if seen == "silent" else 10.0)
    assert code_of(ledger, command) == ErrorCode.EXPIRED


def test_agent_decides_about_what_it_may_still_begin(server: Server, ledger: Ledger, clock: TurnedClock) -> None:
    server.connected()
    publish(server, ONLINE)
    sent, taken = add(ledger), add(ledger)
    turn(server, clock, 0.0)
    record_feedback(ledger, "web-01", [accepted(taken)])
    turn(server, clock, 300.0)
    assert ledger.get(sent.id).state is CommandState.SENT  # the agent is online: it answers
    publish(server, replace(ONLINE, online=False))
    turn(server, clock, 300.0)
    assert code_of(ledger, sent) == ErrorCode.EXPIRED
    assert ledger.get(taken.id).state is CommandState.ACCEPTED  # it may have begun


def test_nothing_that_was_sent_expires_before_the_agents_news_can_have_arrived(
    server: Server, ledger: Ledger, clock: TurnedClock
) -> None:
    command = add(ledger)
    server.step()
    clock.turn(1000.0)
    server.settle(connected=False)
    server.connected()
    server.settle(connected=True)
    turn(server, clock, 59.0)
    assert ledger.get(command.id).state is CommandState.SENT
    turn(server, clock, 2.0)
    assert code_of(ledger, command) == ErrorCode.EXPIRED


def test_true_result_replaces_the_expiry(server: Server, ledger: Ledger, clock: TurnedClock) -> None:
    server.connected()
    command = add(ledger)
    turn(server, clock, 0.0)
    turn(server, clock, 100.0)
    assert code_of(ledger, command) == ErrorCode.EXPIRED
    record_feedback(ledger, "web-01", [result(command.id)])
    found = ledger.get(command.id).result
    assert found is not None
    assert found["outcome"] == "success"


def test_many_expire_at_once(server: Server, ledger: Ledger, clock: TurnedClock) -> None:
    names = [f"web-{number}" for number in range(250)]
    operation = ledger.add_operation(names, "all", CommandRequest("restart-agent", {}, Origin("me", "test"), 10.0))
    turn(server, clock, 10.0, connected=False)
    assert ledger.operations.progress(operation.id).counts() == {"error": 250}


def test_command_that_was_never_sent_is_cancelled_at_once(ledger: Ledger) -> None:
    command = add(ledger)
    assert ledger.request_cancel(command.id).state is CommandState.COMPLETED
    assert code_of(ledger, command) == ErrorCode.CANCELLED
    operation = ledger.add_operation(["a", "b"], "a,b", CommandRequest("restart-agent", {}, Origin("me", "test")))
    ledger.claim_due(1, ["a"])
    assert ledger.cancel_operation(operation.id) == 2
    states = {row.agent: row.state for row in ledger.commands(operation_id=operation.id)}
    assert states == {"a": CommandState.SENT, "b": CommandState.COMPLETED}


def acm(url: str, *words: str) -> Any:
    return CliRunner().invoke(app, words, env={"ACM_LEDGER": url, "COLUMNS": "200"}, catch_exceptions=False)


def test_expiry_is_in_each_view(ledger: Ledger, ledger_url: str, clock: TurnedClock) -> None:
    command, lasting = add(ledger, 1e9), add(ledger, None)
    expires_at = command.created_at + timedelta(seconds=1e9)
    text = f"{expires_at:%Y-%m-%d %H:%M:%S}"
    assert f"expires at {text} UTC" in acm(ledger_url, "show", command.id).stdout
    assert text.replace(" ", "T") in acm(ledger_url, "commands").stdout
    shown, without = (json.loads(acm(ledger_url, "show", it.id, "--json").stdout) for it in (command, lasting))
    assert shown["commands"][0]["expires_at"][:19] == text.replace(" ", "T")
    assert without["commands"][0]["expires_at"] is None
    assert "expire" not in acm(ledger_url, "show", lasting.id).stdout
    past = add(ledger, 1.0)
    assert "expired at" in acm(ledger_url, "show", past.id).stdout  # by this machine's clock


def test_expiry_is_doubted_if_the_agent_has_lost_the_store_that_would_tell(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, ONLINE)
    sent = add(ledger)
    ledger.claim_due(10)
    never_sent = add(ledger)
    record_status(ledger, replace(ONLINE, online=False))
    clock.turn(100.0)
    ledger.settle_expired(may_be_sent=True)
    codes = [(ledger.get(it.id).result or {})["code"] for it in (sent, never_sent)]
    record_status(ledger, replace(ONLINE, store_generation="g2", incarnation="i2"))
    later = [(ledger.get(it.id).result or {})["code"] for it in (sent, never_sent)]
    assert (codes, later) == ([ErrorCode.EXPIRED] * 2, [ErrorCode.INTERRUPTED, ErrorCode.EXPIRED])
