"""Full disks and power loss. Both mount file systems, which needs root."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.states import AGENT_START, held, make_state, set_aside
from tests.faults.tally import Budget, Tally

__all__ = ["full", "power_loss"]


_PAGE = 4096
_TIMEOUT_S = 60
_UNSYNCED, _CONTENT = "unsynced", b"x" * _PAGE


@contextmanager
def _mounted(directory: Path, *arguments: str) -> Iterator[Path]:
    assert os.geteuid() == 0, "This loop mounts file systems: run it as root"
    directory.mkdir()
    subprocess.run(["mount", *arguments, str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def full(budget: Budget) -> Tally:
    """Start an agent on a disk without room for the next few pages, or without inodes; make room, start it again."""
    tally = Tally()
    for _ in budget.rounds():
        killed, of_names = budget.random.random() < 0.5, budget.random.random() < 0.3
        with tempfile.TemporaryDirectory(prefix="acm-faults-") as directory:
            options = f"size=8m,nr_inodes={48 if of_names else 4096}"
            with _mounted(Path(directory) / "disk", "-t", "tmpfs", "-o", options, "none") as disk:
                state = disk / "state"
                make_state(state, killed=killed)
                if budget.random.random() < 0.5:
                    (state / "ballast").unlink()
                before = held(state)
                what = f"{'kill -9' if killed else 'clean stop'}, no {'inodes' if of_names else 'bytes'}"
                _fill(disk, of_names=of_names, left=budget.random.randrange(12))
                tally.violations += [f"{what}: {wrong}" for wrong in _start(state, (0, 4), tally)]
                shutil.rmtree(disk / "filler")
                tally.violations += [f"{what}, then room: {wrong}" for wrong in _start(state, (0,), tally)]
                if held(state) != before or set_aside(state):
                    tally.violations.append(f"{what}: {before} became {held(state)}, {set_aside(state)}")
        tally.counts["full disks"] += 1
    return tally


def _fill(disk: Path, *, of_names: bool, left: int) -> None:
    filler = disk / "filler"
    filler.mkdir()
    try:
        for number in range(10_000):
            (filler / str(number)).write_bytes(b"" if of_names else b"x" * _PAGE)
    except OSError:
        for path in sorted(filler.iterdir())[:left]:
            path.unlink()


def _start(state: Path, allowed: tuple[int, ...], tally: Tally) -> list[str]:
    argv = [*AGENT_START, str(state)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    tally.counts[f"starts that ended with {done.returncode}"] += 1
    if done.returncode in allowed and "Traceback" not in done.stderr:
        return []
    return [f"ended with {done.returncode}: {done.stdout}{done.stderr[-500:]}"]


# Both print the id of each command that is committed.
_WRITERS = {
    "store": """
import sys, uuid
from pathlib import Path
from consumer.store.opening import open_store
from tests.support.makers import NOW, command
store = open_store(Path(sys.argv[1]) / "state", now=lambda: NOW, agent="a1")
print("open", flush=True)
while True:
    print(store.store_command(command(uuid.uuid4().hex), NOW).command.id, flush=True)
""",
    "ledger": """
import sys
from broker.app.factories import open_ledger
from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
with open_ledger(f"sqlite:///{sys.argv[1]}/ledger.db") as ledger:
    print("open", flush=True)
    while True:
        request = CommandRequest("restart-agent", {}, Origin("faults", "faults"))
        print(ledger.add_command("a1", request).id, flush=True)
""",
}
_READERS = {
    "store": """
import sys
from pathlib import Path
from consumer.store.opening import open_store
from tests.support.makers import NOW
from tests.support.stored import all_commands
store = open_store(Path(sys.argv[1]) / "state", now=lambda: NOW, agent="a1")
print("damage", store.damage)
print(*(stored.command.id for stored in all_commands(store)))
store.close()
""",
    "ledger": """
import sys
from broker.app.factories import open_ledger
with open_ledger(f"sqlite:///{sys.argv[1]}/ledger.db") as ledger:
    print("damage None")
    print(*(row.command.id for row in ledger.commands(limit=None)))
""",
}


def power_loss(budget: Budget) -> Tally:
    """Kill a writer, and look at what the disk has without what was not synced: all that was committed.

    An ext4 file system that writes back by itself only every five minutes; its image is copied at the kill.
    """
    tally = Tally()
    for number in budget.rounds():
        what = ("store", "ledger")[number % 2]
        with tempfile.TemporaryDirectory(prefix="acm-faults-") as directory:
            image, copy = Path(directory) / "image", Path(directory) / "copy"
            with image.open("wb") as file:
                file.truncate(64 << 20)
            subprocess.run([_mkfs(), "-q", str(image)], check=True)
            with _mounted(Path(directory) / "disk", "-o", "loop,commit=300", str(image)) as disk:
                committed = _write_until_killed(what, disk, budget)
                shutil.copy(image, copy)
            with _mounted(Path(directory) / "after", "-o", "loop", str(copy)) as after:
                tally.violations += _lost(what, after, committed)
                tally.counts["unsynced files kept"] += _is_kept(after / _UNSYNCED)
        tally.counts[f"power losses of the {what}"] += 1
        tally.counts["commits"] += len(committed)
    return tally


def _mkfs() -> str:
    program = shutil.which("mkfs.ext4", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    assert program, "mkfs.ext4 is missing: apt-get install e2fsprogs"
    return program


def _write_until_killed(what: str, disk: Path, budget: Budget) -> list[str]:
    """Return the ids that were committed before the writer was killed, after a random number of them."""
    argv = [sys.executable, "-c", _WRITERS[what], str(disk)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        committed = [writer.stdout.readline().strip() for _ in range(budget.random.randrange(60))]
        (disk / _UNSYNCED).write_bytes(_CONTENT)
        writer.send_signal(signal.SIGKILL)
    return committed


def _is_kept(unsynced: Path) -> bool:
    """Return whether the file survived that no program had synced: if it always does, the loop proves nothing."""
    return unsynced.exists() and unsynced.read_bytes() == _CONTENT


def _lost(what: str, disk: Path, committed: list[str]) -> list[str]:
    argv = [sys.executable, "-c", _READERS[what], str(disk)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode or not done.stdout.startswith("damage None\n"):
        return [f"the {what} after a power loss: {done.stdout[:300]}{done.stderr[-500:]}"]
    missing = set(committed) - set(done.stdout.splitlines()[1].split())
    return [f"{len(missing)} of {len(committed)} commits of the {what} were lost"] if missing else []
