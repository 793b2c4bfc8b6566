"""What is in the ledger, as metrics, on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.app.factories import open_database
from broker.contract.messages import Origin, Status
from broker.enrolment.ledger_metrics import of_ledger
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status

AGENTS = ("db-01", "web-01", "web-02")


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(ledger_url) as database:
        yield Ledger(database, now=clock.now)


def read(ledger: Ledger, clock: TurnedClock) -> dict[str, dict[tuple[str, ...], object]]:
    """Return the metrics of the ledger by name, as a program that has just started exposes them."""
    families = of_ledger(ledger.database, clock.now, clock.monotonic)()
    return {it.metric.name: dict(it.values) for it in families}


def send(ledger: Ledger, agent: str) -> str:
    return ledger.add_command(agent, CommandRequest("restart-agent", {}, Origin("me", "test"))).id


def test_empty_ledger_has_zeros(ledger: Ledger, clock: TurnedClock) -> None:
    metrics = read(ledger, clock)
    assert set(metrics["acm_agents"].values()) == set(metrics["acm_open_commands"].values()) == {0}
    assert set(metrics["acm_agent_certificates"].values()) == {0}
    assert metrics["acm_ledger_available"] == {(): 1}
    assert metrics["acm_ledger_size_bytes"][()] > 10_000  # type: ignore[operator]


def test_commands_and_agents_are_counted_by_state(ledger: Ledger, clock: TurnedClock) -> None:
    for name in AGENTS:
        record_status(ledger, Status(name, name != "db-01", "1", "i", "b", "g"))
    done = send(ledger, "web-01")
    ledger.claim_due(10)
    record_feedback(ledger, "web-01", [result(done)])
    clock.turn(10)
    send(ledger, "web-01")
    clock.turn(5)
    send(ledger, "web-01")
    metrics = read(ledger, clock)
    assert metrics["acm_agents"] == {("online",): 2, ("offline",): 1, ("silent",): 0, ("unknown",): 0}
    assert metrics["acm_open_commands"][("queued",)] == metrics["acm_due_commands"][()] == 2
    assert metrics["acm_oldest_command_age_seconds"][("queued",)] == 5
    assert metrics["acm_oldest_command_age_seconds"][("sent",)] == 0
    assert metrics["acm_longest_queue_commands"] == {(): 2}


def test_agents_that_do_not_answer_are_counted(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, Status("web-01", True, "1", "i", "b", "g"))
    send(ledger, "web-01")
    ledger.claim_due(10)
    clock.turn(60)
    ledger.requeue_overdue()
    assert read(ledger, clock)["acm_unanswering_agents"] == {(): 1}


def test_ledger_out_of_reach_is_said_and_nothing_else(tmp_path: Path, clock: TurnedClock) -> None:
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        with database.transaction() as connection:
            connection.exec_driver_sql("ALTER TABLE blobs RENAME TO others")
        assert read(Ledger(database, now=clock.now), clock) == {"acm_ledger_available": {(): 0}}


def test_gauges_are_read_again_after_five_seconds(ledger: Ledger, clock: TurnedClock) -> None:
    source = of_ledger(ledger.database, clock.now, clock.monotonic)

    def queued() -> object:
        (found,) = [it.values[("queued",)] for it in source() if it.metric.name == "acm_open_commands"]
        return found

    assert queued() == 0
    send(ledger, "web-01")
    assert queued() == 0
    clock.turn(5)
    assert queued() == 1
