"""Why an open command waits: each reason from the facts that lead to it, and the table of reasons in the documents."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Formatter

import pytest

from broker.contract.messages import RunningProgress
from broker.fleet.facts import AgentFacts, CommandFacts, Facts, QueueFacts, RunningFacts, ServerFacts
from broker.fleet.reasons import EXPLANATIONS, Reason
from broker.fleet.timeline import HopName
from broker.fleet.waiting import Waiting, waiting_of

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
DOCUMENT = Path(__file__).parents[4] / "docs/operations.md"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


QUEUED = CommandFacts("c1", "web-01", "restart-agent", "queued", ago(100), is_due=True)
SENT = replace(QUEUED, state="sent", is_due=False, sent_at=ago(90))
ACCEPTED = replace(SENT, state="accepted", stored_at=ago(80))
RUNNING = replace(ACCEPTED, state="running", running_at=ago(70))
ENDED = replace(RUNNING, state="completed", completed_at=ago(60))
ONLINE = AgentFacts("online", ago(5))
OFFLINE = AgentFacts("offline", ago(50))
CONNECTED = ServerFacts("ops", 7, ago(1000), ago(900))
APART = replace(CONNECTED, connection_problem="No connection to 127.0.0.1:1883: refused.")
OTHER = RunningFacts("c0", "upgrade-agent", ago(300))


def waiting(
    command: CommandFacts = SENT,
    agent: AgentFacts = ONLINE,
    queue: QueueFacts | None = None,
    servers: tuple[ServerFacts, ...] = (CONNECTED,),
) -> Waiting:
    found = waiting_of(Facts(NOW, command, agent, queue or QueueFacts(), servers))
    assert found is not None
    return found


CASES = {
    Reason.SERVER_DOWN: waiting(QUEUED, servers=()),
    Reason.SERVER_STOPPED: waiting(servers=(replace(APART, is_stopped=True),)),
    Reason.BROKER_UNREACHABLE: waiting(servers=(APART,)),
    Reason.SERVER_HANGS: waiting(QUEUED),
    Reason.EXPIRED: waiting(replace(SENT, expires_at=ago(1))),
    Reason.REVOKED: waiting(agent=replace(OFFLINE, enrolment="revoked", enrolment_end=ago(55))),
    Reason.CERTIFICATE_ENDED: waiting(agent=replace(OFFLINE, enrolment="expired", enrolment_end=ago(55))),
    Reason.NOT_ENROLLED: waiting(QUEUED, replace(ONLINE, hold="not_enrolled")),
    Reason.STATUS_UNKNOWN: waiting(QUEUED, AgentFacts(hold="status_unknown")),
    Reason.NAME_CONFLICT: waiting(agent=replace(ONLINE, name_conflict=True)),
    Reason.NEVER_CONNECTED: waiting(agent=AgentFacts()),
    Reason.CLOCK_OFF: waiting(agent=replace(OFFLINE, clock_ahead_s=-7200.0)),
    Reason.AGENT_OFFLINE: waiting(agent=OFFLINE),
    Reason.OFFLINE_WITH_IT: waiting(RUNNING, OFFLINE),
    Reason.AGENT_SILENT: waiting(agent=AgentFacts("silent", ago(700))),
    Reason.STORE_LOCKED: waiting(ACCEPTED, replace(ONLINE, problems=("store_locked",), last_error="It is locked.")),
    Reason.DISK_FULL: waiting(agent=replace(ONLINE, problems=("store_full",), last_error="The disk is full.")),
    Reason.NOT_SENT_YET: waiting(QUEUED, queue=QueueFacts(3)),
    Reason.MESSAGE_REFUSED: waiting(agent=replace(ONLINE, problems=("message",), last_error="It is unsigned.")),
    Reason.CONNECTION_PROBLEM: waiting(agent=replace(ONLINE, problems=("connection",), last_error="It is refused.")),
    Reason.UNCONFIRMED: waiting(agent=replace(ONLINE, resend_at=NOW + timedelta(seconds=8))),
    Reason.RESULT_UNSENT: waiting(RUNNING, replace(ONLINE, results_waiting=2)),
    Reason.OVERDUE: waiting(replace(RUNNING, timeout_s=30.0)),
    Reason.RUNNING: waiting(replace(RUNNING, timeout_s=90.0)),
    Reason.BEHIND_ANOTHER: waiting(ACCEPTED, queue=QueueFacts(1, OTHER)),
    Reason.NEXT: waiting(ACCEPTED),
}


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_is_found_from_its_facts(reason: Reason) -> None:
    found = CASES[reason]
    assert found.reason is reason
    for text, template in ((found.why, EXPLANATIONS[reason].why), (found.advice, EXPLANATIONS[reason].advice)):
        assert "{" not in text
        assert text.endswith((".", "`"))
        words = [word for _, word, _, _ in Formatter().parse(template) if word]
        assert len(text) > 20 + 2 * len(words)


def test_sentence_has_the_time_and_the_names_of_the_cause() -> None:
    assert CASES[Reason.AGENT_OFFLINE].why == "web-01 has been offline since 2026-01-02 11:59:10 UTC."
    assert CASES[Reason.AGENT_OFFLINE].cause_since == ago(50)
    assert CASES[Reason.BROKER_UNREACHABLE].why.endswith(
        "since 2026-01-02 11:45:00 UTC: " + str(APART.connection_problem)
    )
    hangs = CASES[Reason.SERVER_HANGS]
    assert (hangs.cause_since, "process 7 on ops" in hangs.why) == (ago(100), True)
    behind = CASES[Reason.BEHIND_ANOTHER]
    assert behind.why == (
        "web-01 runs upgrade-agent (c0) since 2026-01-02 11:55:00 UTC; open commands before this one: 1."
    )
    assert behind.advice.endswith("`acm cancel c0`.")
    reporting = replace(ONLINE, running_command="c1", running_progress=RunningProgress("download", 40))
    assert (
        waiting(RUNNING, reporting).why == "It has been running on web-01 since 2026-01-02 11:58:50 UTC: download 40 %."
    )
    assert "7200 s behind the server's" in CASES[Reason.CLOCK_OFF].why
    assert "at 2026-01-02 12:00:08 UTC" in CASES[Reason.UNCONFIRMED].why
    assert "1000 or more" in waiting(QUEUED, queue=QueueFacts(1000)).why


@pytest.mark.parametrize(
    ("command", "hop", "since"),
    [
        (QUEUED, HopName.CLAIMED, ago(100)),
        (SENT, HopName.STORED, ago(90)),
        (ACCEPTED, HopName.STARTED, ago(80)),
        (RUNNING, HopName.FINISHED, ago(70)),
        (replace(RUNNING, running_at=None, stored_at=None, sent_at=None), HopName.FINISHED, ago(100)),
    ],
)
def test_command_waits_for_its_next_hop_since_the_one_before(
    command: CommandFacts, hop: HopName, since: datetime
) -> None:
    found = waiting(command)
    assert (found.hop, found.since) == (hop, since)


def test_ended_command_waits_for_nothing() -> None:
    assert waiting_of(Facts(NOW, ENDED, ONLINE, QueueFacts(), ())) is None


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (waiting(replace(SENT, expires_at=ago(1)), OFFLINE, servers=()), Reason.SERVER_DOWN),
        (waiting(replace(SENT, expires_at=ago(1)), OFFLINE), Reason.EXPIRED),
        (waiting(replace(ACCEPTED, expires_at=ago(1)), OFFLINE), Reason.OFFLINE_WITH_IT),
        (waiting(agent=replace(OFFLINE, enrolment="revoked", clock_ahead_s=900.0)), Reason.REVOKED),
        (waiting(agent=replace(ONLINE, enrolment="revoked")), Reason.UNCONFIRMED),
        (waiting(agent=replace(OFFLINE, problems=("store_full",))), Reason.AGENT_OFFLINE),
        (waiting(ACCEPTED, replace(ONLINE, problems=("store_full",))), Reason.NEXT),
        (waiting(ACCEPTED, replace(ONLINE, hold="not_enrolled")), Reason.NEXT),
        (waiting(servers=(APART, CONNECTED)), Reason.UNCONFIRMED),
        (waiting(servers=(replace(CONNECTED, connection_at=None),)), Reason.UNCONFIRMED),
        (waiting(replace(SENT, is_due=True), replace(ONLINE, problems=("message",))), Reason.NOT_SENT_YET),
        (waiting(RUNNING, replace(ONLINE, results_waiting=2, running_command="c1")), Reason.RUNNING),
        (waiting(RUNNING, replace(ONLINE, results_waiting=2, seen_at=ago(75))), Reason.RUNNING),
    ],
)
def test_first_reason_on_the_way_explains_it(first: Waiting, then: Reason) -> None:
    assert first.reason is then


def test_document_has_every_reason_with_its_sentences() -> None:
    table = DOCUMENT.read_text(encoding="utf-8").partition("| reason | why | what to do |\n|---|---|---|\n")[2]
    rows = [re.split(r" \| ", line.strip("| ")) for line in table.partition("\n\n")[0].splitlines()]
    expected = [[f"`{reason}`", EXPLANATIONS[reason].why, EXPLANATIONS[reason].advice] for reason in Reason]
    assert rows == expected
