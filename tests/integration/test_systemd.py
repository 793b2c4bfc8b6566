"""SystemdService against the real systemctl, in a container that systemd runs."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from consumer.agent import SystemClock
from consumer.errors import ServiceError
from consumer.ports import Stop
from consumer.services import SystemdService
from tests.brokers import docker, docker_answers, image_lock
from tests.waiting import wait_for

IMAGE = "acm-systemd:test"
RIGHTS = ["--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]
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
        docker("run", "--detach", *RIGHTS, *PLACES, "--name", name, IMAGE)
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


def test_a_unit_that_ignores_term_is_said_to_be_killed(unit: Unit) -> None:
    stubborn = unit("stubborn.service")
    stubborn.start(soon())
    assert stubborn.restart(soon()).stop == Stop(killed=True, grace_s=1.0)
    stopped = stubborn.stop(soon())
    assert (stopped.running, stopped.stop) == (False, Stop(killed=True, grace_s=1.0))


def test_a_unit_that_dies_at_once_was_not_started_and_its_last_lines_are_said(unit: Unit) -> None:
    with pytest.raises(ServiceError, match=r"does not stay active: .*exit status 3\. Its last lines: no sensor found"):
        unit("short-lived.service").start(soon())


def test_a_unit_that_systemd_tries_again_and_again_was_not_started(unit: Unit) -> None:
    with pytest.raises(ServiceError, match=r"it is activating \(auto-restart\), result exit-code"):
        unit("tried-again.service").start(monotonic() + 4)


def test_a_stop_that_outlasts_the_deadline_is_not_waited_for(machine: str, unit: Unit) -> None:
    slow = unit("slow-to-stop.service")
    slow.start(soon())
    with pytest.raises(ServiceError, match=r"systemctl stop slow-to-stop\.service did not end in time; systemd may"):
        slow.stop(monotonic() + 2)
    assert not slow.state().running
    systemctl(machine, "kill", "--signal=KILL", "slow-to-stop.service")


@pytest.mark.parametrize("act", ["start", "stop", "restart"])
def test_a_unit_that_does_not_exist_is_one_clear_error(unit: Unit, act: str) -> None:
    nowhere = unit("nowhere.service")
    with pytest.raises(ServiceError, match=r"knows no unit nowhere\.service; check service\.unit"):
        getattr(nowhere, act)(soon())
    with pytest.raises(ServiceError, match=r"knows no unit nowhere\.service"):
        nowhere.state()
