"""Small programs under the supervisor of `acm up`: their order, their output and their ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from broker.app.supervisor import SupervisedProgram, Supervisor, SupervisorError
from broker.system.service_manager import ServiceManager
from tests.support.errors import raises_code
from tests.support.waiting import wait_for

READY = "import os, pathlib, signal, sys, time; touch = pathlib.Path(os.environ['ACM_HEALTH_FILE']).touch\n"
WORKS = READY + "touch(); print('works', flush=True); signal.pause()"


class Stage:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[str] = []

    def program(self, name: str, code: str) -> SupervisedProgram:
        return SupervisedProgram(name, (sys.executable, "-c", code), self.directory / name)

    def supervisor(self, *programs: SupervisedProgram, start_timeout_s: float = 30.0) -> Supervisor:
        with (self.directory / "lock").open("w") as lock:
            self.lock = os.dup(lock.fileno())
        return Supervisor(
            programs,
            inherited=self.lock,
            show=self.lines.append,
            manager=ServiceManager(monotonic, {}),
            start_timeout_s=start_timeout_s,
        )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    os.close(stage.lock)


def test_program_starts_when_the_one_before_it_works_and_ends_before_it(stage: Stage) -> None:
    ending = (
        READY + "signal.signal(15, lambda *_: sys.exit(print('ends', flush=True)))\nprint('works', flush=True); touch()"
    )
    programs = [stage.program(name, f"{ending}\nwhile True: signal.pause()") for name in ("first", "second")]
    supervisor = stage.supervisor(*programs)
    supervisor.run(supervisor.stop)
    assert stage.lines == ["first  | works", "second | works", "second | ends", "first  | ends"]


def test_program_that_ends_is_named_with_its_last_lines(stage: Stage) -> None:
    ending = READY + "touch(); print(*range(12), 'no line feed', sep='\\n', end=''); sys.stdout.flush(); sys.exit(7)"
    supervisor = stage.supervisor(stage.program("stays", WORKS), stage.program("ends", ending))
    with raises_code(SupervisorError, "program_ended") as caught:
        supervisor.run(lambda: None)
    text = str(caught.value)
    assert text.startswith("The ends ended with exit code 7, so all were ended. Its last lines:\n  3\n")
    assert text.endswith("\n  11\n  no line feed")


def test_program_that_does_not_work_in_time_is_named(stage: Stage) -> None:
    supervisor = stage.supervisor(stage.program("idle", "import signal; signal.pause()"), start_timeout_s=0.2)
    with raises_code(SupervisorError, "program_not_ready") as caught:
        supervisor.run(lambda: None)
    assert str(caught.value).endswith("Its last lines: none.")


def test_output_cannot_control_the_terminal_nor_fill_memory(stage: Stage) -> None:
    code = READY + "print('a\\x1b[2Jb'); sys.stdout.write('x' * 300_000); sys.stdout.flush(); touch(); signal.pause()"
    supervisor = stage.supervisor(stage.program("p", code))
    supervisor.run(supervisor.stop)
    assert stage.lines[0] == "p | a\N{REPLACEMENT CHARACTER}[2Jb"
    assert max(map(len, stage.lines)) < 200_000
    assert sum(line.count("x") for line in stage.lines) == 300_000


def test_programs_get_no_settings_and_no_service_manager(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACM_LEDGER", "NOTIFY_SOCKET", "OTHER"):
        monkeypatch.setenv(name, "given")
    code = (
        READY + "print(sorted(k for k, v in os.environ.items() if v == 'given'), flush=True); touch(); signal.pause()"
    )
    supervisor = stage.supervisor(stage.program("p", code))
    supervisor.run(supervisor.stop)
    assert stage.lines == ["p | ['OTHER']"]


def test_reload_is_passed_on(stage: Stage) -> None:
    code = READY + "signal.signal(1, lambda *_: print('reloads', flush=True))\ntouch()\nwhile True: signal.pause()"
    supervisor = stage.supervisor(stage.program("p", code))

    def reload() -> None:
        supervisor.reload()
        threading.Thread(target=stop_when, args=(lambda: "p | reloads" in stage.lines, supervisor)).start()

    supervisor.run(reload)
    assert stage.lines == ["p | reloads"]


def stop_when(condition: Callable[[], bool], supervisor: Supervisor) -> None:
    wait_for(condition, "the condition")
    supervisor.stop()


def test_programs_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from time import monotonic
from broker.app.supervisor import SupervisedProgram, Supervisor
from broker.system.service_manager import ServiceManager
program = SupervisedProgram("p", (sys.executable, "-c", {WORKS!r}), Path({str(tmp_path / "p")!r}))
lock = open({str(tmp_path / "lock")!r}, "w").fileno()
supervisor = Supervisor([program], inherited=lock, show=print, manager=ServiceManager(monotonic, {{}}))
supervisor.run(lambda: print("ready", flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert any("ready" in line for line in running.stdout)
        (child,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        handle = os.pidfd_open(int(child))
        running.send_signal(signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{child}").exists(), "the program to end")
    os.close(handle)
