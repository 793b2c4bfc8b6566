"""Commands of acm that change the ledger: operations, groups and blobs."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.app.factories import open_database
from broker.cli.broker import run
from broker.cli.main import app
from broker.cli.targets import UnknownAgent
from broker.contract.artifacts import Artifact
from broker.contract.messages import Origin, Status
from broker.enrolment.tables import ENROLMENTS
from broker.errors import BrokerError, InvalidArgument, LedgerError
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from tests.support.errors import raises_code


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(open_database(url), now=lambda: datetime.now(UTC))
    yield opened
    opened.database.close()


def acm(url: str, *words: str) -> Any:
    return CliRunner().invoke(app, words, env={"ACM_LEDGER": url}, catch_exceptions=False)


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


@pytest.mark.parametrize("prefix", ["", "blob:"])
def test_blob_is_removed_by_its_digest_with_or_without_the_prefix(
    url: str, ledger: Ledger, tmp_path: Path, prefix: str
) -> None:
    (tmp_path / "file").write_text("x")
    blob = ledger.blobs.put(tmp_path / "file")
    acm(url, "blob", "rm", f"{prefix}{blob.sha256}")
    assert ledger.blobs.rows() == []


@pytest.mark.parametrize("options", [{"port": 1883}, {"data": Path("/nowhere")}])
def test_broker_of_a_directory_takes_neither_port_nor_data(tmp_path: Path, options: dict[str, Any]) -> None:
    with raises_code(InvalidArgument, "conflicting_options"):
        run(tmp_path, **options)


def test_agent_that_is_online_is_forgotten_by_force_or_once_it_was_revoked(url: str, ledger: Ledger) -> None:
    for agent in ("web-01", "web-02", "web-03"):
        ledger.record_status(Status(agent, agent != "web-03", "1", "i", "b", "g"))
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
