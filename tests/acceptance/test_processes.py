"""The four programs as systems really run them: without a log, without descriptors, and with any signal."""

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from broker.app.factories import open_database, open_ledger, utc_now
from broker.contract.enrolment_token import EnrolmentToken
from broker.contract.messages import Origin
from broker.enrolment.tokens import TokenStore
from broker.ledger.enqueue import CommandRequest
from broker.signing.key_store import create_signing_keys
from consumer.enrolment.enroll import enroll_by_hand
from consumer.system.clock import SystemClock
from tests.acceptance.conftest import ROOT
from tests.support.brokers import free_port
from tests.support.secured import SecuredSite
from tests.support.signal_starter import BLOCKING, signals_of
from tests.support.strace import strace
from tests.support.waiting import wait_for

FULL_DISK = "</dev/null >/dev/full 2>&1"
CLOSED_PIPE = "</dev/null"  # what the programs get if nothing else is said
CLOSED_DESCRIPTORS = "<&- >&- 2>&-"


class Machine:
    """A secured broker, its servers and one agent, each started by a shell with a redirection of its streams."""

    def __init__(self, directory: Path) -> None:
        self.site = SecuredSite(directory)
        create_signing_keys(directory / "ca" / "signing", datetime.now(UTC))
        self.directory = directory
        self.config = ["--config", str(self.site.directory / "server.toml")]
        self.port = free_port()
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.starter: tuple[str, ...] = ()

    def start(self, name: str, redirection: str, *argv: str) -> subprocess.Popen[bytes]:
        reading, writing = os.pipe()
        os.close(reading)
        shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *self.starter]
        program = subprocess.Popen(
            [*shell, sys.executable, "-m", *argv],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "ACM_ENROLL_LISTEN": f"127.0.0.1:{self.port}"},
            stdout=writing,
            stderr=writing,
        )
        os.close(writing)
        self.programs[name] = program
        return program

    def start_all(self, redirection: str) -> None:
        self.start("broker", redirection, "broker", "broker", "run", "--dir", str(self.site.directory))
        self.start("server", redirection, "broker", "server", *self.config)
        self.start("enroll-server", redirection, "broker", "enroll-server", *self.config)
        wait_for(lambda: listens(self.port), "the enrolment server", 60)
        with open_database(self.site.config.ledger) as database:
            token = EnrolmentToken(secrets.token_urlsafe(32), self.site.authority.fingerprint)
            TokenStore(database, now=utc_now).add("web-01", token, timedelta(minutes=5))
        url, clock = f"https://127.0.0.1:{self.port}", SystemClock()
        enroll_by_hand(self.directory / "web-01", url, token, "web-01", clock, clock.monotonic() + 60)
        self.start("agent", redirection, "consumer", "run", "--state", str(self.directory / "web-01"))

    def complete_a_command(self) -> None:
        with open_ledger(self.site.config.ledger) as ledger:
            command = CommandRequest("get-agent-configuration", {}, Origin("test", "test"))
            row = ledger.add_command("web-01", command)
            wait_for(lambda: ledger.get(row.id).result, f"a result of {row.id}", 60)

    def signal(self, number: int) -> None:
        for program in self.programs.values():
            program.send_signal(number)

    def alive(self) -> list[str]:
        return [name for name, program in self.programs.items() if program.poll() is None]


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    try:
        yield machine
    finally:
        for program in machine.programs.values():
            program.kill()
            program.wait()


@pytest.mark.parametrize("redirection", [FULL_DISK, CLOSED_PIPE, CLOSED_DESCRIPTORS])
def test_programs_work_on_without_a_log(machine: Machine, redirection: str) -> None:
    machine.start_all(redirection)
    machine.complete_a_command()
    machine.site.revoke()  # the broker says that it reloads
    machine.signal(signal.SIGHUP)  # agent and server log that they connect again
    machine.complete_a_command()
    assert machine.alive() == list(machine.programs)
    machine.signal(signal.SIGTERM)
    assert [program.wait(20) for program in machine.programs.values()] == [0, 0, 0, 0]


def test_programs_obey_signals_that_their_starter_has_blocked_and_ignored(machine: Machine) -> None:
    machine.starter = BLOCKING
    machine.start_all(CLOSED_PIPE)
    machine.complete_a_command()
    (mosquitto,) = children(machine.programs["broker"].pid)
    _, ignored = signals_of(Path(f"/proc/{mosquitto}/status").read_text())  # it blocks some itself
    assert ignored == 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    machine.signal(signal.SIGHUP)
    machine.complete_a_command()
    assert machine.alive() == list(machine.programs)
    machine.signal(signal.SIGTERM)
    assert [program.wait(20) for program in machine.programs.values()] == [0, 0, 0, 0]


def test_process_1_ends_on_term_though_its_starter_has_blocked_and_ignored_it() -> None:
    code = """
import os, signal, sys
from broker.system.early_signals import await_signals_early
from broker.system.init import run_as_child_of_init
await_signals_early(("",))
run_as_child_of_init()
os.kill(os.getpid(), signal.SIGTERM)
"""
    argv = [*ALONE, *BLOCKING, sys.executable, "-c", code]
    assert subprocess.run(argv, cwd=ROOT, timeout=30, check=False).returncode == 0


def acm(directory: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACM_LEDGER": f"sqlite:///{directory}/ledger.db"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    argv = [sys.executable, "-m", "broker", *arguments]
    return subprocess.Popen(argv, cwd=directory, env=environment, text=True, **pipes)


def handles(pid: int, number: signal.Signals) -> bool:
    (mask,) = re.findall(r"SigCgt:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) & (1 << (number - 1)))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_wait_names_the_command_which_continues(tmp_path: Path, number: int, code: int) -> None:
    sending = acm(tmp_path, "send", "web-01", "restart-agent", "--allow-unknown", "--wait", "60")
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        (row,) = wait_for(lambda: ledger.commands(), "the command")
    sending.send_signal(number)
    _, said = sending.communicate(timeout=20)
    assert sending.returncode == code
    assert said.splitlines()[-1] == (
        f"acm: The command {row.command.id} was sent, and continues. Check it with `acm show {row.command.id}`, "
        f"or cancel it with `acm cancel {row.command.id}`."
    )


def test_command_is_interrupted_without_a_traceback_at_any_moment(tmp_path: Path) -> None:
    began = monotonic()
    acm(tmp_path, "types").communicate(timeout=30)
    whole = monotonic() - began
    codes = set()
    for part in (0.0, 0.3, 0.6, 0.9):
        running = acm(tmp_path, "types")
        wait_for(lambda running=running: handles(running.pid, signal.SIGTERM), "the first line of ours")
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(whole * part)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=20)
        assert "Traceback" not in said
        codes.add(running.returncode)
    assert codes <= {0, 130}
    assert 130 in codes


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["types"], 8, "acm: The output cannot be written: No space left on device."),
        (["send", "web-01", "restart-agent", "--allow-unknown"], 8, "was sent, and continues."),
        (["show", b"\xff\xfe"], 2, "acm: An argument is not text in UTF-8."),
        (["commands", "--limit", "9" * 21], 2, "Invalid value for '--limit'"),
    ],
)
def test_failure_is_one_sentence(tmp_path: Path, arguments: list[Any], code: int, said: str) -> None:
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db"), open("/dev/full", "w") as full:
        calling = acm(tmp_path, *arguments, stdout=full)
        _, printed = calling.communicate(timeout=30)
    assert calling.returncode == code
    assert said in printed
    assert "Traceback" not in printed


def test_closed_pipe_is_silent(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    calling = acm(tmp_path, "types", stdout=writing)
    os.close(writing)
    assert calling.communicate(timeout=30) == (None, "")
    assert calling.returncode == 8


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def test_mosquitto_ends_with_a_killed_supervisor_and_survives_other_signals(tmp_path: Path) -> None:
    port, nowhere = str(free_port()), subprocess.DEVNULL
    left = []
    for _ in range(2):  # the next start finds its port free at once
        supervisor = acm(tmp_path, "broker", "run", "--port", port, stdout=nowhere, stderr=nowhere)
        wait_for(lambda: listens(int(port)) and children(supervisor.pid), "the broker")  # noqa: B023
        left.append(Path(f"/proc/{children(supervisor.pid)[0]}"))
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
            supervisor.send_signal(number)
        supervisor.kill()
        supervisor.wait(20)
    wait_for(lambda: not any(process.exists() for process in left), "each Mosquitto to end")


ALONE = ["unshare", "--fork", "--kill-child", "--pid", "--mount-proc"]  # process 1 of a namespace (unshare(1))


@pytest.mark.parametrize("moment", ["handler", "child", "store"])
def test_process_1_ends_on_term_at_any_moment(tmp_path: Path, moment: str) -> None:
    argv = [*ALONE, sys.executable, "-m", "consumer", "run", "--agent", "web-01", "--accept-unsigned"]
    argv += ["--broker", f"mqtt://127.0.0.1:{free_port()}", "--state", str(tmp_path / "state")]
    unshare = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    (first,) = wait_for(lambda: children(unshare.pid), "process 1")
    wait_for(lambda: handles(first, signal.SIGTERM), "its handler")
    if moment != "handler":
        wait_for(lambda: children(first), "its child")
    if moment == "store":
        wait_for((tmp_path / "state" / "commands").exists, "the store")
    os.kill(first, signal.SIGTERM)
    _, said = unshare.communicate(timeout=30)
    assert unshare.returncode == 0, said


def test_process_1_reaps_orphans_and_leaves_the_others_to_the_program() -> None:
    code = """
import os, subprocess, sys, time
from broker.system.init import run_as_child_of_init
run_as_child_of_init()
script = "for n in 1 2 3; do setsid sleep 0.05 & done; exit 5"
own = subprocess.run(["sh", "-c", script]).returncode
while len([pid for pid in os.listdir("/proc") if pid.isdigit()]) > 2:
    time.sleep(0.01)
sys.exit(own + 2)
"""
    assert subprocess.run([*ALONE, sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False).returncode == 7


PROGRAMS = {
    "agent": ["consumer", "run", "--agent", "web-01", "--accept-unsigned", "--state", "state"],
    "server": ["broker", "server", "--ledger", "sqlite:///ledger.db"],
}


SERVICES = {
    **PROGRAMS,
    "enroll-server": ["broker", "enroll-server", "--config", "server.toml"],
    "broker": ["broker", "broker", "run", "--dir", "."],
}
NO_THREAD = ("-f", "-qq", "-o", os.devnull, "-e", "trace=clone3,vfork", "-e", "inject=clone3,vfork:error=EAGAIN")


@pytest.mark.parametrize(
    ("program", "lacking"),
    [
        *((program, "memory") for program in SERVICES),
        *((program, lacking) for program in PROGRAMS for lacking in ("threads", "files")),  # the others need few
    ],
)
def test_program_that_the_machine_has_no_room_for_ends_with_9(tmp_path: Path, program: str, lacking: str) -> None:
    SecuredSite(tmp_path)
    create_signing_keys(tmp_path / "ca" / "signing", datetime.now(UTC))
    prefix = {
        "threads": [strace(), *NO_THREAD],
        "memory": ["prlimit", f"--as={enough_to_begin_bytes() + (20 << 20)}"],
        "files": ["prlimit", "--nofile=9"],
    }[lacking]
    site = next(path.parent for path in tmp_path.rglob("server.toml"))
    argv = [*prefix, sys.executable, "-m", *SERVICES[program]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if program in PROGRAMS:
        environment["ACM_BROKER"] = "mqtt://127.0.0.1:1"
    done = subprocess.run(argv, cwd=site, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "The machine refuses what the program needs: " in done.stderr.splitlines()[-1]
    assert done.returncode == 9


def enough_to_begin_bytes() -> int:
    """Return the address space of a program of ours before it has loaded its modules."""
    code = "import broker.system.early_signals; print(open('/proc/self/status').read())"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"VmPeak:\s+(\d+) kB", shown)[0]) << 10


@pytest.mark.parametrize("program", PROGRAMS)
def test_hup_lets_a_program_read_its_log_level_again(tmp_path: Path, program: str) -> None:
    """The test is the service manager (sd_notify(3)), and so knows when the main loop turns."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(20)
    settings = tmp_path / "settings.toml"
    settings.write_text('log_level = "error"')
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(tmp_path / "notify")}
    arguments = ["--config", "settings.toml", "--broker", f"mqtt://127.0.0.1:{free_port()}"]
    argv = [sys.executable, "-m", *PROGRAMS[program], *arguments]
    with manager, (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(argv, cwd=tmp_path, env=environment, stderr=log)
        assert b"WATCHDOG=1" in manager.recv(4096)
        settings.write_text('log_level = "info"')
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGHUP):
            running.send_signal(number)
        assert b"WATCHDOG=1" in manager.recv(4096)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
        while b"STOPPING=1" not in manager.recv(4096):
            pass
    assert f'"event":"{program}_stopped"' in (tmp_path / "log").read_text()
    assert f'"event":"{program}_started"' not in (tmp_path / "log").read_text()
