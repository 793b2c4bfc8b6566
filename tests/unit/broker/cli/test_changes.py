"""Commands of acm that change the ledger: operations, groups and blobs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from broker.app.factories import open_database
from broker.cli.broker import run
from broker.contract.artifacts import Artifact
from broker.contract.messages import Origin, Status
from broker.enrolment.tables import ENROLMENTS
from broker.errors import BrokerError, InvalidArgument, LedgerError
from broker.fleet.targets import UnknownAgent
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.server_lock import ServerLock, ServerRunning
from broker.ledger.tables import COMMANDS, SERVERS, CommandState
from tests.support.cli import acm
from tests.support.damage import overwrite
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.recorded import record_status

REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


def test_abandoned_operation_has_no_open_command(url: str, ledger: Ledger) -> None:
    request = CommandRequest("restart-agent", {}, Origin("me", "test"))
    operation = ledger.add_operation(["web-01", "web-02"], "two", request)
    assert acm(url, "operation", "cancel", operation.id, "--abandon").output == "2 commands abandoned.\n"
    assert {row.state for row in ledger.commands()} == {CommandState.COMPLETED}


@pytest.mark.parametrize("option", [(), ("--abandon",)])
def test_completed_command_is_not_cancelled(url: str, ledger: Ledger, option: tuple[str, ...]) -> None:
    command = ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    ledger.abandon(command.id)
    with raises_code(LedgerError, "already_completed"):
        acm(url, "cancel", command.id, *option)


def test_unknown_agent_joins_a_group_only_with_the_option(url: str, ledger: Ledger) -> None:
    with raises_code(UnknownAgent, "unknown_agent"):
        acm(url, "group", "add", "edge", "web-01")
    assert ledger.groups.members("edge") == []
    assert acm(url, "group", "add", "edge", "web-01", "--allow-unknown").output == "Members of edge: web-01.\n"
    assert ledger.groups.members("edge") == ["web-01"]


def test_group_without_members_is_shown_on_stderr_only(url: str, ledger: Ledger) -> None:
    ledger.groups.configure("edge", Artifact("blob:x", "x", 1))
    shown = acm(url, "group", "show", "edge")
    assert (shown.stdout, shown.stderr) == ("", "Group edge has no members.\n")


@pytest.mark.parametrize(("name", "content"), [("a.toml", "= 1"), ("a.json", "{"), ("a.toml", "\udcff")])
def test_broken_file_does_not_become_the_configuration_of_a_group(
    url: str, ledger: Ledger, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    with raises_code(InvalidArgument, "invalid_configuration"):
        acm(url, "group", "configure", "edge", str(tmp_path / name))
    assert (ledger.blobs.rows(), ledger.commands()) == ([], [])


@pytest.mark.parametrize(
    ("content", "option"), [('{"n": ' + "9" * 5000 + "}", ()), ('{"a": 1} // why', ("--unchecked",))]
)
def test_file_that_agents_may_read_becomes_the_configuration_of_a_group(
    url: str, ledger: Ledger, tmp_path: Path, content: str, option: tuple[str, ...]
) -> None:
    (tmp_path / "a.json").write_text(content)
    record_status(ledger, Status("web-01", True, "1", "i", "b", "g"))
    acm(url, "group", "add", "edge", "web-01")
    acm(url, "group", "configure", "edge", str(tmp_path / "a.json"), *option)
    assert (len(ledger.blobs.rows()), len(ledger.commands())) == (1, 1)


@pytest.mark.parametrize(("prefix", "length"), [("", 64), ("blob:", 64), ("blob:", 8)])
def test_blob_is_removed_by_its_digest_or_the_beginning_of_it(
    url: str, ledger: Ledger, tmp_path: Path, prefix: str, length: int
) -> None:
    (tmp_path / "file").write_text("x")
    blob = ledger.blobs.put(tmp_path / "file")
    removed = json.loads(acm(url, "blob", "rm", f"{prefix}{blob.sha256[:length]}", "--json").stdout)
    assert (removed["sha256"], removed["file_name"]) == (blob.sha256, "file")
    assert ledger.blobs.rows() == []


def test_changes_print_what_they_changed_as_json(url: str, ledger: Ledger, tmp_path: Path) -> None:
    def changed(*words: str) -> Any:
        return json.loads(acm(url, *words, "--json").stdout)

    (tmp_path / "a.toml").write_text("n = 1")
    record_status(ledger, Status("web-01", True, "1", "i", "b", "g"))
    assert changed("group", "add", "edge", "web-01") == {"name": "edge", "agents": ["web-01"]}
    operation = changed("group", "configure", "edge", str(tmp_path / "a.toml"))
    assert operation == changed("operation", "list")[0]
    assert changed("operation", "cancel", operation["id"]) == {"id": operation["id"], "count": 1}
    assert changed("group", "remove", "edge", "web-01") == {"name": "edge", "agents": []}
    assert changed("blob", "put", str(tmp_path / "a.toml"))["size"] == 5


@pytest.mark.parametrize("options", [{"port": 1883}, {"data": Path("/nowhere")}])
def test_broker_of_a_directory_takes_neither_port_nor_data(tmp_path: Path, options: dict[str, Any]) -> None:
    with raises_code(InvalidArgument, "conflicting_options"):
        run(tmp_path, **options)


def test_agent_that_is_online_is_forgotten_by_force_or_once_it_was_revoked(url: str, ledger: Ledger) -> None:
    for agent in ("web-01", "web-02", "web-03"):
        record_status(ledger, Status(agent, agent != "web-03", "1", "i", "b", "g"))
    with raises_code(BrokerError, "agent_is_online"):
        acm(url, "agents", "forget", "web-01")
    with raises_code(BrokerError, "unknown_agent"):
        acm(url, "agents", "forget", "nosuch")
    acm(url, "agents", "forget", "web-01", "--force")
    acm(url, "agents", "forget", "web-03")
    enrolment = {"id": "e", "agent": "web-02", "enrolled_at": 1.0, "revoked_at": 2.0, "reason": "unspecified"}
    with ledger.database.transaction() as connection:
        connection.execute(ENROLMENTS.insert().values(**enrolment))
    acm(url, "agents", "forget", "web-02")
    assert json.loads(acm(url, "agents", "--json").stdout) == []


def test_prune_counts_what_it_removes_and_removes_nothing_in_a_dry_run(url: str, ledger: Ledger) -> None:
    command = ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    ledger.abandon(command.id)
    open_one = ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    for words, count in ((["--dry-run"], 1), ([], 1), (["--vacuum"], 0)):
        done = json.loads(acm(url, "prune", "--older-than", "1ms", "--json", *words).stdout)
        assert (done["commands"], done["dry_run"]) == (count, words == ["--dry-run"])
    assert [row.command.id for row in ledger.commands()] == [open_one.id]
    assert "0 commands" in acm(url, "prune", "--older-than", "90d").stdout
    assert acm(url, "prune").exit_code == 2


def test_restored_ledger_is_not_settled_beside_a_running_server(ledger_url: str, clock: TurnedClock) -> None:
    with open_database(ledger_url) as database:
        command = Ledger(database, now=clock.now).add_command("web-01", REQUEST)
        for client_id in ("acm-server", "shard/2"):
            lock = ServerLock(database, client_id, clock.now)
            lock.acquire()
            with raises_code(ServerRunning, "server_running") as refused:
                acm(ledger_url, "ledger", "restored")
            assert f"{client_id}, process {os.getpid()}" in str(refused.value)
            lock.release()
        assert Ledger(database, now=clock.now).get(command.id).state is CommandState.QUEUED
    assert acm(ledger_url, "ledger", "restored").output == "Completed as interrupted: 1 command.\n"


def test_server_that_the_restored_ledger_does_not_know_is_noticed(ledger_url: str, clock: TurnedClock) -> None:
    with open_database(ledger_url) as database:
        lock = ServerLock(database, "acm-server", clock.now)
        lock.acquire()
        with database.transaction() as connection:
            connection.execute(SERVERS.delete())
        with raises_code(ServerRunning, "server_running"):
            acm(ledger_url, "ledger", "restored")
        lock.release()


def test_damaged_rows_are_listed_without_their_secrets(ledger_url: str, clock: TurnedClock) -> None:
    with open_database(ledger_url) as database:
        secret = CommandRequest("restart-agent", {"password": "hunter2"}, Origin("me", "test"))
        command = Ledger(database, now=clock.now).add_command("web-01", secret)
    overwrite(ledger_url, COMMANDS.c.state, command.id, b"qu\xe5ued")
    (listed,) = json.loads(acm(ledger_url, "ledger", "damaged", "--json").output)
    assert (listed["table"], listed["key"], listed["agent"]) == ("commands", command.id, "web-01")
    assert "hunter2" not in listed["content"]
    assert command.id in acm(ledger_url, "ledger", "damaged").output


def test_agent_that_was_forgotten_long_ago_is_pruned_as_announced(ledger_url: str, clock: TurnedClock) -> None:
    with open_database(ledger_url) as database:
        ledger = Ledger(database, now=clock.now)
        ledger.add_command("web-01", REQUEST)
        ledger.forget("web-01")
    for words in (("--dry-run",), ()):
        counts = json.loads(acm(ledger_url, "prune", "--older-than", "1d", "--json", *words).stdout)
        assert (counts["commands"], counts["agents"]) == (1, 1)
    shown = acm(ledger_url, "prune", "--older-than", "1d", "--vacuum").stdout
    assert ("nothing to vacuum" in shown) == ledger_url.startswith("postgresql")


def test_agent_that_is_gone_is_forgotten(ledger_url: str, clock: TurnedClock) -> None:
    with open_database(ledger_url) as database:
        Ledger(database, now=clock.now).add_command("web-01", REQUEST)
    assert "1 open command" in acm(ledger_url, "agents", "forget", "web-01").stdout
    assert json.loads(acm(ledger_url, "agents", "--json").stdout) == []
