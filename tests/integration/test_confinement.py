"""What the children of handlers may use, seen by real children."""

import os
import pwd
import resource
import signal
import sys
from pathlib import Path
from time import monotonic

import pytest

from consumer.active_response.detached_run import Run
from consumer.errors import ConfigurationError, ProgramError
from consumer.settings import Confinement
from consumer.system.clock import SystemClock
from consumer.system.programs import Bounds, Ended, run_program
from tests.support.errors import raises_code

LIMITED = ("Max data size", "Max file size", "Max processes", "Max open files", "Max core file size")


def run(argv: list[str], confinement: Confinement = Confinement(), cwd: Path | None = None) -> Ended:
    return run_program(argv, Bounds(SystemClock(), monotonic() + 30, confinement=confinement), cwd=cwd)


def python(script: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script]


def limits_in(shown: str) -> dict[str, tuple[str, str]]:
    rows = {name: line for line in shown.splitlines() for name in LIMITED if line.startswith(name)}
    return {name: tuple(line.removeprefix(name).split()[:2]) for name, line in rows.items()}  # type: ignore[misc]


def test_program_starts_with_each_limit_soft_and_hard() -> None:
    confinement = Confinement(memory_bytes=1 << 28, file_bytes=1 << 20, open_files=40, processes=4000)
    assert limits_in(run(["/bin/cat", "/proc/self/limits"], confinement).output.stdout) == {
        "Max data size": (str(1 << 28), str(1 << 28)),
        "Max file size": (str(1 << 20), str(1 << 20)),
        "Max processes": ("4000", "4000"),
        "Max open files": ("40", "40"),
        "Max core file size": ("0", "0"),
    }


def test_lower_limit_of_the_agent_is_kept() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = run(["/bin/cat", "/proc/self/limits"], Confinement(open_files=hard + 1)).output.stdout
    assert limits_in(shown)["Max open files"] == (str(hard), str(hard))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_program_cannot_exceed_its_limits(tmp_path: Path) -> None:
    confinement = Confinement(memory_bytes=1 << 27, file_bytes=4096)
    greedy = run(python("x = bytearray(1 << 28)"), confinement)
    assert (greedy.good, "MemoryError" in greedy.output.stderr) == (False, True)
    written = run(["/bin/sh", "-c", "exec head -c 10000 /dev/zero > big"], confinement, tmp_path)
    assert written.in_words() == "was ended by SIGXFSZ"
    assert (tmp_path / "big").stat().st_size == 4096


def test_program_has_only_the_standard_descriptors() -> None:
    with open(os.devnull) as ours:
        os.set_inheritable(ours.fileno(), True)
        shown = run(["/bin/ls", "/proc/self/fd"]).output.stdout.split()
    assert shown == ["0", "1", "2", "3"]  # 3 is the directory that it lists


def test_a_child_leads_a_session_and_a_group_of_its_own() -> None:
    ended = run(python("import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))"))
    assert ended.output.stdout == "True\n"


def test_a_child_sees_the_clean_environment_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACM_BROKER", "mqtts://me:hush@broker")
    monkeypatch.delenv("LANG", raising=False)
    monkeypatch.setenv("LC_ALL", "C")
    names = {line.partition("=")[0] for line in run(["/usr/bin/env"]).output.stdout.split()}
    assert names <= {"PATH", "HOME", "LC_ALL", "TZ"}


def test_signals_that_python_ignores_are_not_ignored_by_a_child() -> None:
    status = run(["/bin/cat", "/proc/self/status"]).output.stdout
    ignored = int(status.split("SigIgn:")[1].split()[0], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


def test_detached_run_has_the_limits(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\ncat /proc/self/limits >&2\nls /proc/self/fd >&2\n")
    script.chmod(0o755)
    clock = SystemClock()
    started = Run(tmp_path / "run", clock, Confinement(open_files=77))
    started.begin(str(script), b"", tmp_path)
    ended = started.wait(clock.monotonic() + 30)
    assert (ended.good, limits_in(ended.stderr)["Max open files"]) == (True, ("77", "77"))
    assert ended.stderr.split()[-4:] == ["0", "1", "2", "3"]


def needs_root() -> None:
    assert os.geteuid() == 0, "run these tests as root: they become another user"


def test_a_child_may_be_another_user_without_rights() -> None:
    needs_root()
    nobody = pwd.getpwnam("nobody")
    shown = run(["/bin/sh", "-c", "cat /proc/self/status; echo Home: $HOME"], Confinement(user="nobody")).output.stdout
    seen = {name: value.split() for name, _, value in (line.partition(":") for line in shown.splitlines())}
    assert (seen["Uid"], seen["Gid"]) == ([str(nobody.pw_uid)] * 4, [str(nobody.pw_gid)] * 4)
    assert (seen["Groups"], seen["Home"]) == ([str(nobody.pw_gid)], [nobody.pw_dir])
    assert set(seen["CapEff"][0] + seen["CapPrm"][0]) == {"0"}


def test_the_limit_on_processes_holds_for_a_user_without_rights() -> None:
    needs_root()
    forking = ["/bin/sh", "-c", "sleep 0 & wait && echo forked"]
    assert not run(forking, Confinement(user="nobody", processes=1), Path("/")).good
    assert run(forking, Confinement(user="nobody"), Path("/")).good


def test_program_that_the_user_may_not_run_is_an_error(tmp_path: Path) -> None:
    needs_root()
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "script").chmod(0o700)
    with raises_code(ProgramError, "not_started") as caught:
        run([str(tmp_path / "script")], Confinement(user="nobody"))
    assert isinstance(caught.value.__cause__, PermissionError)


@pytest.mark.parametrize(
    ("confinement", "named"),
    [
        (Confinement(memory_bytes=0), "programs.memory_bytes"),
        (Confinement(user="nobody-of-this-name"), "nobody-of-this-name"),
        (Confinement(user="root"), "root"),
    ],
)
def test_impossible_confinement_is_an_error(confinement: Confinement, named: str) -> None:
    with raises_code(ConfigurationError, "invalid_programs") as caught:
        confinement.check()
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_user_needs_an_agent_that_is_root() -> None:
    needs_root()
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        with raises_code(ConfigurationError, "invalid_programs"):
            Confinement(user="nobody").check()
    finally:
        os.seteuid(0)
