"""What the machine does not have for a moment (threads, processes, descriptors) is waited for.

The tests with a limit of processes need root: they run their programs as a user of their own, whose limit it is.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from broker.ledger.failures import DatabaseUnavailable
from broker.ledger.postgresql import Connections
from consumer.errors import DownloadError
from consumer.services.kept_program import _KEEPER as KEEPER
from consumer.settings import DownloadConfig
from consumer.system.clock import SystemClock
from consumer.system.confinement import _LAUNCHER as LAUNCHER
from consumer.system.downloads import Downloader, _Watchdog
from consumer.system.last_lines import LastLines
from consumer.system.network import resolve
from consumer.upgrade.installation import Installation
from consumer.upgrade.watcher import _Signals, _Watcher
from tests.support.errors import raises_code
from tests.support.threads import no_thread_left

ROOT = Path(__file__).resolve().parents[2]
USER = 61_999  # no other test may run as this user, since its processes count
AS_USER = """
import os, resource, signal, sys
from pathlib import Path
from time import monotonic
from consumer.errors import ProgramError
from consumer.services import ChildService, kept_program
from consumer.system import confinement
from consumer.system.clock import SystemClock
from consumer.system.programs import Bounds, run_program

user, kind = int(sys.argv[1]), getattr(resource, sys.argv[2])
limit, raised_after_s, place = int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5])
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    sys.executable = "/usr/bin/python3"  # which this user may execute, wherever the environment of the tests is
    confinement._LAUNCHER, kept_program._KEEPER = place / "launch.py", place / "keeper.py"
hard = resource.getrlimit(kind)[1]
signal.signal(signal.SIGALRM, lambda *_: resource.setrlimit(kind, (hard, hard)))
resource.setrlimit(kind, (limit, hard))
if raised_after_s:
    signal.setitimer(signal.ITIMER_REAL, raised_after_s)
"""
PROGRAM = """
bounds = Bounds(SystemClock(), monotonic() + float(sys.argv[6]))
try:
    print(run_program(["/bin/echo", "begun"], bounds).output.stdout.strip())
except ProgramError as error:
    print(error.code, error)
"""
SERVICE = """
service = ChildService(["/bin/sleep", "600"], place, SystemClock(), lambda: iter([0.0]), grace_s=5.0, settle_s=0.2)
print(service.start(monotonic() + 30).running)
service.shut_down()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of USER, with the programs of ours that start others."""
    directory = Path(tempfile.mkdtemp(prefix="acm-limits-"))
    for program in (LAUNCHER, KEEPER):
        shutil.copy(program, directory)
    os.chown(directory, USER, USER)
    yield directory
    shutil.rmtree(directory)


def run_limited(code: str, user: int, limit: tuple[str, int], raised_after_s: float, *arguments: object) -> list[str]:
    """Run the code as a user, under a limit that is raised after so many seconds (0: never); return its lines."""
    argv = [sys.executable, "-c", AS_USER + code, str(user), limit[0], str(limit[1]), str(raised_after_s)]
    done = subprocess.run(
        [*argv, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


LIMITS = [
    (USER, ("RLIMIT_NPROC", 1), "Resource temporarily unavailable"),
    (0, ("RLIMIT_NOFILE", 4), "Too many open files"),
]


@pytest.mark.parametrize(("user", "limit", "reason"), LIMITS)
def test_program_is_started_once_there_is_a_process_and_a_descriptor_for_it(
    place: Path, user: int, limit: tuple[str, int], reason: str
) -> None:
    *logged, last = run_limited(PROGRAM, user, limit, 0.5, place, 30)
    assert (last, len(logged)) == ("begun", 1)
    assert ("program_not_started" in logged[0], reason in logged[0]) == (True, True)


@pytest.mark.parametrize(("user", "limit", "reason"), LIMITS)
def test_program_for_which_there_is_nothing_until_its_deadline_has_not_failed_by_itself(
    place: Path, user: int, limit: tuple[str, int], reason: str
) -> None:
    last = run_limited(PROGRAM, user, limit, 0, place, 0.5)[-1]
    assert last.startswith("launcher_failed The agent could not start /bin/echo: its launcher ")
    assert reason in last


def test_child_service_is_started_once_there_is_a_process_for_it(place: Path) -> None:
    assert run_limited(SERVICE, USER, ("RLIMIT_NPROC", 1), 0.5, place)[-1] == "True"


class Restoring(threading.Event):
    """An event that is never set; after a wait for it there are threads again."""

    def wait(self, timeout: float | None = None) -> bool:
        threading.stack_size(0)
        return False


def downloader(cancelled: threading.Event, within_s: float) -> Downloader:
    return Downloader(DownloadConfig(), SystemClock(), monotonic() + within_s, cancelled)


def test_download_begins_once_there_is_a_thread_for_it() -> None:
    with no_thread_left(), _Watchdog(downloader(Restoring(), 20.0)) as watchdog:
        assert watchdog._thread is not None


def test_download_without_a_thread_until_its_deadline_is_an_error() -> None:
    with no_thread_left(), raises_code(DownloadError, "no_thread"), _Watchdog(downloader(threading.Event(), 0.3)):
        pass


def test_name_is_resolved_once_there_is_a_thread_and_an_address_without_one() -> None:
    restoring = threading.Timer(0.2, threading.stack_size, [0])
    restoring.start()
    with no_thread_left():
        assert {str(address) for address in resolve("192.0.2.1", 1.0, numeric=True)} == {"192.0.2.1"}
        assert "127.0.0.1" in {str(address) for address in resolve("localhost", 20.0)}
    restoring.join()


def test_stderr_that_no_thread_can_read_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with no_thread_left(), pytest.raises(BlockingIOError):
        LastLines()
    assert len(os.listdir("/proc/self/fd")) == before


def test_release_on_trial_is_started_once_there_is_a_thread_for_its_stderr(tmp_path: Path) -> None:
    program = tmp_path / "release"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    restoring = threading.Timer(0.2, threading.stack_size, [0])
    restoring.start()
    with no_thread_left(), _Signals() as signals:
        ended = _Watcher(Installation(tmp_path), [], signals)._run(program, monotonic() + 30)
    restoring.join()
    assert (ended.words, ended.overdue) == ("ended with exit status 7", False)


def test_release_that_could_not_be_started_in_time_has_not_failed_by_itself(tmp_path: Path) -> None:
    with no_thread_left(), _Signals() as signals:
        ended = _Watcher(Installation(tmp_path), [], signals)._run(tmp_path / "release", monotonic() + 0.3)
    assert (ended.words, ended.overdue) == ("could not be started (the machine has no thread now)", True)


def test_ledger_is_not_used_without_a_thread_for_its_deadline() -> None:
    connections = Connections()
    with no_thread_left():
        with pytest.raises(DatabaseUnavailable), connections.limited(1.0):
            pytest.fail("a database that hangs would hang the program")
        connections.hang_up_soon()
    with connections.limited(1.0):
        pass
