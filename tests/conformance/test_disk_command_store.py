"""What the store on disk adds: damage, locks, kill -9, a full disk."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.contract.commands.get_audit_journal import GetAuditJournal, GetAuditJournalData
from broker.contract.journal import MIN_KEPT_BYTES, ChainFault, JournalPage, chain_faults
from broker.contract.limits import MAX_FRAME_BYTES
from broker.contract.states import Outcome, State
from consumer.enrolment.keys import new_key
from consumer.enrolment.store import CertifiedGrant, EnrolmentDirectory, Grant
from consumer.errors import StateDirectoryInUse, StoreError
from consumer.handler import Context, Result
from consumer.handlers.get_audit_journal import HANDLER as JOURNAL_HANDLER
from consumer.ports import Tombstone
from consumer.services import NoService
from consumer.store.command_store import DiskCommandStore
from consumer.store.opening import open_store
from consumer.store.reader import read_journal, read_queue
from consumer.store.state_directory import epoch_name
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.journals import entries_of, journal_in
from tests.support.makers import NOW, command, stored_result
from tests.support.stored import all_commands

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> Iterator[DiskCommandStore]:
    opened = open_store(state, now=lambda: NOW)
    yield opened
    opened.close()


@pytest.mark.parametrize("spoil", ["truncate", "overwrite", "remove"])
def test_damaged_store_is_set_aside_and_a_new_generation_begins(state: Path, spoil: str) -> None:
    store = open_store(state, now=lambda: NOW)
    store.store_command(command("a", 1), NOW)
    generation = store.store_generation
    store.close()
    database = state / "commands" / "cache.db"
    for extra in ("-wal", "-shm"):
        database.with_name("cache.db" + extra).unlink(missing_ok=True)
    if spoil == "remove":
        database.unlink()
    else:
        database.write_bytes(b"" if spoil == "truncate" else b"\0" * 50_000)
    again = open_store(state, now=lambda: NOW)
    try:
        assert again.damage is not None
        assert again.store_generation != generation
        assert all_commands(again) == []
        assert (again.last_sequence, again.closed_epoch) == (None, 7)
        assert len(list(state.glob("commands.damaged-*"))) == 1
    finally:
        again.close()
    later = open_store(state, now=lambda: NOW)
    assert (later.damage, later.closed_epoch) == (None, 7)
    later.close()


def test_second_agent_on_a_state_directory_is_refused(store: DiskCommandStore, state: Path) -> None:
    with pytest.raises(StateDirectoryInUse):
        open_store(state, now=lambda: NOW)


def test_queue_is_readable_while_the_agent_holds_the_store(store: DiskCommandStore, state: Path) -> None:
    for name in "abc":
        store.store_command(command(name), NOW)
    a, b, _ = store.get_next_commands(3)
    store.mark_completed(store.mark_processing(a, NOW, "me"), stored_result("a"))
    store.mark_processing(b, NOW, "me")
    assert read_queue(state) == all_commands(store)
    assert [stored.state for stored in read_queue(state)] == [State.DONE, State.PROCESSING, State.PENDING]


def test_pending_command_is_read_when_its_turn_comes(store: DiskCommandStore, state: Path) -> None:
    for name in "ab":
        store.store_command(command(name), NOW)
    edit(state, "UPDATE Cache SET value = x'5b' WHERE key LIKE 'c/%2/b'")
    store._load()  # both have arrived so recently that they are in memory
    waiting = store.get_next_commands(2)
    assert next(waiting).damage is None
    damaged = next(waiting)
    assert (damaged.command.id, damaged.damage is None) == ("b", False)


def test_missing_queue_is_an_error(tmp_path: Path) -> None:
    with raises_code(StoreError, "store_unreadable"):
        read_queue(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE Cache SET mode = 4 WHERE key = 'm/head'", "foreign_row"),
        ("UPDATE Cache SET value = 'x' WHERE key = 'm/head'", "foreign_row"),
        (
            "UPDATE Cache SET value = CAST(replace(value, 'val\":1', 'val\":3') AS BLOB) WHERE key = 'm/head'",
            "row_unreadable",
        ),
        ("UPDATE Cache SET value = x'5b' WHERE key = 'm/head'", "row_unreadable"),
        ("DELETE FROM Cache WHERE key = 'm/head'", "row_unreadable"),
    ],
)
def test_foreign_head_is_never_unpickled_and_counts_as_damage(state: Path, change: str, code: str) -> None:
    store = open_store(state, now=lambda: NOW)
    store.store_command(command("a"), NOW)
    store.remember_cancel("b", NOW)
    generation = store.store_generation
    store.close()
    connection = sqlite3.connect(state / "commands" / "cache.db")
    with connection:
        assert connection.execute(change).rowcount == 1
    connection.close()
    again = open_store(state, now=lambda: NOW)
    try:
        assert again.damage is not None
        assert again.damage.code == code
        assert again.store_generation != generation
        assert all_commands(again) == []
        assert len(list(state.glob("commands.damaged-*"))) == 1
    finally:
        again.close()


def test_closed_store_is_not_reopened_without_the_lock(state: Path) -> None:
    store = open_store(state, now=lambda: NOW)
    store.store_command(command("a"), NOW)
    store.close()
    with raises_code(StoreError, "store_closed"):
        all_commands(store)
    with raises_code(StoreError, "store_closed"):
        store.store_command(command("b"), NOW)


def test_transaction_that_cannot_begin_leaves_the_next_one_atomic(
    store: DiskCommandStore, state: Path, tmp_path: Path
) -> None:
    state.rename(tmp_path / "away")
    with raises_code(StoreError, "state_directory_unusable"):
        store.store_command(command("a"), NOW)
    (tmp_path / "away").rename(state)

    def store_and_fail() -> None:
        with store.transaction():
            store.store_command(command("b"), NOW)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own
        store_and_fail()
    assert all_commands(store) == []


def test_state_directory_is_private(store: DiskCommandStore, state: Path) -> None:
    assert state.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def enrolled(state: Path) -> Path:
    """The state directory of an agent with the enrolment `e1`, whose store has seen epoch 7."""
    state.mkdir(mode=0o700)
    enroll(state, "e1")
    store = open_store(state, now=lambda: NOW, enrolment_id="e1")
    store.store_command(command("a", 1), NOW)
    store.close()
    return state


def enroll(state: Path, enrolment_id: str) -> None:
    grant = Grant(
        "web-01", enrolment_id, "https://acm", "mqtts://acm", "acm", (), NOW, NOW + timedelta(days=30), "t" * 64
    )
    EnrolmentDirectory(state).add(CertifiedGrant(grant, enrolment_id, "certificate", "ca"), new_key())


def closed_epoch(state: Path, enrolment_id: str | None) -> int:
    store = open_store(state, now=lambda: NOW, enrolment_id=enrolment_id)
    store.close()
    return store.closed_epoch


EPOCH_OF_E1 = f"enrolment/{epoch_name('e1')}"


@pytest.mark.parametrize(
    "lost",
    [
        {"epoch": None},
        {"epoch": b""},
        {"epoch": None, "store-made": None},
        {EPOCH_OF_E1: b"\xff"},
        {EPOCH_OF_E1: None},
        {"epoch": b"6"},
    ],
    ids=str,
)
def test_epoch_of_a_lost_store_is_read_from_the_remaining_file(enrolled: Path, lost: dict[str, bytes | None]) -> None:
    lose(enrolled, lost)
    assert (closed_epoch(enrolled, "e1"), closed_epoch(enrolled, "e1")) == (7, 7)
    assert ((enrolled / "epoch").read_bytes(), (enrolled / EPOCH_OF_E1).read_bytes()) == (b"7", b"7")


@pytest.mark.parametrize("left", [None, b"", b"\xff"])
def test_enrolled_agent_without_any_epoch_file_refuses_to_start(enrolled: Path, left: bytes | None) -> None:
    lose(enrolled, {"epoch": left, EPOCH_OF_E1: left})
    for _ in range(2):
        with raises_code(StoreError, "epochs_unknown"):
            closed_epoch(enrolled, "e1")
    enroll(enrolled, "e2")
    assert closed_epoch(enrolled, "e2") == 0


def test_present_store_restores_the_epoch_files(enrolled: Path) -> None:
    (enrolled / "epoch").write_bytes(b"")
    (enrolled / EPOCH_OF_E1).unlink()
    assert closed_epoch(enrolled, "e1") == 0
    lose(enrolled, {})
    assert closed_epoch(enrolled, "e1") == 7


def test_renewal_keeps_the_epoch(enrolled: Path) -> None:
    enrolment = EnrolmentDirectory(enrolled)
    enrolment.remove("e1")
    enroll(enrolled, "e1")
    lose(enrolled, {"epoch": None})
    assert closed_epoch(enrolled, "e1") == 7


def lose(state: Path, lost: dict[str, bytes | None]) -> None:
    shutil.rmtree(state / "commands")
    for name, left in lost.items():
        if left is None:
            (state / name).unlink()
        else:
            (state / name).write_bytes(left)


def test_rows_of_an_earlier_version_have_no_signers(state: Path) -> None:
    store = open_store(state, now=lambda: NOW)
    store.store_command(command("a", 1), NOW, ("k1",))
    store.close()
    edit(
        state,
        "UPDATE Cache SET value = CAST(replace(value, ',\"signed_by\":[\"k1\"]', '') AS BLOB) WHERE key LIKE 'c/%'",
    )
    again = open_store(state, now=lambda: NOW)
    assert [stored.signed_by for stored in all_commands(again)] == [None]
    again.close()


@pytest.mark.parametrize(
    "setting", ["'disk_x', 1", "'sqlite_nonsense', '1; x'", "'sqlite_cache_size', '1; x'", "'nonsense', 1"]
)
def test_foreign_settings_are_dropped_and_the_commands_stay(state: Path, setting: str) -> None:
    store = open_store(state, now=lambda: NOW)
    store.store_command(command("a"), NOW)
    store.close()
    edit(state, f"INSERT OR REPLACE INTO Settings VALUES ({setting})")
    again = open_store(state, now=lambda: NOW)
    again.close()
    assert again.damage is None
    assert [stored.command.id for stored in read_queue(state)] == ["a"]
    assert "nonsense" not in read_settings(state)
    assert "1; x" not in read_settings(state).values()


def read_settings(state: Path) -> dict[str, object]:
    with closing(sqlite3.connect(state / "commands" / "cache.db")) as connection:
        return dict(connection.execute("SELECT key, value FROM Settings"))


@pytest.mark.parametrize("value", ["'x'", "NULL", "1000000000000", "1.5"])
@pytest.mark.parametrize("key", ["c/%", "m/head"])
def test_foreign_row_makes_queue_and_journal_unreadable(state: Path, key: str, value: str) -> None:
    store = open_store(state, now=lambda: NOW)
    store.store_command(command("a"), NOW)
    store.close()
    edit(state, f"UPDATE Cache SET value = {value} WHERE key LIKE '{key}'")
    with raises_code(StoreError, "foreign_row"):
        read_queue(state)
    if key == "m/head":
        with raises_code(StoreError, "foreign_row"):
            read_journal(state)


def test_state_directory_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with raises_code(StoreError, "state_directory_unusable"):
        open_store(tmp_path / "file" / "state", now=lambda: NOW)


def run(script: str, *argv: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = (*prefix, sys.executable, "-c", script, *argv)
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


WRITER = """
import os, signal, sys
from pathlib import Path
from tests.support.makers import NOW, command
from consumer.store.command_store import DiskCommandStore
from consumer.store.opening import open_store
store = open_store(Path(sys.argv[1]), now=lambda: NOW)
for number in range(1, 30):
    store.store_command(command(str(number), number), NOW)
    print(number, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_committed_commands_survive_kill_9(state: Path) -> None:
    done = run(WRITER, str(state))
    assert done.returncode == -9, done.stderr
    assert [stored.command.id for stored in read_queue(state)] == done.stdout.split()
    journal = journal_in(state)
    assert faults_of(journal) == []
    accepted = [accepted["id"] for entry in entries_of(journal) for accepted in entry.get("accepted", ())]
    assert accepted == done.stdout.split()


def faults_of(journal: GetAuditJournalData) -> list[ChainFault]:
    return list(chain_faults(journal.anchor, journal.head, journal.pages))


def edit(state: Path, *statements: str) -> None:
    connection = sqlite3.connect(state / "commands" / "cache.db")
    with connection:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1
    connection.close()


@pytest.fixture
def paged(state: Path) -> Path:
    """A state directory whose journal has three pages, and some entries in the head row."""
    store = open_store(state, now=lambda: NOW)
    for number in range(1, 80):
        store.store_command(command(f"command-{number:03d}", number), NOW)
    store.close()
    assert len(read_journal(state).pages) == 4
    return state


FIRST = "(SELECT min(key) FROM Cache WHERE key LIKE 'j/%')"
LAST = "(SELECT max(key) FROM Cache WHERE key LIKE 'j/%')"


@pytest.mark.parametrize(
    ("statements", "number"),
    [
        ([f"UPDATE Cache SET value = CAST(replace(value, '-005', '-006') AS BLOB) WHERE key = {FIRST}"], 21),
        ([f"DELETE FROM Cache WHERE key = {FIRST}"], 1),
        (
            [
                f"UPDATE Cache SET key = 'x' WHERE key = {FIRST}",
                f"UPDATE Cache SET key = 'j/0000000000000001' WHERE key = {LAST}",
                "UPDATE Cache SET key = 'j/0000000000000051' WHERE key = 'x'",
            ],
            0,
        ),
    ],
)
def test_journal_altered_on_the_disk_breaks_the_chain(paged: Path, statements: list[str], number: int) -> None:
    assert faults_of(journal_in(paged)) == []
    edit(paged, *statements)
    assert faults_of(journal_in(paged))[0].number == number


@pytest.mark.parametrize(
    "statement",
    [
        f"DELETE FROM Cache WHERE key = {LAST}",
        f"UPDATE Cache SET value = CAST(replace(value, 'restart', 'RESTART') AS BLOB) WHERE key = {LAST}",
        "UPDATE Cache SET value = CAST(replace(value, '-079', '-078') AS BLOB) WHERE key = 'm/head'",
        "UPDATE Cache SET value = CAST(replace(value, '\"number\":80', '\"number\":60') AS BLOB) WHERE key = 'm/head'",
    ],
)
def test_agent_continues_after_an_altered_journal_end_and_reports_it(paged: Path, statement: str) -> None:
    edit(paged, statement)
    store = open_store(paged, now=lambda: NOW)
    assert store.damage is not None
    assert store.damage.code == "journal_altered"
    assert store.pending_count() == 79
    store.store_command(command("later", 80), NOW)
    store.close()
    again = open_store(paged, now=lambda: NOW)
    assert again.damage is None
    again.store_command(command("last", 81), NOW)
    again.close()
    journal = journal_in(paged)
    assert faults_of(journal) != []
    later = [entry for entry in entries_of(journal) if "opened" in entry][-1]
    assert "The end of the audit journal" in later["opened"]["message"]
    assert [accepted["id"] for accepted in later["accepted"]] == ["later"]
    numbers = [entry["number"] for entry in entries_of(journal)]
    assert numbers[-1] > numbers[-2] > 79


def test_loss_of_the_store_is_noted_in_its_new_journal(state: Path) -> None:
    open_store(state, now=lambda: NOW).close()
    (state / "commands" / "cache.db").unlink()
    store = open_store(state, now=lambda: NOW)
    store.close()
    (entry,) = entries_of(journal_in(state))
    assert entry["opened"]["store_generation"] == store.store_generation
    assert "set aside" in entry["opened"]["message"]


def test_store_of_an_earlier_version_begins_its_journal(state: Path) -> None:
    store = open_store(state, now=lambda: NOW)
    store.store_command(command("a", 1), NOW)
    store.close()
    edit(state, "UPDATE Cache SET value = x'7b226172726976616c223a317d' WHERE key = 'm/head'")
    later = open_store(state, now=lambda: NOW)
    assert (later.damage, later.audit_head) == (None, None)
    later.store_command(command("b", 2), NOW)
    later.close()
    (entry,) = entries_of(journal_in(state))
    assert (entry["opened"]["held"], entry["accepted"][0]["id"]) == (1, "b")
    assert "older than its journal" in entry["opened"]["message"]


def test_journal_deletes_its_oldest_pages_but_keeps_the_minimum(state: Path) -> None:
    store = open_store(state, now=lambda: NOW)
    name = "\U0001f600" * 120  # as long as a name can be
    for number in range(1, 100):
        with store.transaction():
            for index in range(64):
                stored = store.store_command(command(f"{name}{number}-{index}"), NOW)
                store.mark_completed(stored, stored_result(stored.command.id))
                store.delete_completed_commands([stored.command.id], NOW)
    store.close()
    journal = journal_in(state)
    assert faults_of(journal) == []
    assert journal.anchor.number > 0
    size = sum(len(line.encode()) for page in journal.pages for line in page.entries)
    assert MIN_KEPT_BYTES <= size < MIN_KEPT_BYTES + (1 << 17)
    with closing(sqlite3.connect(state / "commands" / "cache.db")) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM Cache WHERE key LIKE 'j/%'").fetchone()
    assert rows in (len(journal.pages), len(journal.pages) - 1)


def test_journal_parts_join_into_the_whole(paged: Path) -> None:
    whole, first, parts = read_journal(paged), 1, []
    while (part := read_journal(paged, first, 5000)).pages:
        assert len(part.pages) == 1
        parts += part.pages
        first = part.pages[-1].last + 1
    assert (tuple(parts), first) == (whole.pages, whole.head.number + 1)
    assert read_journal(paged, 40).pages[0].first <= 40 <= read_journal(paged, 40).pages[0].last


def test_journal_is_sent_in_parts_that_the_broker_takes(paged: Path) -> None:
    def pages(max_result_bytes: int) -> tuple[JournalPage, ...]:
        around = Context(TurnedClock(), NoService(), paged, max_result_bytes=lambda: max_result_bytes)
        done = JOURNAL_HANDLER.execute(command("a"), GetAuditJournal(1), around)
        assert isinstance(done, Result)
        return done.data.pages

    assert len(pages(MAX_FRAME_BYTES)) == 4
    assert len(pages(20_000)) < 4
    assert len(pages(100)) == 1


def test_missing_journal_is_an_error(tmp_path: Path) -> None:
    with raises_code(StoreError, "store_unreadable"):
        read_journal(tmp_path / "nowhere")


FILLER = """
import subprocess, sys
from dataclasses import replace
from pathlib import Path
from tests.support.makers import NOW, command, stored_result
from tests.support.stored import all_commands
from consumer.store.command_store import DiskCommandStore
from consumer.store.opening import open_store
from consumer.errors import StoreFull

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(disk)], check=True)
store = open_store(disk / "state", now=lambda: NOW)
big = replace(command("x"), parameters={"text": "x" * 200_000})
stored, refused = 0, 0
while refused < 2:  # after the first, the log is truncated, which makes room for more
    try:
        store.store_command(replace(big, id=str(stored)), NOW)
        stored, refused = stored + 1, 0
    except StoreFull as error:
        refused += 1
assert 5 < stored < 60, stored
try:
    store.check()
except StoreFull as error:
    print(error)
assert len(all_commands(store)) == stored
(disk / "filler").write_bytes(b"x" * 100_000)
for command in all_commands(store):
    begun = store.mark_processing(command, NOW, "me")
    store.mark_completed(begun, stored_result(begun.command.id))
    store.delete_completed_commands([begun.command.id], NOW)
store.tidy(NOW)
store.close()
(disk / "filler").unlink()
store = open_store(disk / "state", now=lambda: NOW)
print("deleted", all_commands(store) == [])
"""


def test_full_disk_refuses_commands_but_not_results_and_deletions(tmp_path: Path) -> None:
    in_a_namespace = ("unshare", "--user", "--map-root-user", "--mount")
    done = run(FILLER, str(tmp_path), prefix=in_a_namespace)
    assert done.returncode == 0, done.stderr
    full = "The disk is full: no command is accepted until there is space again."
    assert done.stdout.splitlines() == [full, "deleted True"]


LIFE = """
import subprocess, sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tests.support.makers import NOW, command, encoded, result
from tests.support.stored import tidy
from consumer.store.opening import open_store

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(disk)], check=True)
store = open_store(disk / "state", now=lambda: NOW)

def size():
    return sum(path.stat().st_size for path in (disk / "state" / "commands").iterdir())

for number in range(500):
    name = f"command-{number}"
    store.store_command(command(name), NOW)
    (stored,) = store.get_next_commands(1)
    store.mark_completed(stored, encoded(replace(result(name), data={"text": "x" * 60_000})))
    store.delete_completed_commands([name], NOW + timedelta(days=365))
print(size() < 8_000_000)
tidy(store, NOW)
print(size() < 2_000_000, store.find_tombstone("command-0") is not None)
"""


def test_acknowledged_results_do_not_fill_the_disk(tmp_path: Path) -> None:
    """30 MB of results pass through a store on a file system of 12 MB; their ids remain."""
    done = run(LIFE, str(tmp_path), prefix=("unshare", "--user", "--map-root-user", "--mount"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 3


EARLIER = """
import subprocess, sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from consumer.store.cache import _SETTINGS
from consumer.store.opening import open_store
from consumer.store.rows import DeletedRow, encode
from tests.support.makers import NOW, command, encoded, result
from tests.support.stored import tidy

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)], check=True)
_SETTINGS["sqlite_auto_vacuum"] = 0
store = open_store(disk / "state", now=lambda: NOW)
for number in range(110):
    name = f"command-{number}"
    store._rows["r/" + name] = encoded(replace(result(name), data={"text": "x" * 60_000})).encoded
    store._rows[f"d/{number + 1:016d}"] = encode(DeletedRow([name], NOW + timedelta(days=8)))
store.close()
_SETTINGS["sqlite_auto_vacuum"] = 2
with (disk / "filler").open("wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        print((disk / "state" / "ballast").exists())
store = open_store(disk / "state", now=lambda: NOW)
tidy(store, NOW)
store.store_command(command("new"), NOW)
database = disk / "state" / "commands" / "cache.db"
print(store.find_tombstone("command-0") is not None, database.stat().st_size < 500_000)
"""


def test_full_disk_of_an_earlier_version_gets_its_space_back(tmp_path: Path) -> None:
    done = run(EARLIER, str(tmp_path), prefix=("unshare", "--user", "--map-root-user", "--mount"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 3


def test_housekeeping_leaves_a_short_log(state: Path) -> None:
    store, log = open_store(state, now=lambda: NOW), state / "commands" / "cache.db-wal"
    store.store_command(command("a"), NOW)
    before = log.stat().st_size
    store.tidy(NOW)
    assert log.stat().st_size == before > 0
    store.store_command(replace(command("b"), parameters={"x": "x" * 2_000_000}), NOW)
    store.tidy(NOW)
    assert log.stat().st_size == 0
    store.close()


def flip(state: Path, key: str, text: str) -> None:
    """Flip one bit of the last byte of `text` in a row with this key, in the file itself."""
    database = state / "commands" / "cache.db"
    with closing(sqlite3.connect(database)) as connection:
        ((row,),) = connection.execute("SELECT value FROM Cache WHERE key LIKE ?", (key,)).fetchall()
    content = bytearray(database.read_bytes())
    assert text.encode() in row
    place = content.index(row) + row.index(text.encode()) + len(text) - 1
    content[place] ^= 1
    database.write_bytes(content)


@pytest.mark.parametrize(("key", "text"), [("c/%/a", '"id":"a'), ("c/%/a", '"x":"harmless'), ("c/%/a", "{")])
def test_command_with_a_flipped_bit_is_damaged_alone(state: Path, key: str, text: str) -> None:
    store = open_store(state, now=lambda: NOW)
    generation = store.store_generation
    for name in "ab":
        store.store_command(replace(command(name), parameters={"x": "harmless"}), NOW)
    store.close()
    flip(state, key, text)
    assert [stored.command.id[-1] for stored in read_queue(state)] in (["a", "b"], ["`", "b"])
    again = open_store(state, now=lambda: NOW)
    a, b = again.get_next_commands(2)
    assert (a.command.id, a.command.parameters, a.damage is None) == ("a", {}, False)
    assert (b.command.parameters, b.damage) == ({"x": "harmless"}, None)
    assert (again.store_generation, again.damage) == (generation, None)
    assert "(a)" in str(again.row_damage)
    again.close()


def test_result_with_a_flipped_bit_is_restored_from_the_journal(state: Path) -> None:
    store = open_store(state, now=lambda: NOW)
    store.mark_completed(store.store_command(command("a"), NOW), stored_result("a"))
    store.close()
    flip(state, "r/a", "Done")
    again = open_store(state, now=lambda: NOW)
    (done,) = again.with_results()
    assert (done.command.id, done.state, done.result, done.damage is None) == ("a", State.DONE, None, False)
    reported = again.find_reported("a")
    assert reported == Tombstone("a", "d", Outcome.SUCCESS)
    again.restore_result(done, stored_result("a"))
    assert again.with_results()[0].result == stored_result("a")
    again.delete_completed_commands(["a"], NOW)
    again.close()
    assert faults_of(journal_in(state)) == []


def test_tombstones_with_a_flipped_bit_are_named_and_the_others_are_kept(state: Path) -> None:
    store = open_store(state, now=lambda: NOW)
    store.mark_completed(store.store_command(command("first"), NOW), stored_result("first"))
    store.delete_completed_commands(["first"], NOW)
    store.close()
    flip(state, "t/%", "first")
    again = open_store(state, now=lambda: NOW)
    assert "deleted commands" in str(again.row_damage)
    again.close()
