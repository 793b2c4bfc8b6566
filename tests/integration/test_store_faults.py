"""What a start of the agent does to its store on file systems and system calls that really fail."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from broker.system.trees import remove_tree
from consumer.errors import StoreError, StoreLocked
from consumer.store.opening import open_store
from consumer.store.reader import read_queue
from tests.faults.failing_calls import all_faults, start_with_fault
from tests.faults.states import STORE_START, held, make_state, set_aside
from tests.support.errors import raises_code
from tests.support.makers import NOW, command
from tests.support.stored import all_commands
from tests.support.strace import strace
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-euc")
CALLS = ("openat", "pread64", "pwrite64", "fdatasync")


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("killed", [False, True], ids=["clean stop", "kill -9"])
def test_call_that_fails_at_the_start_loses_nothing(tmp_path: Path, killed: bool) -> None:
    kept, state = tmp_path / "kept", tmp_path / "state"
    make_state(kept, killed=killed)
    shutil.copytree(kept, state)
    faults = all_faults(state, STORE_START, CALLS)
    assert {fault.name for fault in faults} == set(CALLS)
    # The first calls are those that look for damage; `python -m tests.faults failing-calls` tries all.
    chosen = [[fault for fault in faults if fault.name == call][5] for call in CALLS]
    for fault in chosen:
        shutil.rmtree(state)
        shutil.copytree(kept, state)
        assert start_with_fault(state, STORE_START, fault) == []


FULL = """
mount -t tmpfs -o size=8m,nr_inodes=64 none "$1"; cd "$1"; cp -a "$2" state; shift 2
case "$1" in
    bytes) dd if=/dev/zero of=filler bs=4k 2>/dev/null || true ;;
    names) mkdir full; n=0; while { touch "full/$n"; } 2>/dev/null; do n=$((n + 1)); done ;;
esac
[ "$2" = ballast ] || rm -f state/ballast
[ "$2" = ballast ] || dd if=/dev/zero of=filler2 bs=4k 2>/dev/null || true
cd "$3"; shift 3
started=0; "$@" "$OLDPWD/state" || started=$?
rm -rf "$OLDPWD"/full "$OLDPWD"/filler*
ls -d "$OLDPWD"/state/commands*
"$@" "$OLDPWD/state"
"$1" -m consumer queue --state "$OLDPWD/state"
echo "started: $started"
"""


NO_INODES = """
mount -t tmpfs -o size=64m,nr_inodes=40 none "$1"
cd "$2"; "$3" -c "$4" "$1"
"""
LACK = """
import io, os, sys, tarfile
from pathlib import Path
from broker.system.files import link_durably, write_durably
from consumer.errors import ArchiveError, DownloadError, StoreFull
from consumer.settings import DownloadConfig
from consumer.store.inode_watch import InodeWatch
from consumer.store.state_directory import make_private, usable
from consumer.system.archives import unpack
from consumer.system.clock import SystemClock
from consumer.system.downloads import Downloader
from broker.contract.artifacts import Artifact
import hashlib, threading
from time import monotonic

disk = Path(sys.argv[1])
clock, reported = SystemClock(), []
InodeWatch(disk, clock, reported.append).step()
(disk / "into").mkdir()
packed = disk / "packed.tar"
with tarfile.open(packed, "w") as tar:
    tar.addfile(tarfile.TarInfo("a"), io.BytesIO(b""))
    tar.addfile(tarfile.TarInfo("b"), io.BytesIO(b""))
try:
    for number in range(1000):
        (disk / str(number)).touch()
except OSError:
    pass
InodeWatch(disk, clock, reported.append).step()
print(reported[0], reported[1])

def said(kind, work):
    try:
        work()
    except kind as error:
        print(getattr(error, "strerror", None) or error)

def enter():
    with usable(disk):
        make_private(disk / "state")

artifact = Artifact(packed.as_uri(), hashlib.sha256(packed.read_bytes()).hexdigest(), packed.stat().st_size)
said(OSError, lambda: write_durably(disk / "file", b""))
said(OSError, lambda: link_durably(disk / "link", "1"))
said(ArchiveError, lambda: unpack(packed, disk / "into"))
downloader = Downloader(DownloadConfig(), clock, monotonic() + 9, threading.Event())
said(DownloadError, lambda: downloader.fetch(artifact, disk / "to"))
said(StoreFull, enter)
"""


def test_lack_of_inodes_is_not_called_a_lack_of_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = run(*IN_A_NAMESPACE, NO_INODES, "sh", str(disk), str(ROOT), sys.executable, LACK)
    watched, *said = done.stdout.splitlines()
    assert (watched.startswith("None The file system of"), "no inodes left" in watched) == (True, True)
    assert len(said) == 5
    assert [line for line in said if "inodes" not in line or "space" in line] == []


@pytest.mark.parametrize(
    ("killed", "full_of", "ballast"),
    [(False, "bytes", "ballast"), (True, "bytes", "none"), (False, "names", "none"), (True, "names", "ballast")],
)
def test_start_on_a_full_disk_loses_nothing(tmp_path: Path, killed: bool, full_of: str, ballast: str) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    make_state(kept, killed=killed)
    done = run(*IN_A_NAMESPACE, FULL, "sh", str(disk), str(kept), full_of, ballast, str(ROOT), *STORE_START)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "commands." not in done.stdout
    assert done.stdout.count("restart-agent") == 5
    if ballast == "ballast" and full_of == "bytes":
        assert "started: 0" in done.stdout


def test_store_in_a_lower_layer_of_an_overlay_is_set_aside(tmp_path: Path) -> None:
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    state = tmp_path / "lower" / "state"
    state.parent.mkdir()
    make_state(state, killed=False)
    (state / "commands" / "cache.db").write_bytes(b"\0" * 50_000)
    mount = (
        'mount -t overlay -o userxattr,lowerdir="$1/lower",upperdir="$1/upper",workdir="$1/work" none "$1/merged"; '
        'shift; "$@"; "$@"; ls "$4" "$4"/commands.damaged-*'
    )
    done = run(*IN_A_NAMESPACE, mount, "sh", str(tmp_path), *STORE_START, str(tmp_path / "merged" / "state"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split().count("cache.db") == 1
    assert done.stdout.count("commands.damaged-") == 2


READ_ONLY = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; "$@"'


@pytest.mark.parametrize("what", ["queue", "audit"])
@pytest.mark.parametrize("killed", [False, True], ids=["clean stop", "kill -9"])
def test_store_on_a_read_only_file_system_is_read(tmp_path: Path, killed: bool, what: str) -> None:
    state = tmp_path / "state"
    make_state(state, killed=killed)
    argv = (sys.executable, "-m", "consumer", what, "--state", str(state))
    done = run(*IN_A_NAMESPACE, READ_ONLY, "sh", str(tmp_path), *argv)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("restart-agent" if what == "queue" else "number 1 to") == (5 if what == "queue" else 1)


@pytest.mark.parametrize("left", ["no database", "an empty database", "no table", "no row"])
def test_store_that_was_never_finished_is_no_damage(tmp_path: Path, left: str) -> None:
    store = tmp_path / "commands"
    store.mkdir()
    if left != "no database":
        with closing(sqlite3.connect(store / "cache.db")) as connection:
            if left != "an empty database":
                connection.execute("PRAGMA journal_mode = wal")
                connection.execute("CREATE TABLE Settings (key TEXT NOT NULL UNIQUE, value)")
            if left == "no row":
                connection.execute("CREATE TABLE Cache (rowid INTEGER PRIMARY KEY, key BLOB, value BLOB)")
    with closing(open_store(tmp_path, now=lambda: NOW)) as opened:
        assert opened.damage is None
        opened.store_command(command("a"), NOW)
    assert held(tmp_path) == ["a"]
    assert set_aside(tmp_path) == []


def test_kill_while_a_store_is_created_leaves_no_damage(tmp_path: Path) -> None:
    """The new store is in place only once it is whole."""
    open_store(tmp_path, now=lambda: NOW).close()
    (tmp_path / "commands").rename(tmp_path / "commands.new")
    (tmp_path / "store-made").unlink()
    with closing(open_store(tmp_path, now=lambda: NOW)) as opened:
        assert opened.damage is None
    assert set_aside(tmp_path) == []


def test_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "commands").symlink_to("commands")
    with raises_code(StoreError, "state_directory_unusable"):
        open_store(tmp_path / "state", now=lambda: NOW)


def test_link_to_a_file_system_that_is_not_mounted_is_an_error(tmp_path: Path) -> None:
    state, volume = tmp_path / "state", tmp_path / "volume"
    make_state(state, killed=False)
    (state / "commands").rename(volume)
    (state / "commands").symlink_to(volume)
    volume.rename(tmp_path / "away")
    with raises_code(StoreError, "state_directory_unusable"):
        open_store(state, now=lambda: NOW)
    (tmp_path / "away").rename(volume)
    with closing(open_store(state, now=lambda: NOW)) as opened:
        assert (opened.damage, len(all_commands(opened))) == (None, 5)


def test_damaged_index_is_made_again_and_the_commands_stay(tmp_path: Path) -> None:
    make_state(tmp_path, killed=False)
    damage_an_index(tmp_path / "commands" / "cache.db")
    with closing(open_store(tmp_path, now=lambda: NOW)) as opened:
        assert (opened.damage, len(all_commands(opened))) == (None, 5)
        opened.tidy(NOW + timedelta(days=9))


def damage_an_index(database: Path) -> None:
    content, key = database.read_bytes(), b"c/0000000000000003"
    at = -1
    while (at := content.find(key, at + 1)) >= 0:
        database.write_bytes(content[:at] + b"c/0000000000000007" + content[at + len(key) :])
        with closing(sqlite3.connect(database)) as connection:
            quick = connection.execute("PRAGMA quick_check").fetchone()
            (row,) = connection.execute(
                "SELECT count(*) FROM Cache NOT INDEXED WHERE key GLOB ?", (key.decode() + "*",)
            ).fetchone()
            full = connection.execute("PRAGMA integrity_check").fetchone()
        if quick == ("ok",) and full != ("ok",) and row:
            return
    pytest.fail("no copy of the key is in an index")


@pytest.mark.parametrize("how", ["deleted", "replaced", "its log deleted"])
def test_store_that_is_taken_away_accepts_nothing(tmp_path: Path, how: str) -> None:
    with closing(open_store(tmp_path, now=lambda: NOW)) as opened:
        opened.store_command(command("a"), NOW)
        store = tmp_path / "commands"
        if how == "its log deleted":
            (store / "cache.db-wal").unlink()
        else:
            store.rename(tmp_path / "away")
        if how == "replaced":
            shutil.copytree(tmp_path / "away", store)
        with raises_code(StoreError, "store_replaced"):
            opened.store_command(command("b"), NOW)
        if how != "its log deleted":
            remove_tree(tmp_path / "away")


def test_directory_of_another_agent_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path, now=lambda: NOW).close()  # as an earlier version left it
    for _ in range(2):
        with closing(open_store(tmp_path, now=lambda: NOW, agent="a1")) as opened:
            opened.store_command(command(str(opened.pending_count())), NOW)
    with raises_code(StoreError, "state_directory_of_another_agent"):
        open_store(tmp_path, now=lambda: NOW, agent="a9")
    done = run(
        *(sys.executable, "-m", "consumer", "run", "--agent", "a9", "--broker", "mqtt://127.0.0.1:1"),
        *("--state", str(tmp_path), "--accept-unsigned"),
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert "a1" in done.stderr
    assert len(read_queue(tmp_path)) == 2


def test_agent_ends_on_term_while_another_process_locks_its_store(tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "log"
    make_state(state, killed=False)
    argv = (sys.executable, "-m", "consumer", "run", "--agent", "a1", "--broker", "mqtt://127.0.0.1:1")
    with (
        closing(sqlite3.connect(state / "commands" / "cache.db", isolation_level=None)) as other,
        log.open("wb") as end,
    ):
        other.execute("BEGIN IMMEDIATE")
        waits = subprocess.Popen([*argv, "--state", str(state), "--accept-unsigned"], cwd=ROOT, stdout=end, stderr=end)
        wait_for(lambda: "store_locked" in log.read_text(), "the agent to say that the store is locked")
        waits.terminate()
        assert waits.wait(10) in (0, -signal.SIGTERM, 4)
        with raises_code(StoreLocked, "store_locked"):
            open_store(state, now=lambda: NOW, stopping=lambda: True)
    assert len(held(state)) == 5
    assert set_aside(state) == []


BEYOND_A_QUOTA = """
import sys
from pathlib import Path
from consumer.errors import StoreFull
from consumer.store.opening import open_store
from tests.support.makers import NOW, command
store = open_store(Path(sys.argv[1]), now=lambda: NOW, agent="a1")
for number in range(6, 200):
    try:
        store.store_command(command(str(number), number), NOW)
    except StoreFull:
        print("full", store.has_room, (Path(sys.argv[1]) / "ballast").exists())
        break
try:
    store.check()
except StoreFull:
    print("full", store.has_room)
"""


def test_quota_that_ends_is_a_full_disk(tmp_path: Path) -> None:
    """SQLite calls EDQUOT an I/O error, and the free space of the file system does not show it."""
    make_state(tmp_path, killed=False)
    store = tmp_path / "commands"
    paths = [tmp_path / "ballast", *(store / f"cache.db{end}" for end in ("", "-wal", "-shm"))]
    faults = [("pwrite64", 80), ("fallocate", 2)]  # the first ones are those of the opening
    argv = [strace(), "-f", "-qq", "-o", "/dev/null", *(word for path in paths for word in ("-P", str(path)))]
    argv += [word for name, first in faults for word in ("-e", f"inject={name}:error=EDQUOT:when={first}+")]
    done = run(*argv, sys.executable, "-c", BEYOND_A_QUOTA, str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "full True False\nfull False\n"), done.stdout + done.stderr
    assert len(held(tmp_path)) >= 5
    assert set_aside(tmp_path) == []
