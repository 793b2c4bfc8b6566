"""What the server's counters have after a command's way, a gap, refused messages and a lost store."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.app.factories import open_database
from broker.contract.codec import encode
from broker.contract.messages import Command, Feedback, Origin, SequenceNumber, Status
from broker.contract.states import FeedbackKind
from broker.contract.topics import Topics
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.metrics.values import Buckets
from broker.server import receiver
from broker.server.counts import AgentGroups, ServerCounts
from broker.server.server import Server
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.wire import FakeBroker
from tests.support.makers import inbound_on, result


class Counted:
    """A server whose work is counted, on a ledger in memory."""

    def __init__(self) -> None:
        self.clock = TurnedClock()
        self.ledger = Ledger(open_database("sqlite://"), now=self.clock.now)
        groups = AgentGroups(self.ledger.groups, self.clock.monotonic)
        self._counts = ServerCounts(groups, self.clock.now, self.clock.monotonic)
        wire = FakeBroker().connect("acm-server", [])
        self.server = Server(self.ledger, wire, Topics(), monotonic=self.clock.monotonic, watch=self._counts)
        self.read()

    def send(self, expires_in_s: float | None = None) -> Command:
        request = CommandRequest("restart-agent", {}, Origin("me", "test"), expires_in_s)
        return self.ledger.add_command("web-01", request)

    def say(self, *said: Feedback) -> None:
        self.server.receive([inbound_on("acm/web-01/feedback", encode(list(said)))])

    def read(self) -> None:
        self.values = {it.metric.name: it.values for it in self._counts.families()}

    def number(self, name: str, *labels: str) -> float:
        self.read()
        value = self.values[name][labels]
        assert not isinstance(value, Buckets)
        return value

    def time(self, name: str, *labels: str) -> tuple[int, float]:
        """Return how many values a histogram has, and their sum."""
        self.read()
        value = self.values[name][labels]
        assert isinstance(value, Buckets)
        return value.counts[-1][1], round(value.sum, 3)


@pytest.fixture
def counted() -> Iterator[Counted]:
    it = Counted()
    yield it
    it.ledger.database.close()


def feedback(kind: FeedbackKind, command_id: str) -> Feedback:
    return Feedback(kind, "web-01", "g", "i", str(kind), "", command_id=command_id)


def test_each_hop_of_a_command_is_timed_once(counted: Counted) -> None:
    command = counted.send()
    counted.clock.turn(1)
    counted.server.step()
    counted.clock.turn(2)
    counted.say(feedback(FeedbackKind.ACCEPTED, command.id))
    counted.clock.turn(4)
    counted.say(feedback(FeedbackKind.PROGRESS, command.id))
    began = counted.clock.now()
    counted.clock.turn(16)
    done = replace(result(command.id), started_at=began, finished_at=began + timedelta(seconds=8))
    counted.say(done)
    counted.say(done)
    hops = ("sent", "stored", "started", "finished", "reported")
    assert [counted.time("acm_command_hop_seconds", hop) for hop in hops] == [(1, s) for s in (1, 2, 4, 8, 8)]
    assert counted.time("acm_command_duration_seconds") == (1, 23)
    assert counted.time("acm_command_hop_seconds", "acked")[0] == counted.number("acm_acks_sent_total") == 2
    assert counted.number("acm_results_total", "restart-agent", "success", "none") == 1


def test_result_counts_for_the_first_group_of_its_agent(counted: Counted) -> None:
    for group in ("web", "edge"):
        counted.ledger.groups.add(group, ["web-01"])
    counted.clock.turn(60)
    counted.read()
    command = counted.send()
    counted.server.step()
    counted.say(result(command.id))
    assert counted.number("acm_results_total", "restart-agent", "success", "edge") == 1


def test_command_that_is_sent_again_counts_as_such(counted: Counted) -> None:
    counted.send()
    counted.server.step()
    counted.server.connected()
    counted.server.step()
    assert [counted.number("acm_commands_sent_total", it) for it in ("first", "again")] == [1, 1]
    assert counted.time("acm_command_hop_seconds", "sent") == (1, 0)


def test_expired_command_counts_as_an_error_of_the_server(counted: Counted) -> None:
    counted.send(expires_in_s=1)
    counted.clock.turn(2)
    counted.server.settle(connected=False)
    assert counted.number("acm_result_errors_total", "expired", "server") == 1


def test_gap_and_refused_message_are_counted(counted: Counted) -> None:
    counted.say(replace(feedback(FeedbackKind.GAP, ""), command_id=None, expected=1, sequence=SequenceNumber(7, 2)))
    counted.server.receive([inbound_on("acm/web-01/feedback", b"{")])
    assert counted.number("acm_gaps_total") == counted.number("acm_reports_received_total", "gap") == 1
    assert counted.number("acm_messages_refused_total", "feedback_refused") == 1


def test_each_reason_of_a_refusal_is_exposed_before_the_first(counted: Counted) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in Path(receiver.__file__).parent.glob("*.py"))
    reasons = re.findall(r'\.(?:refused|_refuse)\("(\w+)"', code)
    assert {(reason,) for reason in reasons} == set(counted.values["acm_messages_refused_total"])


def test_each_error_is_exposed_before_the_first(counted: Counted) -> None:
    assert counted.number("acm_result_errors_total", "failed", "agent") == 0
    assert counted.number("acm_messages_refused_by_agents_total", "superseded") == 0


def status(store: str) -> bytes:
    known = Status("web-01", True, "1.0", "i", "boot", store_generation=store)
    return encode([known])


def test_lost_store_begins_an_epoch(counted: Counted) -> None:
    counted.server.receive([inbound_on("acm/web-01/status", status("g"))])
    assert counted.number("acm_epochs_total") == 0
    counted.server.receive([inbound_on("acm/web-01/status", status("h"))])
    assert counted.number("acm_epochs_total") == 1
