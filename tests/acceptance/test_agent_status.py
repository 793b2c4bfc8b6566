"""acm-agent status of a real agent: connected, without a broker, ended in order, killed, and failed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.conftest import ROOT, Site
from tests.support.waiting import wait_for


def status(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "consumer", "status", "--state", str(state), *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


def document(state: Path) -> Any:
    done = status(state, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def line(state: Path, name: str) -> str:
    """Return the first line of a member for people, without its name."""
    lines = status(state).stdout.splitlines()
    return next(it.split(maxsplit=1)[1] for it in lines if it.startswith(f"  {name} "))


def title(state: Path) -> str:
    return status(state).stdout.splitlines()[0]


def connected(state: Path) -> bool:
    """Return what the agent's own record says, since a call of acm-agent takes half a second."""
    record = state / "status.json"
    return record.exists() and json.loads(record.read_text())["connected"]


def test_status_follows_the_connection(site: Site, broker: Any) -> None:
    state = site.state("web-01")
    agent = site.start_agent("web-01")
    wait_for(lambda: connected(state), "the connection")
    assert title(state) == "web-01 runs, and is connected."
    shown = document(state)
    assert (shown["pid"], shown["connection"]["broker"]) == (agent.process.pid, broker.url)
    broker.stop()
    wait_for(lambda: not connected(state), "the loss")
    shown = document(state)
    assert (shown["running"], shown["connection"]["connected"]) == (True, False)
    assert title(state) == "web-01 runs, but is not connected."
    assert line(state, "connection").startswith("none since ")
    broker.start()
    wait_for(lambda: connected(state), "the next connection")
    (outage, *_) = [it for it in document(state)["incidents"] if it["until"]]
    assert outage["text"].startswith(("The connection was lost: ", "No connection to "))


def test_status_has_the_running_command_and_the_queue(site: Site, tmp_path: Path) -> None:
    state = site.state("web-01")
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    note = {"path": str(tmp_path / "notes"), "hold_s": 60.0}
    first, second = (site.enqueue("web-01", "note-once", note) for _ in range(2))
    wait_for(lambda: site.queue("web-01") == ["processing", "pending"], "the first to run")
    shown = document(state)
    assert shown["queue"] == {"accepted": 1, "running": 1, "completed": 0}
    assert [it["id"] for it in shown["running_commands"]] == [first]
    assert line(state, "running").startswith(f"{first} note-once, since ")
    wait_for(lambda: json.loads((state / "status.json").read_text())["running_progress"], "the progress")
    assert line(state, "running").endswith(" UTC: hold 25 %")
    assert document(state)["running_commands"][0]["progress"] == {"phase": "hold", "percent": 25}
    assert second not in status(state).stdout


def test_status_tells_a_stop_from_a_kill(site: Site) -> None:
    state = site.state("web-01")
    agent = site.start_agent("web-01")
    wait_for(lambda: connected(state), "the connection")
    assert agent.stop() == 0
    assert title(state) == "web-01 does not run."
    assert line(state, "process").endswith(": it was stopped")
    killed = site.start_agent("web-01")
    wait_for(lambda: connected(state), "the connection")
    killed.kill()
    assert document(state)["running"] is False
    assert line(state, "process").startswith(f"{killed.process.pid} was killed, or the machine went down; ")


def test_status_has_the_error_that_ended_the_agent(site: Site) -> None:
    state = site.state("web-01")
    agent = site.start_agent("web-01")
    wait_for(lambda: connected(state), "the connection")
    shutil.rmtree(state / "commands")
    site.enqueue("web-01", "get-agent-configuration", {})
    assert agent.process.wait(30) == 4
    shown = document(state)
    assert "The command store" in shown["process"]["end"]
    assert shown["store"] is None
    assert line(state, "process").endswith(shown["process"]["end"])


def test_status_of_an_enrolled_agent_has_its_certificate(signing_site: Site) -> None:
    enrolment_id = signing_site.enroll("web-01")
    state = signing_site.state("web-01")
    shown = document(state)
    assert (shown["agent"], shown["enrolment"]["enrolment_id"]) == ("web-01", enrolment_id)
    assert (shown["running"], shown["process"], shown["store"]) == (False, None, None)
    assert " left, renewed from " in line(state, "certificate")
    assert line(state, "process") == "none has written a record in status.json"


def test_each_part_that_cannot_be_read_is_named_and_hides_no_other(signing_site: Site) -> None:
    enrolment_id = signing_site.enroll("web-01")
    state = signing_site.state("web-01")
    (state / "status.json").write_text("{")
    (state / "commands").mkdir()
    (state / "commands" / "cache.db").write_bytes(b"no database" * 100)
    shown = document(state)
    assert shown["enrolment"]["enrolment_id"] == enrolment_id
    assert [it.partition(" cannot be read")[0] for it in shown["unreadable"]] == [
        f"{state}/status.json",
        f"The command store in {state}",
    ]
    printed = status(state).stdout
    assert f"{state}/status.json cannot be read" in printed
    (state / "enrolment" / "current").readlink()
    shutil.rmtree(state / "enrolment" / "enrolments")
    assert len(document(state)["unreadable"]) == 3


def test_process_that_has_just_started_is_not_shown_with_the_record_of_the_one_before(site: Site) -> None:
    state = site.state("web-01")
    agent = site.start_agent("web-01")
    wait_for(lambda: connected(state), "the connection")
    agent.kill()
    with holding_the_lock(state) as holder:
        shown = document(state)
        assert (shown["running"], shown["pid"], shown["connection"]) == (True, holder.pid, None)
        assert title(state) == "web-01 runs; it has not written yet whether it is connected."


def holding_the_lock(state: Path) -> "subprocess.Popen[bytes]":
    """Start a process that holds the lock as an agent does, but writes no record, and wait for it."""
    code = "import sys; from pathlib import Path; from consumer.store.state_directory import take_lock\n"
    code += "take_lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code, str(state / "lock")]
    holder = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def test_missing_state_directory_is_one_sentence(tmp_path: Path) -> None:
    done = status(tmp_path / "none")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"acm-agent: The state directory {tmp_path}/none does not exist.\n"


def test_looking_changes_nothing(site: Site) -> None:
    state = site.state("web-01")
    agent = site.start_agent("web-01")
    wait_for(lambda: connected(state), "the connection")
    agent.stop()
    before = contents(state)
    status(state)
    assert contents(state) == before


def contents(directory: Path) -> dict[str, tuple[int, int]]:
    """Return the inode and the time of the last change of each file, without those that SQLite makes for a reader."""
    return {
        str(path.relative_to(directory)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.name not in ("commands", "cache.db-wal", "cache.db-shm")
    }
