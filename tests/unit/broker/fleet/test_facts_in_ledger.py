"""The facts of a command as they are read from a ledger, on both databases."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.app.factories import open_database
from broker.contract.messages import Origin, Status
from broker.contract.states import FeedbackKind
from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.fleet.facts import Facts, RunningFacts
from broker.fleet.facts_in_ledger import read_facts
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.server_lock import ServerLock
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status

REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"), expires_in_s=60.0, timeout_s=30.0)
STATUS = Status("web-01", True, "1", "i", "b", "g")


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(ledger_url) as database:
        yield Ledger(database, now=clock.now)


def facts_of(ledger: Ledger, command_id: str, clock: TurnedClock) -> Facts:
    return read_facts(ledger, ledger.get(command_id), clock.now())


def test_command_before_and_the_one_that_runs_are_found(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, STATUS)
    first, second, third = (ledger.add_command("web-01", REQUEST).id for _ in range(3))
    ledger.add_command("web-02", REQUEST)
    ledger.claim_due(9)
    record_feedback(ledger, "web-01", [replace(result(first), kind=FeedbackKind.PROGRESS)])
    began = clock.now()
    clock.turn(5.0)
    facts = facts_of(ledger, third, clock)
    assert (facts.queue.before, facts.queue.running) == (2, RunningFacts(first, "restart-agent", began))
    assert facts_of(ledger, second, clock).queue.before == 1
    own = facts_of(ledger, first, clock)
    assert (own.queue.before, own.queue.running, own.command.running_at) == (0, None, began)
    assert (own.command.timeout_s, own.command.expires_at) == (30.0, own.command.created_at + timedelta(seconds=60))
    assert facts.command.state == "sent"


@pytest.mark.parametrize(
    ("behind", "made", "ahead"),
    [(None, 0, None), (120, 0, -120.0), (None, 50, None), (None, 90, 90.0), (None, -900, None)],
)
def test_clock_is_compared_with_when_the_status_arrived(
    ledger: Ledger, clock: TurnedClock, behind: int | None, made: float, ahead: float | None
) -> None:
    made_at = clock.now() + timedelta(seconds=made)
    record_status(ledger, replace(STATUS, clock_behind_s=behind, updated_at=made_at, problems=("store_full",)))
    agent = facts_of(ledger, ledger.add_command("web-01", REQUEST).id, clock).agent
    assert (agent.clock_ahead_s, agent.state, agent.problems) == (ahead, "online", ("store_full",))


def test_agent_that_nothing_is_known_of_has_no_facts(ledger: Ledger, clock: TurnedClock) -> None:
    facts = facts_of(ledger, ledger.add_command("web-01", REQUEST).id, clock)
    assert (facts.agent.state, facts.agent.seen_at, facts.agent.enrolment, facts.agent.hold) == (
        "unknown",
        None,
        None,
        None,
    )
    assert (facts.servers, facts.command.is_due) == ((), True)


@pytest.mark.parametrize(
    ("revoked_at", "state", "hold"), [(None, "valid", None), (5.0, "revoked", "not_enrolled")], ids=["valid", "revoked"]
)
def test_enrolments_of_the_agent_are_read(
    ledger: Ledger, clock: TurnedClock, revoked_at: float | None, state: str, hold: str | None
) -> None:
    record_status(ledger, STATUS)
    start = clock.now()
    ends = (start + timedelta(days=1)).timestamp()
    with ledger.database.transaction() as connection:
        own = {"id": "e1", "agent": "web-01", "enrolled_at": 1.0, "revoked_at": revoked_at}
        connection.execute(ENROLMENTS.insert(), own)
        times = {"not_before": 1.0, "not_after": ends, "key": "k", "pem": "p"}
        connection.execute(CERTIFICATES.insert(), {"serial": "1", "enrolment_id": "e1", **times})
    command_id = ledger.add_command("web-01", REQUEST).id
    agent = facts_of(ledger, command_id, clock).agent
    assert agent.enrolment_end is not None
    assert (agent.enrolment, agent.enrolment_end.timestamp(), agent.hold) == (state, revoked_at or ends, hold)
    clock.turn(2 * 86400.0)
    assert facts_of(ledger, command_id, clock).agent.enrolment == ("revoked" if revoked_at else "expired")


def test_running_servers_are_read_with_their_connections(ledger: Ledger, clock: TurnedClock) -> None:
    command_id = ledger.add_command("web-01", REQUEST).id
    lock = ServerLock(ledger.database, "acm-server", clock.now)
    lock.acquire()
    lock.note_connection("Refused.")
    (server,) = facts_of(ledger, command_id, clock).servers
    assert (server.connection_at, server.connection_problem) == (clock.now(), "Refused.")
    lock.release()
    assert facts_of(ledger, command_id, clock).servers == ()
