"""Reports on the fleet, and agents that are forgotten."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import pytest

from broker.api.installation import NotAvailableHere
from broker.app.api_installation import ConfiguredInstallation
from broker.app.config import ServerConfig, ServerConfigurationError
from broker.app.factories import open_database
from broker.contract.messages import Command, JournalMark, Origin, Status
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger
from broker.system.checkup import TIMED_OUT, Check
from broker.system.findings import Finding, ok
from tests.support.api import NOTHING_ELSE, RunningApi, assert_problem, running_api, with_agents
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status

SEND = {"type": "restart-agent", "all": True}


def get(api: RunningApi, path: str, who: dict[str, str] | None = None, **query: Any) -> Any:
    return api.http.get(path, headers=who or api.as_(Role.VIEWER), params=query or None)


def forget(api: RunningApi, agent: str, who: dict[str, str] | None = None, **body: Any) -> Any:
    return api.http.post(f"/v1/agents/{agent}/forget", json=body, headers=who or api.as_(Role.ADMIN))


def test_summary_counts_agents_and_open_commands(api: RunningApi) -> None:
    edge = api.as_(Role.VIEWER, "edge")
    empty = get(api, "/v1/summary").json()
    assert (empty["agents"], empty["open_commands"], empty["oldest_queued"]) == ({"unknown": 3}, {}, None)
    sent = api.http.post("/v1/commands", json=SEND, headers=api.as_(Role.OPERATOR))
    assert sent.status_code == 201
    ((_, first),) = api.ledger.claim_due(1).commands
    record_feedback(api.ledger, "db-01", [result(first.id)])
    record_status(api.ledger, Status("db-01", False, "1", "i", "b", "g", updated_at=api.clock.now()))
    whole, part = get(api, "/v1/summary").json(), get(api, "/v1/summary", edge).json()
    assert (whole["agents"], part["agents"]) == ({"unknown": 2, "offline": 1}, {"unknown": 2})
    assert whole["open_commands"] == part["open_commands"] == {"queued": 2}
    assert whole["oldest_queued"]["agent"] in ("web-01", "web-02")
    assert (whole["servers"], whole["connected_servers"]) == (0, 0)


def test_summary_knows_servers_and_silent_agents(api: RunningApi, clock: TurnedClock) -> None:
    clock.turn(3600)
    assert get(api, "/v1/summary", api.as_(Role.VIEWER, name="later")).json()["agents"] == {"silent": 3}


def test_unmatched_results_are_listed_with_secrets_masked(api: RunningApi) -> None:
    echo = Command("stray-1", "set-wifi", {"password": "tiger"}, Origin("n", "m"), api.clock.now())
    for name, agent in (("stray-1", "web-01"), ("stray-2", "db-01"), ("stray-3", "web-02")):
        record_feedback(api.ledger, agent, [replace(result(name), command=echo if name == "stray-1" else None)])
        api.clock.turn(1)
    page = get(api, "/v1/unmatched-results", limit=2).json()
    rest = get(api, "/v1/unmatched-results", limit=2, cursor=page["next"]).json()
    assert [it["command_id"] for it in page["items"] + rest["items"]] == ["stray-3", "stray-2", "stray-1"]
    (one,) = get(api, "/v1/unmatched-results", agent="web-01").json()["items"]
    assert one == rest["items"][0]
    assert "tiger" not in str(one)
    edge = get(api, "/v1/unmatched-results", api.as_(Role.VIEWER, "edge")).json()["items"]
    assert {it["agent"] for it in edge} == {"web-01", "web-02"}
    refused = get(api, "/v1/unmatched-results", api.as_(Role.VIEWER, "edge"), agent="db-01")
    assert_problem(refused, 404, "unknown_agent")


def test_state_of_the_audit_of_an_agent_is_shown(api: RunningApi) -> None:
    assert get(api, "/v1/agents/web-01/audit").json()["verified"] is None
    head = JournalMark(7, "ab" * 32)
    record_status(api.ledger, Status("web-01", True, "1", "i", "b", "g", audit_head=JournalMark(9, "cd" * 32)))
    api.ledger.audits.mark_verified("web-01", head)
    shown = get(api, "/v1/agents/web-01/audit").json()
    assert (shown["head"]["number"], shown["verified"], shown["accepted"]) == (9, vars(head), None)
    assert_problem(get(api, "/v1/agents/db-01/audit", api.as_(Role.VIEWER, "edge")), 404, "unknown_agent")


def test_agent_that_is_gone_is_forgotten(api: RunningApi) -> None:
    api.http.post("/v1/commands", json=SEND, headers=api.as_(Role.OPERATOR))
    assert_problem(forget(api, "web-01"), 409, "agent_is_online")
    forgotten = forget(api, "web-01", force=True)
    assert forgotten.json() == {"agent": "web-01", "interrupted": 1}
    assert [it["name"] for it in get(api, "/v1/agents").json()["items"]] == ["db-01", "web-02"]
    assert api.ledger.groups.members("edge") == ["web-02"]
    assert_problem(forget(api, "web-01", force=True), 404, "unknown_agent")
    assert_problem(forget(api, "db-01", api.as_(Role.ADMIN, "edge"), force=True), 404, "unknown_agent")
    (entry,) = (
        it
        for it in api.http.get("/v1/audit-log", headers=api.as_(Role.ADMIN)).json()["items"]
        if it["action"] == "forget agent"
    )
    assert (entry["principal"], entry["target"]) == ("admin", "web-01")


def diagnosis(api: RunningApi) -> Any:
    return get(api, "/v1/doctor", api.as_(Role.ADMIN))


def test_doctor_runs_once_for_all_who_ask_soon_after(ledger_url: str, clock: TurnedClock) -> None:
    runs: list[int] = []

    def run() -> Iterator[Finding]:
        runs.append(len(runs))
        yield ok("ledger", "It answers.") if len(runs) == 1 else TIMED_OUT.found("ledger", "It does not.")

    with open_database(ledger_url) as database:
        ledger = with_agents(Ledger(database, now=clock.now))
        with running_api(ledger, clock, checks=[Check("ledger", run)]) as api:
            first = diagnosis(api).json()
            assert first["findings"] == [
                {"check": "ledger", "level": "ok", "code": "ok", "found": "It answers.", "fix": None}
            ]
            clock.turn(29)
            assert diagnosis(api).json() == first
            clock.turn(1)
            assert diagnosis(api).json()["findings"][0]["code"] == "check_timed_out"
            clock.turn(599)  # what hangs is not tried again soon
            diagnosis(api)
    assert runs == [0, 1]


def test_doctor_runs_for_one_at_a_time(ledger_url: str, clock: TurnedClock) -> None:
    asked, may_end = Event(), Event()

    def run() -> Iterator[Finding]:
        asked.set()
        may_end.wait(60)
        yield ok("ledger", "It answers.")

    with open_database(ledger_url) as database:
        ledger = with_agents(Ledger(database, now=clock.now))
        with running_api(ledger, clock, checks=[Check("ledger", run)]) as api:
            api.as_(Role.ADMIN)
            answers: list[Any] = []
            first = Thread(target=lambda: answers.append(diagnosis(api)))
            first.start()
            assert asked.wait(60)
            second = diagnosis(api)
            may_end.set()
            first.join()
    assert_problem(second, 429, "rate_limited")
    assert second.headers["Retry-After"] == "20"
    assert answers[0].status_code == 200


def test_doctor_of_an_installation_that_cannot_be_checked_says_so() -> None:
    def checks(_: ServerConfig) -> list[Check]:
        raise ServerConfigurationError("renewal_grace: write a duration.")

    for installation, sentence in (
        (ConfiguredInstallation(NOTHING_ELSE, checks), "renewal_grace"),
        (ConfiguredInstallation(NOTHING_ELSE), "acm doctor"),
    ):
        with pytest.raises(NotAvailableHere, match=sentence):
            installation.checks()
