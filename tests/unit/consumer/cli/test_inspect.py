"""acm-agent queue, audit and active-responses on a state directory."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from broker.errors import CodedError
from broker.text import rfc3339
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
    assert rows[0]["received_at"] == rfc3339(NOW)


def test_lists_have_the_formats_of_acm(store: DiskCommandStore, tmp_path: Path) -> None:
    store.store_command(command("a"), NOW)
    queue, journal = ("queue", "--state", str(tmp_path)), ("journal", "--state", str(tmp_path))
    assert shown(*queue).splitlines()[0].split() == ["id", "type", "state", "received", "outcome"]
    assert shown(*queue, "-o", "table").startswith("1 command\n")
    assert shown(*queue, "-o", "wide").splitlines()[1].endswith("started (UTC)")
    assert shown(*queue, "-o", "name") == "a\n"
    assert yaml.safe_load(shown(*queue, "-o", "yaml"))[0]["type"] == "restart-agent"
    assert shown(*queue, "--columns", "state,id", "--no-headers") == "accepted  a\n"
    assert shown(*journal, "--columns", "event", "--sort", "-number", "--no-headers") == "accepted\nopened\n"
    assert yaml.safe_load(shown("status", "--state", str(tmp_path), "-o", "yaml"))["queue"]["accepted"] == 1


def test_audit_shows_the_ends_of_the_journal(store: DiskCommandStore, tmp_path: Path) -> None:
    store.store_command(command("a"), NOW)
    head = store.audit_head
    assert head is not None
    found = json.loads(shown("audit", "--state", str(tmp_path), "--json"))
    assert found == {"number": head.number, "hash": head.hash, "first": 1, "fault": None}
    assert head.hash in shown("audit", "--state", str(tmp_path))


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, CodedError), done.output
    return done.exception.code


def test_queue_takes_the_beginning_of_an_id(store: DiskCommandStore, tmp_path: Path) -> None:
    for name in ("ab1", "ab2", "b"):
        store.store_command(command(name), NOW)
    words = ("queue", "--state", str(tmp_path), "--json")
    assert [row["id"] for row in json.loads(shown(*words, "B"))] == ["b"]
    assert [row["id"] for row in json.loads(shown(*words, "ab2"))] == ["ab2"]
    assert refused(*words, "ab") == "ambiguous_id"
    assert refused(*words, "c") == "unknown_id"


def test_journal_lists_each_change_in_order(store: DiskCommandStore, tmp_path: Path) -> None:
    store.store_command(command("abc", 4), NOW)
    begun = store.mark_processing(next(store.get_next_commands(1)), NOW, "me")
    store.mark_resumed(begun, "you")
    store.mark_completed(begun, stored_result("abc"))
    store.delete_completed_commands(["abc"], NOW)
    store.store_command(command("other"), NOW)
    words = ("journal", "--state", str(tmp_path))
    events = json.loads(shown(*words, "--json"))
    assert [(it["event"], it["command_id"], it["detail"]) for it in events[1:]] == [
        ("accepted", "abc", "restart-agent 7/4"),
        ("begun", "abc", None),
        ("resumed", "abc", None),
        ("reported", "abc", "success"),
        ("deleted", "abc", None),
        ("accepted", "other", "restart-agent"),
    ]
    assert [it["number"] for it in events] == list(range(1, 8))
    assert len(json.loads(shown(*words, "ab", "--json"))) == 5
    last = CliRunner().invoke(app, [*words, "--limit", "1"])
    assert last.stderr == "1 event of 7; see --limit\n"
    assert "other" in last.stdout


def test_line_of_the_journal_that_was_altered_is_listed_as_unreadable(store: DiskCommandStore, tmp_path: Path) -> None:
    for number in range(200):  # enough for a page, which is a row of its own
        store.store_command(command(str(number)), NOW)
    with sqlite3.connect(tmp_path / "commands" / "cache.db") as database:
        (key, value) = database.execute("SELECT key, value FROM Cache WHERE key LIKE 'j/%' LIMIT 1").fetchone()
        altered = value.replace(b'"number":2,', b'"number":x,')
        database.execute("UPDATE Cache SET value = ? WHERE key = ?", (altered, key))
    events = json.loads(shown("journal", "--state", str(tmp_path), "--limit", "1000", "--json"))
    assert [it["number"] for it in events if it["event"] == "unreadable"] == [2]


@pytest.mark.parametrize("words", [("queue",), ("status",)])
def test_damaged_row_leaves_one_json_document(store: DiskCommandStore, tmp_path: Path, words: tuple[str, ...]) -> None:
    with store.transaction():
        for name in "abc":
            store.store_command(command(name), NOW)
    with sqlite3.connect(tmp_path / "commands" / "cache.db") as database:
        assert database.execute("UPDATE Cache SET value = X'00' WHERE key LIKE 'n/%'").rowcount == 1
    assert json.loads(shown(*words, "--state", str(tmp_path), "--json"))
