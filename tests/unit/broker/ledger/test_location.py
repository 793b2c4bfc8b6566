"""URLs of ledgers: how they are read, and that no part of a password in one is ever shown."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.app.config import ServerConfigurationError, load_config
from broker.contract.secret_shapes import mask_shapes
from broker.errors import ExposedFileError, LedgerError
from broker.ledger.database import Database
from broker.ledger.location import LedgerUrlError, ledger_url, place_of
from broker.text import toml_string
from tests.support.brokers import free_port
from tests.support.errors import raises_code

ROOT = Path(__file__).resolve().parents[4]
READABLE = {
    "as it is": "postgresql://me:hush1@HOST/acm",
    "escaped": "postgresql://me:hush1%40hush2%2F%3F%23@HOST/acm",
    "with a colon": "postgresql://me:hush1:hush2@HOST/acm",
    "with a slash": "postgresql://me:hush1/hush2@HOST/acm",
    "with a number sign": "postgresql://me:hush1#hush2@HOST/acm",
    "with brackets": "postgresql://me:[hush1]@HOST/acm",
    "with a stray percent sign": "postgresql://me:hush1%zz@HOST/acm",
    "without a user": "postgresql://:hush1@HOST/acm",
    "in the query": "postgresql://HOST/acm?user=me&password=hush1",
    "in the query with a user": "postgresql://me@HOST/acm?password=hush1",
    "under an escaped name": "postgresql://HOST/acm?user=me&p%61ssword=hush1",
    "of the client's key": "postgresql://HOST/acm?user=me&sslpassword=hush1",
    "under a misspelled name": "postgresql://HOST/acm?user=me&pasword=hush1",
}
UNREADABLE = {
    "with an @": "postgresql://me:hush1@hush2@HOST/acm",
    "with an @ after a slash": "postgresql://me:hush1/hush2@hush3@HOST/acm",
    "with an @ after a question mark": "postgresql://me:hush1?hush2@hush3@HOST/acm",
    "that contains a host": "postgresql://me:hush1@hush2:1/acm@HOST/acm",
    "with a blank": "postgresql://me:hush1 hush2@HOST/acm",
    "with a line feed": "postgresql://me:hush1\nhush2@HOST/acm",
    "with U+0000": "postgresql://me:hush1%00hush2@HOST/acm",
    "with bytes that are not UTF-8": "postgresql://me:hush1%FF@HOST/acm",
    "with a lone surrogate": "postgresql://me:hush1\udcff@HOST/acm",
    "twice": "postgresql://HOST/acm?password=hush1&password=hush2",
    "with an open bracket": "postgresql://me:hush1@[::1/acm",
    "as the port": "postgresql://me:hush1",
    "beside an @ in the query": "postgresql://HOST/acm?user=me@realm&password=hush1",
}
WRONG = [
    "sqlite://var/lib/acm/ledger.db",
    "sqlite://ledger.db",
    "sqlite://me:hush@HOST/ledger.db",
    "sqlite:///ledger.db?timeout=soon",
    "sqlite:///ledger.db?timeout=1&timeout=2",
    "sqlite:///file:ledger.db?uri=maybe",
    "postgresql://HOST/acm?autocommit=1",
    "postgresql://HOST/acm?row_factory=dict_row",
    "postgresql://HOST/acm?context=x",
    "postgresql://HOST/acm?cursor_factory=x",
    "postgresql://HOST/acm?conninfo=password%3Dhush",
]


@pytest.fixture(scope="module")
def closed() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize("url", READABLE.values(), ids=READABLE.keys())
def test_no_part_of_a_password_is_shown_when_the_database_fails(closed: str, url: str) -> None:
    url = url.replace("HOST", closed)
    assert place_of(ledger_url(url)).endswith(f"{closed}/acm")
    with pytest.raises(LedgerError) as caught:
        Database(url, sa.MetaData())
    assert "hush" not in str(caught.value)
    assert "hush" not in place_of(ledger_url(url))


@pytest.mark.parametrize("url", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_url_whose_password_cannot_be_told_from_the_rest_is_refused_and_not_repeated(closed: str, url: str) -> None:
    with raises_code(LedgerUrlError, "bad_ledger_url") as caught:
        ledger_url(url.replace("HOST", closed))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", WRONG)
def test_url_with_what_no_ledger_has_is_refused_before_anything_is_created(
    closed: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with raises_code(LedgerUrlError, "bad_ledger_url") as caught:
        Database(url.replace("HOST", closed), sa.MetaData())
    assert "hush" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", ["with a slash", "in the query", "under an escaped name", "of the client's key"])
def test_password_is_refused_on_a_command_line_and_in_a_file_that_others_can_read(tmp_path: Path, case: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f"ledger = {toml_string(READABLE[case])}\n")
    file.chmod(0o644)
    with raises_code(ServerConfigurationError, "password_on_command_line") as caught:
        load_config(None, {"ledger": READABLE[case]}, {})
    assert "hush" not in str(caught.value)
    with raises_code(ExposedFileError, "readable_by_others"):
        load_config(file, {}, {})


@pytest.mark.parametrize("url", ["postgresql://me@HOST/acm?passfile=/etc/acm/pgpass", "sqlite:////var/a:b@c?x=1"])
def test_url_without_a_password_is_taken_from_a_command_line(url: str) -> None:
    assert load_config(None, {"ledger": url}, {}).ledger == url


@pytest.mark.parametrize("case", ["with an @", "with a blank", "under a misspelled name", "twice"])
def test_command_line_prints_no_part_of_a_password(closed: str, case: str) -> None:
    url = {**READABLE, **UNREADABLE}[case].replace("HOST", closed)
    environment = {**os.environ, "ACM_LEDGER": url}
    argv = [sys.executable, "-m", "broker", "agents"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) in ((1, 1), (3, 1)), done.stderr
    assert "hush" not in done.stderr


@pytest.mark.parametrize("parameter", ["password=hush", "p%61ssword=hush", "sslpassword=hush", "x=1&password=hush#x"])
def test_password_in_the_query_of_a_url_is_masked_in_a_text(parameter: str) -> None:
    text = f"Connecting to postgresql://127.0.0.1/acm?sslmode=require&{parameter}: refused."
    assert "hush" not in mask_shapes(text)
    assert "sslmode=require" in mask_shapes(text)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sqlite:////var/lib/acm/a b#1.db", "/var/lib/acm/a b#1.db"),
        ("sqlite:////var/me@host:1/ledger.db?timeout=3", "/var/me@host:1/ledger.db"),
        ("postgres://me@db.example.org/acm", "postgresql://me@db.example.org/acm"),
        ("postgresql://me:hush@[::1]:5433/acm?sslmode=require", "postgresql://me:***@[::1]:5433/acm"),
        ("postgresql:///acm?host=/run/postgresql&user=me%40realm", "postgresql:///acm"),
        ("postgresql://db.example.org/acm?options=-c lock_timeout=9s", "postgresql://db.example.org/acm"),
        ("postgresql://db.example.org/acm?passfile=/etc/acm/pgpass", "postgresql://db.example.org/acm"),
    ],
)
def test_place_of_a_ledger_is_shown(url: str, place: str) -> None:
    assert place_of(ledger_url(url)) == place


def test_sqlite_that_lacks_what_statements_need_is_refused_before_a_file_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    with raises_code(LedgerError, "sqlite_too_old"):
        Database(f"sqlite:///{tmp_path}/ledger.db", sa.MetaData())
    assert not list(tmp_path.iterdir())
