"""What the process of an agent writes of itself into `status.json`, and how often."""

from collections.abc import Callable
from pathlib import Path

import pytest

from broker.contract.states import Problem
from broker.system.files import state_of
from consumer.engine.process_report import ProcessReport
from consumer.engine.status import StatusBuilder
from consumer.errors import StoreError
from consumer.store.process_record import ProcessRecord, read_process_record
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.makers import NOW, command, config

REFUSED = "No connection to 127.0.0.1:1: connection refused."


class Line:
    """A connection to a broker that the test makes and breaks."""

    def __init__(self) -> None:
        self.connected = False
        self.last_error: str | None = None

    @property
    def summary(self) -> str:
        return "Connected to the broker." if self.connected else self.last_error or "Connecting."


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def status(clock: TurnedClock, store: MemoryCommandStore) -> StatusBuilder:
    builder = StatusBuilder(config(), store, clock, incarnation="i1", supported_types=("x",))
    builder.take_due(None)
    return builder


@pytest.fixture
def report(tmp_path: Path, status: StatusBuilder, line: Line, clock: TurnedClock) -> ProcessReport:
    return ProcessReport(tmp_path, status, line, clock, "mqtt://127.0.0.1")


@pytest.fixture
def written(tmp_path: Path, report: ProcessReport) -> Callable[[], ProcessRecord]:
    def step_and_read() -> ProcessRecord:
        report.step()
        record = read_process_record(tmp_path)
        assert record is not None
        return record

    return step_and_read


def test_record_has_the_connection_and_since_when(
    written: Callable[[], ProcessRecord], line: Line, clock: TurnedClock
) -> None:
    began = clock.now()
    assert (written().connected, written().connection) == (False, "Connecting.")
    clock.turn(5.0)
    line.last_error = REFUSED
    failed = written()
    assert (failed.connection, failed.connection_since, failed.started_at) == (REFUSED, began, began)
    clock.turn(5.0)
    line.connected, line.last_error = True, None
    assert (written().connected, written().connection_since) == (True, clock.now())


def test_incidents_that_last_come_before_the_last_ones_that_have_ended(
    written: Callable[[], ProcessRecord], status: StatusBuilder, line: Line, clock: TurnedClock
) -> None:
    began = clock.now()
    line.last_error = REFUSED
    written()
    clock.turn(5.0)
    line.connected, line.last_error = True, None
    status.problems.report(Problem.PLUG_IN, "A plug-in is broken.")
    current, ended = written().incidents
    assert (current.text, current.since, current.until) == ("A plug-in is broken.", clock.now(), None)
    assert (ended.text, ended.since, ended.until) == (REFUSED, began, clock.now())
    for number in range(30):
        line.connected, line.last_error = False, f"Failure {number}."
        last = written()
    assert len(last.incidents) == 12
    assert [it.text for it in last.incidents[:3]] == ["A plug-in is broken.", "Failure 29.", "Failure 28."]


def test_sentence_that_is_wrong_while_connected_is_that_of_the_status_alone(
    written: Callable[[], ProcessRecord], line: Line
) -> None:
    line.connected, line.last_error = True, "The broker refused a message."
    assert written().incidents == ()


def test_busy_agent_writes_it_every_two_seconds_at_most(
    tmp_path: Path, status: StatusBuilder, store: MemoryCommandStore, report: ProcessReport, clock: TurnedClock
) -> None:
    report.step()
    seen = {state_of(tmp_path / "status.json")}
    for number in range(1000):  # ten seconds
        clock.turn(0.01)
        store.store_command(command(str(number), number + 1), NOW)
        status.take_due(str(number))
        report.step()
        seen.add(state_of(tmp_path / "status.json"))
    assert 5 <= len(seen) <= 6


def test_idle_agent_writes_it_every_five_minutes(
    tmp_path: Path, status: StatusBuilder, written: Callable[[], ProcessRecord], clock: TurnedClock
) -> None:
    first = written()
    clock.turn(299.0)
    status.take_due(None)
    assert written() == first
    clock.turn(1.0)
    status.take_due(None)
    assert written().written_at == clock.now()


def test_end_is_written_with_its_error(tmp_path: Path, report: ProcessReport, clock: TurnedClock) -> None:
    with report:
        report.step()
        clock.turn(60.0)
    stopped = read_process_record(tmp_path)
    assert stopped is not None
    assert (stopped.ended_at, stopped.end, stopped.connected) == (clock.now(), None, False)
    with raises_code(StoreError, "store_failed"), report:
        raise StoreError("The command store failed: disk I/O error.", code="store_failed")
    failed = read_process_record(tmp_path)
    assert failed is not None
    assert failed.end == "The command store failed: disk I/O error."
    with pytest.raises(ZeroDivisionError), report:
        raise ZeroDivisionError("by zero")
    crashed = read_process_record(tmp_path)
    assert crashed is not None
    assert crashed.end == "ZeroDivisionError: by zero"


def test_record_that_cannot_be_written_stops_nothing(
    tmp_path: Path, status: StatusBuilder, line: Line, clock: TurnedClock
) -> None:
    with ProcessReport(tmp_path / "missing", status, line, clock, "mqtt://127.0.0.1") as report:
        report.step()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{}", b'{"pid": "x"}', b"\xff", b"\x00" * 4096])
def test_record_that_the_disk_has_damaged_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    with raises_code(StoreError, "process_record_unreadable"):
        read_process_record(tmp_path)
