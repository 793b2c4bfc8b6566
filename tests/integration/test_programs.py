"""Other programs, as real processes: whatever they do, they end in time and leave nothing of ours open."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from consumer.errors import ProgramError
from consumer.system import confinement
from consumer.system.clock import SystemClock
from consumer.system.programs import OUTPUT_BYTES, Bounds, Program, clean_environment, exit_in_words, run_program
from tests.support.active_response_scripts import install
from tests.support.errors import raises_code
from tests.support.signal_starter import BLOCKING, signals_of
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
IGNORES_TERM = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def python(script: str) -> list[str]:
    return [sys.executable, "-S", "-c", script]


def bounds(seconds: float = 30.0, grace_s: float = 2.0, cancelled: threading.Event | None = None) -> Bounds:
    return Bounds(SystemClock(), monotonic() + seconds, cancelled or threading.Event(), grace_s)


def cancelled_when(ready: Path) -> threading.Event:
    cancelled = threading.Event()

    def look() -> None:
        wait_for(ready.exists, "the program to be ready")
        cancelled.set()

    threading.Thread(target=look, daemon=True).start()
    return cancelled


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() <= before


def pid_in(path: Path) -> int:
    return int(wait_for(lambda: path.exists() and path.read_text().strip(), f"{path.name} to name a process"))


def test_successful_program_returns_both_outputs() -> None:
    ended = run_program(sh("echo out; echo err >&2"), bounds())
    assert (ended.good, ended.exit_status, ended.overdue) == (True, 0, False)
    assert (ended.output.stdout, ended.output.stderr, ended.output.truncated) == ("out\n", "err\n", False)


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [("exit 3", 3, "ended with exit status 3"), ("kill -SEGV $$", -signal.SIGSEGV, "was ended by SIGSEGV")],
)
def test_unsuccessful_end_is_described(script: str, status: int, words: str) -> None:
    ended = run_program(sh(script), bounds())
    assert (ended.exit_status, ended.in_words(), ended.good) == (status, words, False)


def test_a_signal_without_a_name_is_a_number() -> None:
    assert exit_in_words(-40) == "was ended by signal 40"


def test_missing_program_or_invalid_name_is_an_error() -> None:
    with raises_code(ProgramError, "not_started") as caught:
        run_program(["/nowhere/script"], bounds())
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert str(caught.value).startswith("/nowhere/script ")
    with raises_code(ProgramError, "not_started"):
        run_program(["/bin/true", "a\0b"], bounds())
    with raises_code(ProgramError, "not_started"):
        run_program(["/bin/true"], bounds(), cwd=Path("/nowhere"))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (sys, "executable", "/nowhere/python could not be run: No such file or directory"),
        (confinement, "_LAUNCHER", "can't open file '/nowhere/python': [Errno 2] No such file"),
    ],
)
def test_failure_of_the_launcher_is_not_the_programs(
    monkeypatch: pytest.MonkeyPatch, place: object, value: str, said: str
) -> None:
    monkeypatch.setattr(place, value, "/nowhere/python")
    with raises_code(ProgramError, "launcher_failed") as caught:
        run_program(["/bin/true"], bounds())
    assert str(caught.value).startswith("The agent could not start /bin/true: its launcher ")
    assert said in str(caught.value)


def test_launcher_that_is_killed_before_it_starts_the_program_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launcher = tmp_path / "launch.py"
    launcher.write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr(confinement, "_LAUNCHER", launcher)
    with raises_code(ProgramError, "launcher_failed") as caught:
        run_program(["/bin/true"], bounds())
    assert "was ended by SIGKILL" in str(caught.value)


def test_launcher_that_hangs_is_ended_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launcher = tmp_path / "launch.py"
    launcher.write_text("import time; time.sleep(600)")
    monkeypatch.setattr(confinement, "_LAUNCHER", launcher)
    monkeypatch.setattr(confinement, "_LAUNCH_TIMEOUT_S", 0.2)
    with raises_code(ProgramError, "launcher_failed") as caught:
        run_program(["/bin/true"], bounds())
    assert "did not start it within 0.2 s" in str(caught.value)


def test_file_that_is_not_executable_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text("#!/bin/sh\n")
    with raises_code(ProgramError, "not_started") as caught:
        run_program([str(path)], bounds())
    assert isinstance(caught.value.__cause__, PermissionError)


def test_the_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    ended = run_program(sh(f"sleep 600 & echo $! > {worker}; echo began; wait"), bounds(0.4))
    assert (ended.overdue, ended.good, ended.output.stdout) == (True, False, "began\n")
    assert ended.in_words() == "did not end in time and was stopped"
    wait_for(lambda: not lives(pid_in(worker)), "the worker to be gone")


def test_a_deadline_that_is_over_ends_it_at_once() -> None:
    assert run_program(["/bin/sleep", "600"], bounds(-1.0)).overdue


def test_cancel_ends_the_program(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ended = run_program(sh(f"touch {ready}; exec sleep 600"), bounds(cancelled=cancelled_when(ready)))
    assert (ended.overdue, ended.exit_status) == (True, -signal.SIGTERM)


def test_program_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = IGNORES_TERM + f"open({str(ready)!r}, 'w').close(); time.sleep(600)"
    ended = run_program(python(script), bounds(grace_s=0.2, cancelled=cancelled_when(ready)))
    assert (ended.overdue, ended.exit_status) == (True, -signal.SIGKILL)


def test_output_on_term_is_kept(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'echo goodbye; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done"
    ended = run_program(sh(script), bounds(grace_s=20.0, cancelled=cancelled_when(ready)))
    assert (ended.overdue, ended.good, ended.output.stdout) == (True, False, "goodbye\n")


def test_large_outputs_are_truncated_and_do_not_block() -> None:
    flood = "head -c 3000000 /dev/zero | tr '\\0' x"
    ended = run_program(sh(f"{flood} & {flood} >&2; wait"), bounds())
    assert (ended.good, ended.output.truncated) == (True, True)
    assert (len(ended.output.stdout), len(ended.output.stderr)) == (OUTPUT_BYTES, OUTPUT_BYTES)


def test_endless_output_is_ended_at_the_deadline() -> None:
    ended = run_program(["/bin/cat", "/dev/zero"], bounds(0.3))
    assert (ended.overdue, ended.output.truncated) == (True, True)


def test_output_during_the_grace_does_not_block_the_end(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = (
        "import os, signal\n"
        "def flood(*_):\n    os.write(1, b'y' * 3000000)\n    os._exit(5)\n"
        f"signal.signal(signal.SIGTERM, flood)\nopen({str(ready)!r}, 'w').close()\nwhile True: signal.pause()"
    )
    ended = run_program(python(script), bounds(grace_s=20.0, cancelled=cancelled_when(ready)))
    assert (ended.overdue, ended.exit_status) == (True, 5)


def test_invalid_utf8_in_output_is_replaced() -> None:
    assert run_program(["/usr/bin/printf", r"a\377b"], bounds()).output.stdout == "a\ufffdb"


def test_a_big_stdin_reaches_one_that_reads_it() -> None:
    given = b"x" * 3_000_000
    ended = run_program(sh("wc -c"), bounds(), stdin=given)
    assert ended.output.stdout.strip() == str(len(given))


def test_a_big_stdin_does_not_block_on_one_that_does_not_read() -> None:
    given = b"x" * 3_000_000
    assert run_program(["/bin/true"], bounds(), stdin=given).good
    assert run_program(sh("exec <&-; sleep 0.2"), bounds(), stdin=given).good
    assert run_program(["/bin/sleep", "600"], bounds(0.3), stdin=given).overdue


def test_a_big_stdin_is_echoed_while_it_is_written() -> None:
    ended = run_program(["/bin/cat"], bounds(), stdin=b"x" * 3_000_000)
    assert (ended.good, len(ended.output.stdout), ended.output.truncated) == (True, OUTPUT_BYTES, True)


def test_background_process_with_stdout_open_is_not_waited_for(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    ended = run_program(sh(f"sleep 600 & echo $! > {worker}; echo done"), bounds(60.0))
    pid = pid_in(worker)
    assert (ended.good, ended.output.stdout, lives(pid)) == (True, "done\n", True)
    os.kill(pid, signal.SIGKILL)


def test_last_output_is_not_lost() -> None:
    size = OUTPUT_BYTES - 1
    for _ in range(20):
        ended = run_program(sh(f"head -c {size} /dev/zero | tr '\\0' x; echo; echo why >&2; exit 1"), bounds())
        assert (len(ended.output.stdout), ended.output.stderr, ended.output.truncated) == (size + 1, "why\n", False)


def test_leaving_the_block_ends_the_group(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    script = f"trap '' TERM; sleep 600 & echo $! > {worker}; echo ready; wait"
    with Program(sh(script), bounds(grace_s=0.1)) as program:
        assert program.read_line() == b"ready"
    assert not lives(program.pid)
    wait_for(lambda: not lives(pid_in(worker)), "the child to be gone")


def test_leaving_the_block_after_the_end_ends_nothing_else() -> None:
    with Program(sh("echo one"), bounds()) as program:
        assert program.wait().good


def test_program_is_talked_to_line_by_line() -> None:
    with Program(sh("read a; echo got $a; read b; echo and $b; exit 4"), bounds()) as program:
        program.send(b"first\n")
        assert program.read_line() == b"got first"
        program.send(b"second\n")
        assert program.read_line() == b"and second"
        assert program.read_line() is None
        program.send(b"too late\n")
        program.close_stdin()
        assert program.wait().exit_status == 4


def test_lines_of_one_write_are_read_one_by_one() -> None:
    with Program(sh("printf 'one\\ntwo\\nrest'"), bounds()) as program:
        assert program.read_line() == b"one"
        assert program.read_line() == b"two"
        assert program.read_line() == b"rest"
        assert program.read_line() is None


def test_last_line_of_an_ended_program_is_read() -> None:
    for _ in range(20):
        with Program(["/bin/echo", "answer"], bounds()) as program:
            wait_for(lambda: not lives(program.pid), "the program to end")
            assert program.read_line() == b"answer"


def test_a_closed_stdin_is_seen() -> None:
    with Program(["/bin/cat"], bounds()) as program:
        program.send(b"all\n")
        program.close_stdin()
        assert program.read_line() == b"all"
        assert program.wait().good
        program.send(b"more\n")


def test_endless_line_is_cut() -> None:
    with Program(["/bin/cat", "/dev/zero"], bounds()) as program:
        assert program.read_line() == bytes(OUTPUT_BYTES)


@pytest.mark.parametrize(("script", "line"), [("printf half", b"half"), ("exec >&-; read a", None)])
def test_stdout_that_ends_without_a_line_feed_ends_the_line(script: str, line: bytes | None) -> None:
    with Program(sh(script), bounds()) as program:
        assert program.read_line() == line
        program.close_stdin()
        assert not program.wait().overdue


def test_script_without_an_interpreter_is_run_by_the_shell(tmp_path: Path) -> None:
    script = install(tmp_path / "bin", "plain", 'echo "$0 $1"\n')
    assert run_program([str(script), "one"], bounds()).output.stdout == f"{script} one\n"
    found = run_program(["plain", "two"], bounds(), environment={"PATH": f"/nowhere:{script.parent}"})
    assert found.output.stdout == f"{script} two\n"
    assert run_program([str(install(tmp_path / "bin", "empty", ""))], bounds()).good


def test_program_for_another_machine_is_not_run_by_the_shell(tmp_path: Path) -> None:
    script = install(tmp_path / "bin", "foreign", "\x7fELF\0\0\necho hello\n")
    with raises_code(ProgramError, "not_started") as caught:
        run_program([str(script)], bounds())
    assert "Exec format error" in str(caught.value)


@pytest.mark.parametrize(
    ("first_line", "said"),
    [
        ("#!/bin/sh\r\n", r"the interpreter '/bin/sh\r': save it with Unix line ends, without `\r`."),
        ("#! /usr/bin/nothere -x\n", "could not be started: its interpreter '/usr/bin/nothere' does not exist."),
        ("#!/usr/bin/nothere\r\n", r"its interpreter '/usr/bin/nothere\r' does not exist."),
    ],
)
def test_missing_interpreter_of_a_script_is_named(tmp_path: Path, first_line: str, said: str) -> None:
    script = install(tmp_path / "bin", "script", first_line)
    with raises_code(ProgramError, "not_started") as caught:
        run_program([f"bin/{script.name}"], bounds(), cwd=tmp_path)
    assert said in str(caught.value)


def test_silent_program_is_ended_at_the_deadline() -> None:
    with Program(["/bin/sleep", "600"], bounds(0.2)) as program:
        assert program.read_line() is None
        ended = program.wait()
    assert (ended.overdue, ended.exit_status) == (True, -signal.SIGTERM)


def test_nothing_of_the_agents_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACM_BROKER", "mqtt://me:hush@broker")
    monkeypatch.setenv("LANG", "C.UTF-8")
    shown = run_program(["/usr/bin/env"], bounds(), environment=clean_environment({"MORE": "1"})).output.stdout
    assert {"MORE=1", "LANG=C.UTF-8"} <= set(shown.split())
    assert "hush" not in shown + run_program(["/usr/bin/env"], bounds()).output.stdout


RUN = """
import sys
from consumer.errors import ProgramError
from consumer.system.clock import SystemClock
from consumer.system.programs import Bounds, run_program
clock = SystemClock()
try:
    ended = run_program(sys.argv[1:], Bounds(clock, clock.monotonic() + 20))
    print(ended.output.stdout, ended.exit_status)
except ProgramError as error:
    print(error.code, error)
"""


def test_program_has_no_signal_blocked_or_ignored_whatever_the_agent_has(tmp_path: Path) -> None:
    deaf = f"import signal; signal.signal(signal.SIGCHLD, signal.SIG_DFL)\n{RUN}"
    argv = [*BLOCKING, sys.executable, "-c", deaf, "/bin/cat", "/proc/self/status"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert signals_of(done.stdout) == (0, 0)


def test_program_whose_end_cannot_be_observed_is_not_started() -> None:
    argv = [*BLOCKING, sys.executable, "-c", RUN, "/bin/false"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("not_started /bin/false could not be started: ")
    assert "SIGCHLD" in done.stdout


def test_script_runs_in_the_layout_of_wazuh(tmp_path: Path) -> None:
    assert run_program(["/bin/pwd"], bounds(), cwd=tmp_path).output.stdout.strip() == str(tmp_path.resolve())


def test_output_while_being_ended_is_not_an_answer(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'echo late; exit' TERM; : > {ready}; while :; do sleep 0.05; done"
    with Program(sh(script), bounds(cancelled=cancelled_when(ready))) as program:
        assert program.read_line() is None
        ended = program.wait()
    assert (ended.overdue, ended.output.stdout) == (True, "late\n")


def test_no_descriptor_for_it_leaves_no_program_running() -> None:
    """Tries each number of free descriptors, from none to enough."""
    code = """
import os, resource, threading
from time import monotonic
from consumer.errors import ProgramError
from consumer.system import confinement
from consumer.system.clock import SystemClock
from consumer.system.programs import Bounds, run_program
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
failures = 0
used = len(os.listdir("/proc/self/fd"))
for limit in range(used - 1, used + 30):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        run_program(["/bin/sleep", "0"], Bounds(SystemClock(), monotonic()))
    except ProgramError as error:
        failures += 1
    else:
        break
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    assert len(os.listdir("/proc/self/fd")) == used, limit
    assert not open(f"/proc/self/task/{os.getpid()}/children").read(), limit
print(failures)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
