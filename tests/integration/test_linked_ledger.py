"""A ledger in SQLite that programs name by a link, as to another disk: its log is beside the file, not the link."""

import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.app.factories import open_database, open_ledger
from broker.contract.messages import Origin
from broker.errors import LedgerError
from broker.ledger.backup import back_up, check, restore
from broker.ledger.enqueue import CommandRequest
from broker.ledger.location import ledger_url
from broker.ledger.server_lock import ServerLock, ServerRunning, running_servers
from tests.support.errors import raises_code
from tests.support.makers import NOW

ROOT = Path(__file__).resolve().parents[2]
ADD_AND_DIE = """
import os, sys
from tests.integration.test_linked_ledger import REQUEST, open_ledger
with open_ledger(sys.argv[1]) as ledger:
    ledger.add_command("web-01", REQUEST)
    os._exit(9)
"""
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A link to a ledger whose process was killed, so that its command is in the write-ahead log alone."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "ledger.db"
    link.symlink_to("disk/real.db")
    argv = [sys.executable, "-c", ADD_AND_DIE, f"sqlite:///{tmp_path}/disk/real.db"]
    assert subprocess.run(argv, cwd=ROOT, timeout=100).returncode == 9
    assert Path(f"{link.resolve()}-wal").stat().st_size > link.stat().st_size
    return link


def test_what_is_in_the_log_alone_is_read(link: Path) -> None:
    with open_database(f"sqlite:///{link}", read_only=True) as database:
        assert running_servers(database) == []
    assert check(ledger_url(f"sqlite:///{link}")).commands == 1


def test_second_server_is_refused_under_the_other_name(link: Path) -> None:
    with open_database(f"sqlite:///{link}") as one, open_database(f"sqlite:///{link.resolve()}") as other:
        first, second = (ServerLock(it, "acm-server", lambda: datetime.now(UTC)) for it in (one, other))
        first.acquire()
        with raises_code(ServerRunning, "server_running"):
            second.acquire()
        first.release()


def test_backup_is_restored_into_the_file_itself(link: Path, tmp_path: Path) -> None:
    url, target = ledger_url(f"sqlite:///{link}"), tmp_path / "backup.db"
    assert back_up(url, target).commands == 1
    restore(url, target, lambda _: 0, NOW)
    assert os.readlink(link) == "disk/real.db"
    assert not Path(f"{link.resolve()}-wal").exists()
    with open_ledger(f"sqlite:///{link}") as ledger:
        assert len(ledger.commands()) == 1


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_backup_replaces_nothing_but_a_file(link: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    make = {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("nothing"), "directory": Path.mkdir}
    make[kind](target)
    with closing(open_database(f"sqlite:///{link}")), raises_code(LedgerError, "file_exists"):
        back_up(ledger_url(f"sqlite:///{link}"), target, replace=True)
    assert not target.is_file()
