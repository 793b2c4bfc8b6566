"""`acm up` and `acm down`: all of one machine's server side as real processes, begun, killed and ended."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.brokers import ROOT
from tests.support.machine import Machine
from tests.support.waiting import wait_for

pytestmark = pytest.mark.own_ledger

PROGRAMS = ("broker run", "broker server", "broker enroll-server")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "acm")
    yield machine
    machine.end()


def assert_works(machine: Machine) -> None:
    """Assert that a token is made and listed, and that the enrolment server refuses a request without one."""
    config = ("--config", str(machine.settings))
    token = machine.acm("token", "create", "web-01", *config).stdout
    state = str(machine.path / "agents" / "web-01")
    url = f"https://localhost:{machine.enroll_port}"
    enroll = ("enroll", "--server", url, "--token", "-", "--agent", "web-01", "--state", state)
    enrolled = machine.acm_agent(*enroll, text=token)
    assert enrolled.returncode == 0, enrolled.stderr


def assert_api_answers(machine: Machine) -> None:
    """Assert that the API speaks TLS with the authority's certificate, and takes an access token."""
    made = machine.acm("api", "token", "create", "alice", "--role", "viewer", "--config", str(machine.settings))
    trusted = ssl.create_default_context(cafile=machine.path / "broker" / "ca.crt")
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    url = f"https://localhost:{machine.api_port}/v1/me"
    assert httpx.get(url, headers=headers, verify=trusted, timeout=60, trust_env=False).json()["name"] == "alice"


def test_first_start_makes_everything_and_the_second_says_that_it_runs(machine: Machine) -> None:
    first = machine.up("--wait-ready")
    assert first.returncode == 0, first.stderr
    assert (
        f"acm token create web-01 | acm-agent enroll --server https://localhost:{machine.enroll_port}" in first.stdout
    )
    (runs,) = machine.processes("broker up")
    assert machine.path.stat().st_mode & 0o777 == 0o700
    exposed = [path for path in machine.path.rglob("*.key") if path.stat().st_mode & 0o077]
    assert [
        *exposed,
        *(path for path in machine.path.rglob("*.pem") if "crl" not in path.name and path.stat().st_mode & 0o077),
    ] == []
    names = {line.partition("|")[0].strip() for line in machine.log.read_text().splitlines()}
    assert names == {"broker", "server", "enroll-server"}
    assert_works(machine)
    assert_api_answers(machine)

    for options in (["--wait-ready"], ["--detach"], []):
        again = machine.up(*options)
        assert (again.returncode, again.stderr) == (0, "")
        assert again.stdout.startswith(f"acm up runs in {machine.path} already (process {runs})")
    assert machine.processes("broker up") == [runs]

    ended = machine.down()
    assert (ended.returncode, machine.processes()) == (0, [])
    assert machine.down().stdout == f"Nothing runs in {machine.path}.\n"


def test_foreground_is_ended_by_a_signal_with_all_its_programs(machine: Machine) -> None:
    running = machine.start()
    machine.wait_ready()
    machine.wait_started("mosquitto")
    running.send_signal(signal.SIGHUP)
    running.send_signal(signal.SIGINT)
    printed, said = running.communicate(timeout=60)
    assert (running.returncode, machine.processes()) == (0, [])
    assert "acm send web-01 restart-agent --wait" in printed
    assert all(f"{name:<13} | " in said for name in ("broker", "server", "enroll-server"))
    assert '"event":"server_stopped"' in said


@pytest.mark.parametrize("word", [*PROGRAMS, "mosquitto"])
def test_killed_program_is_named_and_ends_the_others(machine: Machine, word: str) -> None:
    running = machine.start()
    machine.wait_ready()
    os.kill(machine.wait_started(word), signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, machine.processes()) == (1, [])
    sentence = said[said.rindex("\nacm: ") :]
    name = {"mosquitto": "broker"}.get(word, word.removeprefix("broker ").replace("run", "broker"))
    how = "ended with exit code 1" if word == "mosquitto" else "was ended by signal 9 (Killed)"
    assert f"acm: The {name} {how}, so all were ended. Its last lines:\n  " in sentence


def test_kill_of_acm_up_leaves_nothing_and_the_next_start_works_at_once(machine: Machine) -> None:
    assert machine.up("--wait-ready").returncode == 0
    os.kill(machine.wait_started("broker up"), signal.SIGKILL)
    again = machine.up("--wait-ready")
    assert again.returncode == 0, again.stderr
    assert len(machine.processes("broker up")) == 1
    assert all(len(machine.processes(word)) == 1 for word in (*PROGRAMS, "mosquitto"))
    os.kill(machine.wait_started("broker up"), signal.SIGKILL)
    machine.wait_gone()


@pytest.mark.parametrize("word", ["broker up", *PROGRAMS])
@pytest.mark.parametrize(("options", "code"), [([], 0), (["--wait-ready"], 143)])
def test_term_while_it_starts_ends_it(machine: Machine, word: str, options: list[str], code: int) -> None:
    starting = machine.start(*options)
    machine.wait_started(word)
    if word == "broker up":
        wait_for((machine.path / "run" / "lock").exists, "its lock", 60)
    starting.send_signal(signal.SIGTERM)
    _, said = starting.communicate(timeout=60)
    assert (starting.returncode, machine.processes()) == (code, [])
    assert "Traceback" not in said


def test_port_in_use_is_one_sentence_and_another_one_can_be_chosen(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", machine.enroll_port)):
        refused = machine.up("--wait-ready")
    assert refused.stderr == (
        f"acm: Port {machine.enroll_port} on 127.0.0.1 is in use by another program: "
        "end that, or choose another one with --enroll-port.\n"
    )
    assert (refused.returncode, (machine.path / "ca").exists()) == (1, False)
    assert machine.up("--wait-ready").returncode == 0


def test_directory_that_was_made_step_by_step_is_used_as_it_is(machine: Machine) -> None:
    ca, out = str(machine.path / "ca"), str(machine.path / "broker")
    ledger = f"sqlite:///{machine.path}/ledger.db"
    assert machine.acm("ca", "init", "--dir", ca).returncode == 0
    config = ("broker", "config", "--ca", ca, "--ledger", ledger, "--out", out, "--port", str(machine.port))
    assert machine.acm(*config).returncode == 0
    with machine.settings.open("a") as settings:
        settings.write(f'enroll_listen = "127.0.0.1:{machine.enroll_port}"\n')
        settings.write(f'api_listen = "127.0.0.1:{machine.api_port}"\nlog_level = "debug"\n')
    files = ("ca/ca.crt", "ca/signing/keys.json", "broker/server.toml", "broker/mosquitto.conf", "broker/server.crt")
    before = [(machine.path / name).read_bytes() for name in files]
    assert machine.up("--wait-ready").returncode == 0
    assert [(machine.path / name).read_bytes() for name in files] == before
    assert_works(machine)


def test_program_that_does_not_answer_is_killed(machine: Machine) -> None:
    running = machine.start()
    machine.wait_ready()
    os.kill(machine.wait_started("broker server"), signal.SIGSTOP)
    running.terminate()
    running.communicate(timeout=60)
    assert (running.returncode, machine.processes()) == (0, [])


def test_start_in_the_background_that_fails_reports_why(machine: Machine) -> None:
    assert machine.up("--wait-ready").returncode == 0
    machine.down()
    with (machine.path / "broker" / "mosquitto.conf").open("a") as configuration:
        configuration.write("no_such_setting 1\n")
    failed = machine.up("--wait-ready")
    assert (failed.returncode, machine.processes()) == (1, [])
    assert failed.stderr.startswith("acm: The broker ended with exit code 1, so all were ended. Its last lines:\n")
    assert "no_such_setting" in failed.stderr


def test_missing_mosquitto_is_one_sentence(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import broker.mosquitto.process as p; p._SEARCH_PATH = (); from broker.cli.main import main; main()"
    monkeypatch.setenv("PATH", "")
    argv = machine.argv("--wait-ready")
    done = subprocess.run([argv[0], "-c", code, *argv[3:]], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        "acm: Mosquitto is not installed: on Debian, run `apt-get install mosquitto`.\n",
    )


# A user without rights, but to read the files of Python and of the project wherever they are.
AS_A_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
AS_A_USER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.fixture
def home() -> Iterator[Path]:
    assert os.geteuid() == 0, "run this test as root: it starts programs as another user"
    with tempfile.TemporaryDirectory(prefix="acm-test-") as name:  # pytest's own directories are closed to others
        os.chown(name, 65534, 65534)
        yield Path(name)


def test_user_without_root_needs_no_option_and_other_commands_find_the_configuration(home: Path) -> None:
    machine = Machine(home / "state" / "acm")

    def acm(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(home / "state"), **variables}
        argv = [*AS_A_USER, sys.executable, "-m", "broker", *words]
        return subprocess.run(argv, cwd=home, env=environment, capture_output=True, text=True, timeout=100, check=False)

    try:
        begun = acm("up", *machine.ports, "--wait-ready")
        assert (begun.returncode, begun.stderr) == (0, "")
        assert "export ACM_CONFIG" not in begun.stdout
        assert acm("token", "create", "web-01").returncode == 0
        assert "web-01" in acm("token", "list").stdout
        assert acm("token", "list", ACM_CONFIG="").returncode == 3  # no ledger in the working directory
        assert acm("token", "list", "--ledger", "sqlite:///other.db").returncode == 3
        (home / "acm-ledger.db").touch()
        assert acm("token", "list").returncode == 3
        assert acm("down").stdout == f"What ran in {machine.path} has ended.\n"
    finally:
        machine.end()
