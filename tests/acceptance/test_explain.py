"""Faults that keep a command from moving, staged with real processes: `acm explain` and the API name each of them.

Those `on_sqlite` move the clock of acm alone, which decides only there: elsewhere it is the database's.
"""

import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.fleet.facts_in_ledger import read_facts
from broker.fleet.models import Role
from broker.fleet.waiting import waiting_of
from broker.ledger.server_lock import running_servers
from broker.ledger.tables import SERVERS
from broker.signing.key_store import create_signing_keys
from tests.acceptance.conftest import Site
from tests.faults.clocks import compiled
from tests.support.api import running_api
from tests.support.brokers import tuned_mosquitto
from tests.support.enrolled import Registrar
from tests.support.places import MachineClock
from tests.support.small_disks import filled, mounted
from tests.support.waiting import wait_for

SLOW = "tests.acceptance.slow_agent"
Explain = Callable[[str, float], Any]


def explained(site: Site, command_id: str, reason: str) -> Any:
    """Wait until this is the reason, and return `waiting` as `acm explain` shows it."""

    def found() -> str | None:
        with site.opened_ledger() as ledger:
            waiting = waiting_of(read_facts(ledger, ledger.get(command_id), ledger._now()))
        return waiting and waiting.reason

    seen: list[str | None] = []
    wait_for(lambda: seen.append(found()) or seen[-1] == reason, f"the reason {reason}, after {seen}", 60)
    waiting = site.acm("explain", command_id)["waiting"]
    assert (waiting["reason"], explained_by_api(site, command_id)["reason"]) == (reason, reason)
    return waiting


def explained_by_api(site: Site, command_id: str) -> Any:
    clock: Any = MachineClock()
    with site.opened_ledger() as ledger, running_api(ledger, clock) as api:
        timeline = api.http.get(f"/v1/commands/{command_id}/timeline", headers=api.as_(Role.VIEWER))
    return timeline.json()["waiting"]


@pytest.fixture
def explain_later(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explain:
    """Return a function that explains a command as a machine does whose clock is so many seconds ahead."""
    library, offset = compiled(tmp_path / "clock.so"), tmp_path / "offset"

    def explain(command_id: str, seconds: float) -> Any:
        offset.write_text(f"{seconds:.0f}")
        with monkeypatch.context() as changed:
            changed.setenv("LD_PRELOAD", str(library))
            changed.setenv("ACM_FAULTS_CLOCK", str(offset))
            return site.acm("explain", command_id)["waiting"]

    return explain


def server_is_connected(site: Site) -> bool:
    """Whether it has recorded that: what agents publish from now on is not delivered as a retained message."""
    with site.opened_ledger() as ledger:
        return any(it.connection_at and not it.connection_problem for it in running_servers(ledger.database))


def elsewhere(host: str, site: Site) -> None:
    """Make the server one of another machine."""
    with site.opened_ledger() as ledger, ledger.database.transaction() as connection:
        connection.execute(SERVERS.update().values(host=host))


def notes(site: Site) -> Path:
    return site.directory / "notes"


def test_ended_command_has_all_its_hops(site: Site) -> None:
    site.start_agent("web-01", module=SLOW)
    site.wait_online("web-01")
    command_id = site.enqueue("web-01", "note-once", {"path": str(notes(site)), "hold_s": 1})
    assert site.result(command_id)["outcome"] == "success"
    shown = wait_for(lambda: (it := site.acm("explain", command_id))["hops"][-1]["at"] and it, "the deletion")
    hops = {hop["name"]: hop for hop in shown["hops"]}
    assert [name for name, hop in hops.items() if hop["at"] is None] == []
    assert {name for name, hop in hops.items() if hop["clock"] == "agent"} == {"started", "finished"}
    assert hops["finished"]["took_s"] >= 1.0
    assert shown["waiting"] is None
    assert sum(it["seconds"] for it in shown["spent"]) == pytest.approx(shown["total_s"])


def test_server_that_is_down(site: Site) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    assert site.server is not None
    site.server.kill()
    command_id = site.send("web-01", "get-agent-configuration")
    waiting = explained(site, command_id, "server_down")
    assert (waiting["hop"], "acm server" in waiting["advice"]) == ("claimed", True)
    site.start_server()
    assert site.result(command_id)["outcome"] == "success"


def test_server_that_hangs_on_sqlite(site: Site, explain_later: Explain) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    wait_for(lambda: server_is_connected(site), "the server's connection")
    assert site.server is not None
    server = site.server.process
    server.send_signal(signal.SIGSTOP)
    try:
        command_id = site.enqueue("web-01", "get-agent-configuration", {})
        stopped = explained(site, command_id, "server_stopped")
        assert (stopped["hop"], f"`kill -CONT {server.pid}`" in stopped["advice"]) == ("claimed", True)
        assert "does not answer" in stopped["why"]
        elsewhere("other-host", site)  # from where its process cannot be seen
        assert explained(site, command_id, "not_sent_yet")["hop"] == "claimed"
        hangs = explain_later(command_id, 90.0)
        assert (hangs["reason"], hangs["cause_since"], "restart" in hangs["advice"]) == (
            "server_hangs",
            stopped["since"],
            True,
        )
    finally:
        server.send_signal(signal.SIGCONT)
    assert site.result(command_id)["outcome"] == "success"


def test_broker_that_the_server_does_not_reach(site: Site, broker: Any) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    broker.stop()
    command_id = site.send("web-01", "get-agent-configuration")
    waiting = explained(site, command_id, "broker_unreachable")
    assert waiting["hop"] == "claimed"
    assert waiting["cause_since"] is not None
    assert site.server is not None
    assert f"process {site.server.process.pid}" in waiting["why"]
    broker.start()
    assert site.result(command_id, 60)["outcome"] == "success"


def test_agent_that_is_offline(site: Site) -> None:
    agent = site.start_agent("web-01")
    site.wait_online("web-01")
    agent.stop()
    command_id = site.send("web-01", "get-agent-configuration")
    waiting = explained(site, command_id, "agent_offline")
    assert waiting["cause_since"] is not None
    site.start_agent("web-01")
    assert site.result(command_id)["outcome"] == "success"


def test_agent_that_goes_offline_with_the_command(site: Site) -> None:
    agent = site.start_agent("web-01", module=SLOW)
    site.wait_online("web-01")
    command_id = site.enqueue("web-01", "note-once", {"path": str(notes(site)), "hold_s": 60})
    explained(site, command_id, "running")
    agent.kill()
    assert explained(site, command_id, "offline_with_it")["hop"] == "finished"


def test_two_agents_that_used_one_name(site: Site) -> None:
    first = site.start_agent("web-01")
    site.wait_online("web-01")
    second = site.start_agent("web-01", "--state", str(site.state("twin")))

    def is_known() -> bool:
        with site.opened_ledger() as ledger:
            return any(agent.name_conflict for agent in ledger.agents())

    wait_for(is_known, "the server to notice it", 60)
    first.stop()
    second.stop()
    command_id = site.enqueue("web-01", "restart-agent", {})
    assert "Stop one of them" in explained(site, command_id, "name_conflict")["advice"]


def test_agent_that_never_connected(site: Site) -> None:
    assert explained(site, site.enqueue("web-99", "restart-agent", {}), "never_connected")["hop"] == "stored"


def test_agent_that_is_silent_on_sqlite(site: Site, explain_later: Explain) -> None:
    agent = site.start_agent("web-01")
    site.wait_online("web-01")
    agent.process.send_signal(signal.SIGSTOP)
    try:
        command_id = site.enqueue("web-01", "get-agent-configuration", {})
        assert explained(site, command_id, "unconfirmed")["hop"] == "stored"
        assert explain_later(command_id, 700.0)["reason"] == "agent_silent"
    finally:
        agent.process.send_signal(signal.SIGCONT)
    assert site.result(command_id)["outcome"] == "success"


def test_slow_command_and_the_one_behind_it_on_sqlite(site: Site, explain_later: Explain) -> None:
    site.start_agent("web-01", module=SLOW)
    site.wait_online("web-01")
    slow = site.enqueue("web-01", "note-once", {"path": str(notes(site)), "hold_s": 60}, timeout_s=50.0)
    behind = site.enqueue("web-01", "note-once", {"path": str(notes(site))})
    assert explained(site, slow, "running")["hop"] == "finished"
    waiting = explained(site, behind, "behind_another")
    assert (waiting["hop"], f"({slow})" in waiting["why"]) == ("started", True)
    assert explain_later(slow, 90.0)["reason"] == "overdue"
    assert waiting["advice"].endswith(f"`acm cancel {slow}`.")
    site.acm("cancel", slow)
    assert site.result(behind)["outcome"] == "success"


def test_command_that_has_expired(site: Site) -> None:
    agent = site.start_agent("web-01")
    site.wait_online("web-01")
    agent.stop()
    command_id = site.send("web-01", "get-agent-configuration", "--expires-in", "1s")
    assert "expired" in explained(site, command_id, "expired")["advice"]


def test_agent_whose_disk_is_full(site: Site) -> None:
    """It mounts a small disk, which needs root."""
    site.state("web-01").parent.mkdir(parents=True)
    with mounted(site.state("web-01"), "8m") as disk:
        agent = site.start_agent("web-01")
        try:
            site.wait_online("web-01")
            filler = filled(disk)
            command_id = site.send("web-01", "get-agent-configuration")
            waiting = explained(site, command_id, "disk_full")
            assert waiting["hop"] == "stored"
            filler.unlink()
            assert site.result(command_id, 60)["outcome"] == "success"
        finally:
            agent.stop()


def test_agent_whose_store_another_process_locks(site: Site) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    store = site.state("web-01") / "commands" / "cache.db"
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        command_id = site.enqueue("web-01", "get-agent-configuration", {})
        assert explained(site, command_id, "store_locked")["hop"] == "stored"
        other.execute("ROLLBACK")
    assert site.result(command_id, 60)["outcome"] == "success"


def test_agent_that_is_revoked(signing_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site = signing_site
    monkeypatch.setenv("ACM_CA", str(site.directory / "ca"))
    site.enroll("web-01")
    site.start_enrolled_agent("web-01")
    site.wait_online("web-01")
    site.acm("enrolment", "revoke", "web-01")
    command_id = site.send("web-01", "get-agent-configuration")
    waiting = explained(site, command_id, "revoked")
    assert (waiting["hop"], waiting["cause_since"] is not None) == ("claimed", True)
    site.acm("cancel", command_id, "--abandon")
    assert site.result(command_id)["code"] == "interrupted"


def test_command_that_is_held_until_its_agent_is_enrolled(signing_site: Site) -> None:
    site = signing_site
    site.enroll("web-01")
    command_id = site.enqueue("web-02", "get-agent-configuration", {})
    waiting = explained(site, command_id, "status_unknown")
    assert (waiting["hop"], "acm token create web-02" in waiting["advice"]) == ("claimed", True)
    site.enroll("web-02")
    site.start_enrolled_agent("web-02")
    assert site.result(command_id)["outcome"] == "success"


def test_agent_that_is_enrolled_with_another_server(site: Site) -> None:
    site.registrar = Registrar(site.directory / "other-ca", f"sqlite:///{site.directory}/other.db")
    site.registrar.enroll("web-01", site.state("web-01"), site.broker_url)
    site.start_enrolled_agent("web-01")
    site.wait_online("web-01")
    command_id = site.enqueue("web-01", "get-agent-configuration", {})
    assert explained(site, command_id, "not_enrolled")["hop"] == "claimed"


def test_agent_that_trusts_none_of_the_signing_keys(broker: Any, tmp_path: Path) -> None:
    site = Site(broker.url, tmp_path)
    site.enroll("web-01")
    shutil.rmtree(tmp_path / "ca" / "signing")
    create_signing_keys(tmp_path / "ca" / "signing", datetime.now(UTC))
    site.start_server()
    try:
        site.start_enrolled_agent("web-01")
        site.wait_online("web-01")
        command_id = site.enqueue("web-01", "get-agent-configuration", {})
        waiting = explained(site, command_id, "message_refused")
        assert (waiting["hop"], "acm token create web-01" in waiting["advice"]) == ("stored", True)
    finally:
        site.stop()


def test_clock_that_is_off_and_a_certificate_that_has_ended_on_sqlite(
    signing_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = signing_site
    library, offset = compiled(tmp_path / "clock.so"), tmp_path / "offset"
    site.enroll("web-01")
    wait_for(lambda: server_is_connected(site), "the server to be connected")
    offset.write_text("-7200")
    with monkeypatch.context() as changed:
        changed.setenv("LD_PRELOAD", str(library))
        changed.setenv("ACM_FAULTS_CLOCK", str(offset))
        agent = site.start_enrolled_agent("web-01")
    site.wait_online("web-01")
    assert site.result(site.enqueue("web-01", "get-agent-configuration", {}))["outcome"] == "success"
    wait_for(lambda: site.wait_online("web-01").get("clock_behind_s"), "the status with the clock")
    agent.stop()
    command_id = site.enqueue("web-01", "get-agent-configuration", {})
    assert "7200 s behind" in explained(site, command_id, "clock_off")["why"]
    offset.write_text(str(400 * 86400))
    with monkeypatch.context() as changed:
        changed.setenv("LD_PRELOAD", str(library))
        changed.setenv("ACM_FAULTS_CLOCK", str(offset))
        assert site.acm("explain", command_id)["waiting"]["reason"] == "certificate_ended"


def test_broker_that_refuses_the_feedback_of_an_agent(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    allowed = ("command", "control", "ack", "status", "blob-request", "blob-chunk")
    rules.write_text(
        "".join(f"topic readwrite acm/+/{channel}\n" for channel in allowed) + "topic read acm/+/feedback\n"
    )
    with tuned_mosquitto(tmp_path, f"acl_file {rules}") as url:
        site = Site(url, tmp_path)
        site.start_server()
        try:
            site.start_agent("web-01")
            site.wait_online("web-01")
            command_id = site.enqueue("web-01", "get-agent-configuration", {})
            waiting = explained(site, command_id, "connection_problem")
            assert (waiting["hop"], "refuse" in waiting["why"]) == ("stored", True)
        finally:
            site.stop()
