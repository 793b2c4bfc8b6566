"""The services that an agent manages, as real processes."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from consumer.errors import ServiceError, ServiceUnreachable
from consumer.ports import Stop
from consumer.services import CallbackService, ChildService, NoService, SystemdService, kept_program
from consumer.settings import is_unit_name
from consumer.system.clock import SystemClock
from consumer.system.pidfile import _start_time
from tests.support.errors import raises_code
from tests.support.signal_starter import BLOCKING, signals_of
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
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
        waits = partial(itertools.repeat, 0.0)
        made.append(ChildService(argv, tmp_path, SystemClock(), waits, grace_s=grace_s, settle_s=0.2))
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


def test_service_does_not_get_the_agents_variables(child_service: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACM_BROKER", "mqtts://me:hush@broker")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush")
    monkeypatch.setenv("GIVEN", "to the service")
    state = child_service(SLEEP).start(monotonic() + 10)
    environment = Path(f"/proc/{(state.detail or {})['pid']}/environ").read_text().split("\0")
    assert "GIVEN=to the service" in environment
    assert not [entry for entry in environment if entry.startswith(("ACM_", "OTEL_"))]


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


def test_desired_state_outlives_the_agent(child_service: Make) -> None:
    service = child_service(SLEEP)
    service.start(monotonic() + 10)
    assert not service.stop(monotonic() + 10).running
    next_agents = child_service(SLEEP)
    next_agents.step()
    assert not next_agents.state().running
    assert next_agents.start(monotonic() + 10).running


def test_state_and_step_never_wait_for_a_stop_in_progress(child_service: Make, tmp_path: Path) -> None:
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


def test_child_that_ignores_term_is_killed_at_the_deadline(child_service: Make, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    service = child_service([sys.executable, "-c", STUBBORN, str(ready)], grace_s=600.0)
    service.start(monotonic() + 10)
    wait_for(ready.exists, "the child to ignore TERM")
    stopped = service.stop(monotonic() + 0.2)
    assert not stopped.running
    assert stopped.stop is not None
    assert stopped.stop.killed
    assert 0 <= stopped.stop.grace_s <= 0.2
    assert stopped.stop.in_words().startswith(f"did not end on TERM within {stopped.stop.grace_s:.3g} s")
    assert service._current is not None
    assert service._current.program.exit_status == -signal.SIGKILL


def test_restart_reports_that_the_old_child_was_killed(child_service: Make, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    service = child_service([sys.executable, "-c", STUBBORN, str(ready)], grace_s=0.3)
    first = service.start(monotonic() + 10)
    wait_for(ready.exists, "the child to ignore TERM")
    second = service.restart(monotonic() + 10)
    assert second.stop == Stop(killed=True, grace_s=0.3)
    assert second.running
    assert second.incarnation != first.incarnation


def test_stop_reports_whether_the_child_was_killed(child_service: Make) -> None:
    service = child_service(SLEEP)
    service.start(monotonic() + 10)
    assert service.stop(monotonic() + 10).stop == Stop(killed=False, grace_s=5.0)
    assert service.stop(monotonic() + 10).stop is None


def test_child_that_ends_at_once_is_an_error(child_service: Make) -> None:
    service = child_service(["/bin/sh", "-c", "exit 3"])
    with raises_code(ServiceError, "ended_at_once") as caught:
        service.start(monotonic() + 10)
    assert "exit status 3" in str(caught.value)
    broken = service._current
    service.step()
    assert service._current is not broken


def test_leftovers_in_the_group_of_a_stopped_child_are_killed(child_service: Make, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    worker = f'{sys.executable} -c "{STUBBORN}" {ready} & echo $! > {tmp_path}/worker; wait'
    service = child_service(["/bin/sh", "-c", worker])
    service.start(monotonic() + 10)
    wait_for(ready.exists, "the worker to ignore TERM")
    worker_pid = (tmp_path / "worker").read_text().strip()
    assert service.stop(monotonic() + 10).stop == Stop(killed=False, grace_s=5.0)
    wait_for(lambda: not _start_time(int(worker_pid)), "the worker to be gone")


def test_orphaned_child_is_ended_before_a_new_one_starts(child_service: Make, tmp_path: Path) -> None:
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


def test_child_has_no_signal_blocked_or_ignored_whatever_the_agent_has(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from consumer.services.kept_program import KeptProgram
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
shell = "while read -r line; do echo $line; done < /proc/self/status; exit 5"  # in its own process, without a fork
kept = KeptProgram(["/bin/sh", "-c", shell], os.environ, Path("trace"))
print("exit status", kept.wait(20), kept.wait_gone(20))
"""
    argv = [*BLOCKING, sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert signals_of(done.stdout) == (0, 0)
    assert "exit status 5 True" in done.stdout


def test_missing_service_program_is_an_error(child_service: Make) -> None:
    service = child_service(["/nowhere/sensor"])
    with raises_code(ServiceError, "not_started") as caught:
        service.start(monotonic() + 10)
    assert "No such file or directory: /nowhere/sensor" in str(caught.value)
    service.step()
    assert not service.state().running


def test_child_whose_program_is_gone_is_not_stopped_by_a_restart(child_service: Make, tmp_path: Path) -> None:
    shell, script = tmp_path / "shell", tmp_path / "sensor"
    shell.symlink_to("/bin/sh")
    script.write_text(f"#!{shell}\nexec sleep 600\n")
    script.chmod(0o755)
    service = child_service([str(script)])
    before = service.start(monotonic() + 10)
    shell.unlink()
    with raises_code(ServiceError, "program_missing") as caught:
        service.restart(monotonic() + 10)
    assert f"its interpreter '{shell}' does not exist" in str(caught.value)
    assert service.state() == before


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (sys, "executable", "its keeper /nowhere could not be run: No such file or directory"),
        (kept_program, "_KEEPER", "its keeper ended with exit status 2"),
    ],
)
def test_failure_of_the_keeper_is_not_the_services(
    child_service: Make, monkeypatch: pytest.MonkeyPatch, place: object, value: str, said: str
) -> None:
    service = child_service(SLEEP)
    monkeypatch.setattr(place, value, "/nowhere")
    with raises_code(ServiceUnreachable, "keeper_failed") as caught:
        service.start(monotonic() + 10)
    assert str(caught.value) == f"The agent could not start the service /bin/sleep: {said}."
    monkeypatch.undo()
    assert service.start(monotonic() + 10).running


DAEMON = "setsid sleep 777 & echo $! >{pid}; exit {status}"


def test_child_that_goes_into_the_background_is_started_once_and_stopped(child_service: Make, tmp_path: Path) -> None:
    pid = tmp_path / "daemon"
    service = child_service(["/bin/sh", "-c", DAEMON.format(pid=pid, status=0)])
    with raises_code(ServiceError, "ended_at_once") as caught:
        service.start(monotonic() + 10)
    assert "does it go into the background?" in str(caught.value)
    daemon = int(pid.read_text())
    for _ in range(5):
        service.step()
    assert int(pid.read_text()) == daemon
    assert "left processes running" in (service.problem() or "")
    assert not service.stop(monotonic() + 10).running
    assert not _start_time(daemon)
    assert service.problem() is None


def test_start_ends_what_an_earlier_child_left_in_the_background(child_service: Make, tmp_path: Path) -> None:
    pid = tmp_path / "daemon"
    service = child_service(["/bin/sh", "-c", DAEMON.format(pid=pid, status=0)])
    daemons = []
    for _ in range(2):
        with raises_code(ServiceError, "ended_at_once"):
            service.start(monotonic() + 10)
        daemons.append(int(pid.read_text()))
    assert not _start_time(daemons[0])
    assert _start_time(daemons[1])


def test_what_a_failed_child_leaves_is_ended_before_it_is_started_again(child_service: Make, tmp_path: Path) -> None:
    pid = tmp_path / "daemon"
    service = child_service(["/bin/sh", "-c", DAEMON.format(pid=pid, status=3)])
    service.step()
    wait_for(lambda: not service.state().running, "the child to fail")
    first, failed = int(pid.read_text()), service._current
    wait_for(lambda: service.step() or service._current is not failed, "the next start")  # type: ignore[func-returns-value]
    assert not _start_time(first)
    assert service.problem() == (
        "The service ended with exit status 3 and left processes running: does it go into the background? "
        "It must stay in the foreground."
    )


def test_orphan_of_a_killed_agent_is_ended_with_what_went_into_the_background(
    child_service: Make, tmp_path: Path
) -> None:
    pid = tmp_path / "daemon"
    killed_agents = child_service(["/bin/sh", "-c", DAEMON.format(pid=pid, status=0) + "; wait"])
    with raises_code(ServiceError, "ended_at_once"):
        killed_agents.start(monotonic() + 10)
    child_service(SLEEP).start(monotonic() + 10)
    assert not _start_time(int(pid.read_text()))


def test_child_is_not_stopped_if_the_time_cannot_suffice_to_start_the_next_one(
    tmp_path: Path, child_service: Make
) -> None:
    service = child_service(SLEEP)
    before = service.start(monotonic() + 10)
    with raises_code(ServiceError, "timed_out"):
        service.restart(monotonic() + 0.15)
    assert service.state() == before


def test_no_service_says_what_to_configure() -> None:
    with raises_code(ServiceError, "no_service") as caught:
        NoService().stop(0.0)
    assert "[service]" in str(caught.value)
    assert NoService().state().kind == "none"


def test_callbacks_start_and_stop_the_embedding_program(tmp_path: Path) -> None:
    runs: list[str] = []
    mark = tmp_path / "stopped"
    service = CallbackService(lambda: runs.append(str(len(runs))), runs.clear, lambda: runs[-1] if runs else None, mark)
    assert service.start(0.0).running
    assert service.start(0.0).incarnation == "0"
    assert not service.stop(0.0).running
    assert service.stopped
    assert service.restart(0.0).running
    assert not service.stopped


def test_stop_ends_an_orphan_by_its_deadline(child_service: Make, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    killed_agents = child_service([sys.executable, "-c", STUBBORN, str(ready)])
    killed_agents.start(monotonic() + 10)
    wait_for(ready.exists, "the child to ignore TERM")
    service = child_service(SLEEP, grace_s=600.0)
    assert not service.stop(monotonic() + 0.2).running
    assert not killed_agents.state().running


SYSTEMCTL = """#!/bin/sh
[ $1 = journalctl ] && exit 1
case "$3" in --property*) shift;; esac
echo "$3 $4 $5" >> {log}
case "$3" in
show) printf 'LoadState=loaded\\nUnitFileState=enabled\\nActiveState=active\\nInvocationID=abc\\nMainPID=7\\n';;
disable) echo 'Access denied' >&2; exit 4;;
restart) exec sleep 600;;
esac
"""


REFUSING = """#!/bin/sh
[ $1 = journalctl ] && exit 1
case "$3" in --property*) shift;; esac
case "$3" in
show)
    read state < {state}
    [ $state = unreachable ] && {{ echo 'Failed to get properties: Connection timed out' >&2; exit 1; }}
    printf "LoadState=loaded\\nActiveState=$state\\nInvocationID=abc\\nMainPID=7\\n";;
restart) echo {after} > {state}; exit 1;;
esac
"""


@pytest.fixture
def systemd(tmp_path: Path) -> SystemdService:
    """A unit of a machine whose systemctl hangs and refuses; tests/integration/test_systemd.py has the real one."""
    stand_in = tmp_path / "systemctl"
    stand_in.write_text(SYSTEMCTL.format(log=tmp_path / "log"))
    stand_in.chmod(0o755)
    return SystemdService("sensor.service", SystemClock(), settle_s=0.1, via=[str(stand_in)])


def test_a_systemd_unit_is_driven_by_systemctl(systemd: SystemdService, tmp_path: Path) -> None:
    state = systemd.start(monotonic() + 10)
    assert (state.running, state.incarnation) == (True, "abc")
    assert state.detail == {"unit": "sensor.service", "pid": 7}
    assert "start -- sensor.service" in (tmp_path / "log").read_text().splitlines()


def test_failed_or_hanging_systemctl_is_an_error(systemd: SystemdService) -> None:
    with raises_code(ServiceError, "systemctl_failed") as failed:
        systemd.stop(monotonic() + 10)
    assert "disable sensor.service ended with exit status 4: Access denied" in str(failed.value)
    with raises_code(ServiceError, "timed_out") as hung:
        systemd.restart(monotonic() + 0.5)
    assert "restart sensor.service" in str(hung.value)


@pytest.mark.parametrize(
    ("after", "kind"), [("active", ServiceUnreachable), ("failed", ServiceError), ("unreachable", ServiceUnreachable)]
)
def test_refused_request_is_not_a_failure_of_the_unit(tmp_path: Path, after: str, kind: type[ServiceError]) -> None:
    """systemctl ends with 1 in all three cases: the unit is as it was, has failed, or systemd gives no answer."""
    stand_in = tmp_path / "systemctl"
    stand_in.write_text(REFUSING.format(state=tmp_path / "state", after=after))
    stand_in.chmod(0o755)
    (tmp_path / "state").write_text("active\n")
    service = SystemdService("sensor.service", SystemClock(), settle_s=0.1, via=[str(stand_in)])
    with pytest.raises(ServiceError) as caught:
        service.restart(monotonic() + 10)
    assert caught.type is kind


def test_missing_systemctl_is_an_error() -> None:
    service = SystemdService("sensor.service", SystemClock(), settle_s=0.1, via=["/nowhere/sudo"])
    with raises_code(ServiceUnreachable, "systemctl_not_run") as caught:
        service.state()
    assert "/nowhere/sudo could not be started: No such file or directory" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["sensor.service", "sensor@1.service", "dev-a:b_c.d.service", r"a\x2db.service", "a" * 247 + ".service"]
)
def test_unit_names(name: str) -> None:
    assert is_unit_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "sensor", ".service", "sensor.socket", "sensor@.service", "@1.service", "a@b@c.service", "a b.service"),
        *("../a.service", "a.service\n", "\u00e4.service", "a" * 248 + ".service"),
    ],
)
def test_invalid_unit_names_are_refused(name: str) -> None:
    assert not is_unit_name(name)


def test_start_cut_short_by_the_deadline_is_a_failure(child_service: Make) -> None:
    service = child_service(SLEEP)
    service.start(monotonic() + 10)
    with raises_code(ServiceError, "timed_out"):
        service.restart(monotonic() + 0.05)


def test_child_is_managed_without_a_writable_pid_file(child_service: Make, tmp_path: Path) -> None:
    (tmp_path / "service.pid").mkdir()
    service = child_service(SLEEP)
    service.step()
    assert service.state().running
