"""acm-agent queue, audit and active-responses on a state directory."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consumer.cli.main import app
from consumer.store.command_store import DiskCommandStore
from consumer.store.opening import open_store
from tests.support.makers import NOW, command, stored_result


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskCommandStore]:
    opened = open_store(tmp_path, now=lambda: NOW)
    yield opened
    opened.close()


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_queue_shows_the_states_of_the_ledger(store: DiskCommandStore, tmp_path: Path) -> None:
    for name in "abc":
        store.store_command(command(name), NOW)
    a, b, _ = store.get_next_commands(3)
    store.mark_completed(store.mark_processing(a, NOW, "me"), stored_result("a"))
    store.mark_processing(b, NOW, "me")
    rows = json.loads(shown("queue", "--state", str(tmp_path), "--json"))
    assert [(row["id"], row["state"], row["outcome"]) for row in rows] == [
        ("a", "completed", "success"),
        ("b", "running", None),
        ("c", "accepted", None),
    ]
    table = shown("queue", "--state", str(tmp_path))
    assert [state in table for state in ("completed", "running", "accepted", "3 commands")] == [True] * 4


def test_audit_shows_the_ends_of_the_journal(store: DiskCommandStore, tmp_path: Path) -> None:
    store.store_command(command("a"), NOW)
    head = store.audit_head
    assert head is not None
    found = json.loads(shown("audit", "--state", str(tmp_path), "--json"))
    assert found == {"number": head.number, "hash": head.hash, "first": 1, "fault": None}
    assert head.hash in shown("audit", "--state", str(tmp_path))
