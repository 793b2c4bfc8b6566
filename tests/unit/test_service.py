"""The services that an agent manages, as real processes."""

import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from consumer.agent import SystemClock
from consumer.errors import ServiceError
from consumer.services import CallbackService, ChildService, NoService, SystemdService, Wish
from tests.waiting import wait_for

STUBBORN = (
    "import signal, sys, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "pathlib.Path(sys.argv[1]).write_text('ready'); time.sleep(600)"
)
SLEEP = ["/bin/sleep", "600"]


Make = Callable[..., ChildService]


@pytest.fixture
def child_service(tmp_path: Path) -> Iterator[Make]:
    made: list[ChildService] = []

    def make(argv: list[str], grace_s: float = 5.0) -> ChildService:
        made.append(ChildService(argv, tmp_path, SystemClock(), lambda: itertools.repeat(0.0), grace_s=grace_s))
        return made[-1]

    yield make
    for service in made:
        service.shut_down(deadline=0.0)


def test_a_restart_gives_a_new_incarnation(child_service: Make) -> None:
    service = child_service(SLEEP)
    first = service.start(monotonic() + 10)
    second = service.restart(monotonic() + 10)
    assert first.running
    assert second.running
    assert first.incarnation != second.incarnation


def test_a_dead_child_is_started_again_but_not_one_that_was_stopped(child_service: Make) -> None:
    service = child_service(["/bin/sh", "-c", "exit 3"])
    service.step()
    before = service._current
    wait_for(lambda: not service.state().running, "the child to die")
    service.step()
    assert service._current is not before
    service.stop(monotonic() + 10)
    kept = service._current
    service.step()
    assert service._current is kept


def test_the_wish_to_be_stopped_outlives_the_agent(child_service: Make) -> None:
    service = child_service(SLEEP)
    service.start(monotonic() + 10)
    assert not service.stop(monotonic() + 10).running
    next_agents = child_service(SLEEP)
    next_agents.step()
    assert not next_agents.state().running
    assert next_agents.start(monotonic() + 10).running


def test_looking_and_supervising_never_wait_for_a_stop_under_way(child_service: Make, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    service = child_service([sys.executable, "-c", STUBBORN, str(ready)], grace_s=600.0)
    service.start(monotonic() + 10)
    wait_for(ready.exists, "the child to ignore TERM")
    stopping = threading.Thread(target=service.stop, args=(monotonic() + 600,), daemon=True)
    stopping.start()
    wait_for((tmp_path / "service-stopped").exists, "the stop to begin")
    service.step()
    state = service.state()
    assert stopping.is_alive()
    assert state.running
    assert state.detail is not None
    subprocess.run(["kill", "-9", str(state.detail["pid"])], check=True)
    stopping.join(20)
    assert not stopping.is_alive()


def test_a_child_that_ignores_term_is_killed_at_the_deadline(child_service: Make, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    service = child_service([sys.executable, "-c", STUBBORN, str(ready)], grace_s=600.0)
    service.start(monotonic() + 10)
    wait_for(ready.exists, "the child to ignore TERM")
    assert not service.stop(monotonic() + 0.2).running
    assert service._current is not None
    assert service._current.child.returncode == -signal.SIGKILL


def test_a_child_that_outlived_its_agent_is_ended_before_a_new_one_starts(child_service: Make, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    argv = [sys.executable, "-c", STUBBORN, str(ready)]
    killed_agents = child_service(argv)
    orphan = killed_agents.start(monotonic() + 10)
    wait_for(ready.exists, "the child to ignore TERM")
    service = child_service(SLEEP, grace_s=0.2)
    service.step()
    assert not service.state().running
    assert killed_agents.state().running
    wait_for(lambda: service.step() or service.state().running, "the new child")  # type: ignore[func-returns-value]
    assert not killed_agents.state().running
    assert orphan.detail != service.state().detail


def test_a_program_that_is_not_there_is_one_clear_error(child_service: Make) -> None:
    service = child_service(["/nowhere/sensor"])
    with pytest.raises(ServiceError, match="could not be started: No such file or directory: /nowhere/sensor"):
        service.start(monotonic() + 10)
    service.step()
    assert not service.state().running


def test_no_service_says_what_to_configure() -> None:
    with pytest.raises(ServiceError, match=r"configure \[service\]"):
        NoService().stop(0.0)
    assert NoService().state().kind == "none"


def test_callbacks_start_and_stop_the_embedding_program(tmp_path: Path) -> None:
    runs: list[str] = []
    wish = Wish(tmp_path / "stopped")
    service = CallbackService(lambda: runs.append(str(len(runs))), runs.clear, lambda: runs[-1] if runs else None, wish)
    assert service.start(0.0).running
    assert service.start(0.0).incarnation == "0"
    assert not service.stop(0.0).running
    assert wish.stopped
    assert service.restart(0.0).running
    assert not wish.stopped


SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
case "$1" in
show) printf 'ActiveState=active\\nInvocationID=abc\\nMainPID=7\\n';;
disable) echo 'Unit sensor.service not loaded.' >&2; exit 5;;
restart) exec sleep 600;;
esac
"""


@pytest.fixture
def systemctl(tmp_path: Path) -> Path:
    """Stands in for systemctl, which needs a machine that systemd runs."""
    path = tmp_path / "systemctl"
    path.write_text(SYSTEMCTL.format(log=tmp_path / "log"))
    path.chmod(0o755)
    return path


def test_a_systemd_unit_is_driven_by_systemctl(systemctl: Path) -> None:
    service = SystemdService("sensor.service", SystemClock(), str(systemctl))
    state = service.start(monotonic() + 10)
    assert (state.running, state.incarnation) == (True, "abc")
    with pytest.raises(ServiceError, match=r"disable sensor\.service failed: Unit sensor\.service not loaded"):
        service.stop(monotonic() + 10)
    with pytest.raises(ServiceError, match="did not end in time"):
        service.restart(monotonic() + 0.2)
    asked = (systemctl.parent / "log").read_text().splitlines()
    assert "enable --now sensor.service" in asked
