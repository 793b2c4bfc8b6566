"""Commands of acm that only read the ledger."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.app.factories import open_ledger
from broker.cli.exit_codes import exit_code_of
from broker.cli.main import app
from broker.contract.messages import Origin
from broker.enrolment.tables import METADATA
from broker.errors import BrokerError, LedgerError
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from tests.support.errors import raises_code
from tests.support.postgresql import PostgreSQL


def acm(url: str, *words: str) -> Any:
    return CliRunner().invoke(app, words, env={"ACM_LEDGER": url, "COLUMNS": "160"}, catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["commands", "--agent", "nosuch"], "unknown_agent"),
        (["commands", "--operation", "nosuch"], "unknown_operation"),
        (["enrolment", "list", "--agent", "nosuch"], "unknown_agent"),
        (["active-responses", "nosuch"], "unknown_agent"),
        (["group", "show", "nosuch"], "unknown_group"),
    ],
)
def test_what_does_not_exist_is_not_an_empty_list(url: str, ledger: Ledger, words: list[str], code: str) -> None:
    with raises_code(BrokerError, code):
        acm(url, *words)


def test_list_that_is_cut_says_that_there_are_more(url: str, ledger: Ledger) -> None:
    for _ in range(3):
        ledger.add_operation(["web-01"], "web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    assert "2 commands shown; there are more" in acm(url, "commands", "--limit", "2").stderr
    assert acm(url, "commands", "--limit", "3").stderr == ""
    assert "3 commands" in acm(url, "commands", "--limit", "3", "-o", "table").stdout
    assert "2 operations shown; there are more" in acm(url, "operation", "list", "--limit", "2", "-o", "table").stdout
    assert len(json.loads(acm(url, "commands", "--limit", "2", "--json").stdout)) == 2
    assert acm(url, "commands", "--limit", "9" * 21).exit_code == 2


READERS = [
    ["agents"],
    ["active-responses"],
    ["commands"],
    ["show", "COMMAND"],
    ["operation", "list"],
    ["operation", "show", "OPERATION"],
    ["group", "list"],
    ["group", "show", "edge"],
    ["blob", "list"],
    ["token", "list"],
    ["enrolment", "list"],
    ["ledger", "damaged"],
    ["ledger", "refused"],
    ["unmatched"],
]


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_command_that_reads_waits_for_no_writer(ledger_url: str, words: list[str]) -> None:
    with open_ledger(ledger_url) as ledger:
        operation = ledger.add_operation(
            ["web-01"], "web-01", CommandRequest("restart-agent", {}, Origin("me", "test"))
        )
        ledger.groups.add("edge", ["web-01"])
        ids = {"OPERATION": operation.id, "COMMAND": ledger.commands()[0].command.id}
        with ledger.database.transaction() as writing:
            if writing.dialect.name == "postgresql":
                for table in METADATA.sorted_tables:
                    writing.exec_driver_sql(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE")
            shown = acm(ledger_url, *(ids.get(word, word) for word in words))
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_command_that_reads_creates_no_ledger(tmp_path: Path, words: list[str]) -> None:
    with raises_code(LedgerError, "ledger_not_found") as missing:
        acm(f"sqlite:///{tmp_path}/ledger.db", *words)
    assert list(tmp_path.iterdir()) == []
    assert exit_code_of(missing.value) == 3


def test_empty_database_of_a_server_is_no_ledger_to_a_reader(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    with raises_code(LedgerError, "ledger_not_found"):
        acm(url, "agents")
    with postgresql.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
