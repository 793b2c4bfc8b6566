"""SystemdService against the real systemctl, and the units of packaging/, in a container that systemd runs."""

import os
import re
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from consumer.errors import ServiceError
from consumer.ports import Stop
from consumer.services import SystemdService
from consumer.system.clock import SystemClock
from tests.support.brokers import docker, docker_answers, image_lock
from tests.support.errors import raises_code
from tests.support.waiting import wait_for

IMAGE = "acm-machine:test"
RIGHTS = ["--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]
ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging" / "systemd"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
OURS = [
    f"--volume={sys.base_prefix}:/opt/python:ro",
    f"--volume={sysconfig.get_path('purelib')}:/opt/acm/lib:ro",
    f"--volume={ROOT}:/opt/acm/src:ro",
    f"--volume={PACKAGING}:/opt/acm/units:ro",
]
PROGRAM = f"""#!/bin/sh
export PYTHONPATH=/opt/acm/src:/opt/acm/lib
exec /opt/python/bin/{PYTHON} -m consumer "$@"
"""
PLACES = ["--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw", "--tmpfs=/run", "--tmpfs=/run/lock"]

pytestmark = pytest.mark.timeout(600)
Unit = Callable[[str], SystemdService]


@pytest.fixture(scope="module")
def machine() -> Iterator[str]:
    """A container whose process 1 is systemd."""
    if not docker_answers():
        assert os.environ.get("ACM_REQUIRE_DOCKER") != "1", "no Docker engine answers: run scripts/docker.sh"
        pytest.skip("a machine that systemd runs needs a Docker engine; scripts/docker.sh installs one")
    with image_lock():
        docker("build", "-q", "-t", IMAGE, str(Path(__file__).parent / "systemd"), timeout_s=600)
    name = f"acm-test-{uuid.uuid4().hex[:12]}"
    try:
        docker("run", "--detach", *RIGHTS, *PLACES, *OURS, "--name", name, IMAGE)
        wait_for(lambda: "running" in systemctl(name, "is-system-running"), "systemd to be up", timeout_s=60)
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, timeout=60)


def systemctl(machine: str, *arguments: str) -> str:
    argv = ["docker", "exec", machine, "systemctl", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def unit(machine: str) -> Unit:
    return lambda name: SystemdService(name, SystemClock(), settle_s=0.4, via=["docker", "exec", machine])


def soon() -> float:
    return monotonic() + 30


def test_start_and_stop_last_over_a_reboot(machine: str, unit: Unit) -> None:
    steady = unit("steady.service")
    assert not steady.state().running
    started = steady.start(soon())
    assert started.running
    assert started.detail == {"unit": "steady.service", "pid": int(systemctl(machine, *main_pid("steady.service")))}
    assert systemctl(machine, "is-enabled", "steady.service") == "enabled"
    assert steady.start(soon()).incarnation == started.incarnation
    stopped = steady.stop(soon())
    assert (stopped.running, stopped.stop) == (False, Stop(killed=False, grace_s=90.0))
    assert systemctl(machine, "is-enabled", "steady.service") == "disabled"
    assert steady.stop(soon()).stop is None


def main_pid(name: str) -> list[str]:
    return ["show", "--property=MainPID", "--value", name]


def test_a_restart_gives_a_new_invocation(unit: Unit) -> None:
    obeying = unit("obeying.service")
    first = obeying.start(soon())
    second = obeying.restart(soon())
    assert second.running
    assert None is not first.incarnation != second.incarnation
    assert obeying.state().incarnation == second.incarnation
    assert second.stop == Stop(killed=False, grace_s=90.0)


def test_unit_that_ignores_term_is_reported_as_killed(unit: Unit) -> None:
    stubborn = unit("stubborn.service")
    stubborn.start(soon())
    assert stubborn.restart(soon()).stop == Stop(killed=True, grace_s=1.0)
    stopped = stubborn.stop(soon())
    assert (stopped.running, stopped.stop) == (False, Stop(killed=True, grace_s=1.0))


def test_unit_that_dies_at_once_is_an_error_with_its_last_lines(unit: Unit) -> None:
    with raises_code(ServiceError, "not_active") as caught:
        unit("short-lived.service").start(soon())
    assert "exit status 3. Its last lines: no sensor found" in str(caught.value)


def test_unit_in_a_restart_loop_was_not_started(unit: Unit) -> None:
    with raises_code(ServiceError, "not_active") as caught:
        unit("tried-again.service").start(monotonic() + 4)
    assert "activating (auto-restart), result exit-code" in str(caught.value)


def test_stop_of_a_unit_ends_at_the_deadline(machine: str, unit: Unit) -> None:
    slow = unit("slow-to-stop.service")
    slow.start(soon())
    with raises_code(ServiceError, "timed_out") as caught:
        slow.stop(monotonic() + 2)
    assert "systemctl stop slow-to-stop.service" in str(caught.value)
    assert not slow.state().running
    systemctl(machine, "kill", "--signal=KILL", "slow-to-stop.service")


@pytest.mark.parametrize("act", ["start", "stop", "restart"])
def test_missing_unit_is_an_error(unit: Unit, act: str) -> None:
    nowhere = unit("nowhere.service")
    with raises_code(ServiceError, "unknown_unit") as caught:
        getattr(nowhere, act)(soon())
    assert "nowhere.service; check service.unit" in str(caught.value)
    with raises_code(ServiceError, "unknown_unit"):
        nowhere.state()


def sh(machine: str, script: str) -> str:
    done = subprocess.run(
        ["docker", "exec", "-i", machine, "sh", "-ec", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


DROP_INS = "/run/systemd/system/acm-agent.service.d"


def drop_in(machine: str, name: str, text: str) -> None:
    sh(
        machine,
        f"mkdir -p {DROP_INS}; cat >{DROP_INS}/{name}.conf <<'END'\n[Service]\n{text}\nEND\nsystemctl daemon-reload",
    )


@pytest.fixture(scope="module")
def installed(machine: str) -> str:
    """The machine with the units and a program where they expect it."""
    sh(machine, "cp /opt/acm/units/*.service /etc/systemd/system/; systemd-sysusers /opt/acm/units/acm.sysusers.conf")
    sh(machine, f"mkdir -p /opt/acm/bin /etc/acm; cat >/opt/acm/bin/acm-agent <<'END'\n{PROGRAM}END\n")
    sh(machine, "cd /opt/acm/bin; chmod 0755 acm-agent; cp acm-agent acm; ln -s bin/acm-agent ../acm-agent")
    sh(machine, "echo /opt/python/lib >/etc/ld.so.conf.d/acm.conf; ldconfig")
    sh(machine, "mount --make-rshared /")  # as systemd does on a machine, to hand credentials on
    drop_in(machine, "container", "ProtectProc=default")  # else PrivateUsers= needs CAP_SYS_PTRACE, not to be had here
    return machine


def configure(machine: str, text: str) -> None:
    sh(machine, f"umask 077; cat >/etc/acm/agent.toml <<'END'\n{text}\nEND\n")


AGENT = 'agent = "web-01"\nbroker = "mqtt://me:hush@127.0.0.1:1"\naccept_unsigned = true'


def shown(machine: str, unit: str, *names: str) -> dict[str, str]:
    lines = systemctl(machine, "show", unit, *(f"--property={name}" for name in names)).splitlines()
    return dict(line.split("=", 1) for line in lines)


DOCUMENT = ROOT / "docs" / "operations.md"
WITHOUT_PROTECT_PROC = 0.2


def exposure(machine: str, unit: str) -> float:
    judged = sh(machine, f"systemd-analyze security --offline=true --no-pager /etc/systemd/system/{unit}.service")
    (score,) = re.findall(r"Overall exposure level for .*: ([0-9.]+) ", judged)
    return float(score)


@pytest.mark.parametrize("unit", ["acm-agent", "acm-server", "acm-enroll-server"])
def test_unit_is_well_formed_and_as_strict_as_documented(installed: str, unit: str) -> None:
    assert sh(installed, f"systemd-analyze verify /etc/systemd/system/{unit}.service 2>&1") == ""
    (said,) = re.findall(rf"`{unit}\.service` \| ([0-9.]+) \|", DOCUMENT.read_text())
    assert exposure(installed, unit) <= float(said) + WITHOUT_PROTECT_PROC


def test_the_agent_works_under_its_unit(installed: str) -> None:
    configure(installed, AGENT)
    systemctl(installed, "start", "acm-agent.service")
    queue = "runuser -u acm-agent -- /opt/acm/bin/acm-agent queue --state /var/lib/acm-agent --json"
    wait_for(lambda: sh(installed, f"{queue} 2>&1 || true").strip() == "[]", "the agent to have made its store", 60)
    facts = shown(installed, "acm-agent.service", "ActiveState", "MainPID", "NRestarts")
    assert (facts["ActiveState"], facts["NRestarts"]) == ("active", "0")
    assert sh(installed, "stat -c '%U %a' /var/lib/acm-agent").strip() == "acm-agent 700"
    status = sh(installed, f"cat /proc/{facts['MainPID']}/status")
    assert re.search(r"CapBnd:\s0+\n", status)
    assert re.search(r"NoNewPrivs:\s1\n", status)
    systemctl(installed, "stop", "acm-agent.service")
    assert shown(installed, "acm-agent.service", "ActiveState", "Result") == {
        "ActiveState": "inactive",
        "Result": "success",
    }


def test_a_program_of_a_handler_is_confined_under_the_unit(installed: str) -> None:
    program = PROGRAM.replace("-m consumer", "/run/confined.py")
    sh(installed, f"cat >/run/confined.py <<'END'\n{CONFINED}END\n")
    sh(installed, f"cat >/opt/acm/bin/confined <<'END'\n{program}END\nchmod 0755 /opt/acm/bin/confined")
    start = "Type=exec\nExecStart=\nExecStart=/opt/acm/bin/confined"
    drop_in(installed, "confined", f"{start}\nStandardOutput=file:/run/said")
    try:
        systemctl(installed, "start", "acm-agent.service")
        said = wait_for(lambda: sh(installed, "cat /run/said").split(), "the program to say its limit")
        assert said == ["Max", "open", "files", "1024", "1024", "files"]
    finally:
        sh(installed, f"rm {DROP_INS}/confined.conf; systemctl daemon-reload")


CONFINED = """\
from consumer.system.clock import SystemClock
from consumer.system.programs import Bounds, run_program
print(run_program(["/bin/grep", "open files", "/proc/self/limits"], Bounds(SystemClock(), 1e9)).output.stdout)
"""


def test_service_starts_once_its_configuration_is_repaired(installed: str) -> None:
    configure(installed, AGENT + "\nnonsense = 1")
    systemctl(installed, "start", "--no-block", "acm-agent.service")
    failed = {"ActiveState": "activating", "ExecMainStatus": "3"}
    wait_for(lambda: shown(installed, "acm-agent.service", "ActiveState", "ExecMainStatus") == failed, "its failure")
    configure(installed, AGENT)
    active = {"ActiveState": "active"}
    wait_for(lambda: shown(installed, "acm-agent.service", "ActiveState") == active, "its start", 60)
    systemctl(installed, "stop", "acm-agent.service")


def test_service_whose_loop_hangs_is_restarted(installed: str) -> None:
    configure(installed, AGENT)
    drop_in(installed, "watchdog", "WatchdogSec=4")
    try:
        systemctl(installed, "start", "acm-agent.service")
        before = shown(installed, "acm-agent.service", "MainPID")["MainPID"]
        sh(installed, f"kill -STOP {before}")
        restarted = {"ActiveState": "active", "NRestarts": "1"}
        wait_for(
            lambda: shown(installed, "acm-agent.service", "ActiveState", "NRestarts") == restarted, "its restart", 90
        )
        assert shown(installed, "acm-agent.service", "MainPID")["MainPID"] != before
    finally:
        systemctl(installed, "stop", "acm-agent.service")
        sh(installed, f"rm {DROP_INS}/watchdog.conf; systemctl daemon-reload")


@pytest.mark.parametrize("name", ["upgrade", "firewall", "root"])
def test_the_agent_works_with_each_drop_in(installed: str, name: str) -> None:
    configure(installed, AGENT)
    sh(installed, f"cp /opt/acm/units/drop-ins/{name}.conf {DROP_INS}/a.conf; systemctl daemon-reload")
    try:
        systemctl(installed, "start", "acm-agent.service")
        incarnation = "$(systemctl show --property=InvocationID --value acm-agent.service)"
        started = f"journalctl --no-pager --output=cat _SYSTEMD_INVOCATION_ID={incarnation}"
        wait_for(lambda: '"event":"agent_started"' in sh(installed, started), "the agent to have started", 60)
        assert shown(installed, "acm-agent.service", "NRestarts") == {"NRestarts": "0"}
        (score,) = re.findall(rf"^\| `{name}` \|.*\| ([0-9.]+) \|$", DOCUMENT.read_text(), re.MULTILINE)
        assert exposure(installed, "acm-agent") <= float(score) + WITHOUT_PROTECT_PROC
    finally:
        systemctl(installed, "stop", "acm-agent.service")
        sh(installed, f"rm {DROP_INS}/a.conf; systemctl daemon-reload")
