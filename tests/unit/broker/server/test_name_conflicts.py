"""Two processes under one agent's name: named once an incarnation returns, and never for restarts."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from broker.app.factories import open_database
from broker.contract.codec import encode
from broker.contract.messages import Status
from broker.contract.topics import Topics
from broker.ledger.ledger import Ledger
from broker.server.server import Server
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.wire import FakeBroker
from tests.support.makers import inbound_on

STATUS = Status("web-01", True, "1", "i1", "b1", "g1", last_error="The disk is full.")


class Site:
    def __init__(self, ledger: Ledger, clock: TurnedClock) -> None:
        self.ledger = ledger
        self._server = Server(ledger, FakeBroker().connect("s", []), Topics(), monotonic=clock.monotonic)

    def report(self, *incarnations: str, online: bool = True) -> str:
        """Receive statuses of these incarnations; return what `acm agents` shows as the last error."""
        for incarnation in incarnations:
            status = replace(STATUS, incarnation=incarnation, online=online)
            self._server.receive([inbound_on("acm/web-01/status", encode([status]))])
        return str(self.ledger.last_error_of("web-01"))


@pytest.fixture
def site(clock: TurnedClock) -> Iterator[Site]:
    ledger = Ledger(open_database("sqlite://"), now=clock.now)
    yield Site(ledger, clock)
    ledger.database.close()


def test_incarnation_that_returns_is_named_in_log_and_status_for_ten_minutes(site: Site, clock: TurnedClock) -> None:
    with capture_logs() as lines:
        shown = site.report("a", "b", "a", "b", "a")
    assert shown.startswith("Two processes run under the name web-01")
    assert shown.endswith("The disk is full.")
    assert [(line["event"], line["agent"]) for line in lines if line["log_level"] == "warning"] == [
        ("agent_name_used_twice", "web-01")
    ]
    clock.turn(601)
    assert site.report("a") == "The disk is full."


def test_restarts_and_last_wills_are_no_conflict(site: Site) -> None:
    assert site.report("a", "a", "b", "c", "d") == "The disk is full."
    assert site.report("c", online=False) == "The disk is full."
    assert site.report("d") == "The disk is full."
