"""Starts the child processes of handlers under kernel limits, optionally as another user.

Limits must be set before the program starts. A function between fork and exec (`preexec_fn`) can deadlock in a process
with threads; limits set on the child from here (prlimit(2)) come too late; limits of our own process during the start
would apply to all threads. So a child starts as `launch.py`, which takes about 10 ms: it sets its own limits, switches
to the user, and then executes the program under the same process id. It reports on a pipe, which execve(2) closes, how
far it came: what fails before it is ready is a failure of the agent, after which nothing is known of the program.
"""

import errno
import grp
import os
import pwd
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import IO

from consumer.settings import Confinement
from consumer.system.launch import READY

__all__ = [
    "LauncherFailed",
    "launch",
]


_LAUNCHER = Path(__file__).with_name("launch.py")
_LAUNCH_TIMEOUT_S = 30.0  # for a busy machine
_REPORT_BYTES = 64
_STDERR_BYTES = 4096


class LauncherFailed(OSError):
    """The launcher failed before it executed the program, of which nothing is known. `strerror` names the launcher."""


def launch(
    argv: Sequence[str],
    confinement: Confinement,
    *,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    stdin: int | IO[bytes] = subprocess.PIPE,
    output: int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start a program within a confinement, in a session of its own, with no descriptors but the standard three.

    `output` is for stdout and stderr. Raises LauncherFailed, OSError if the program cannot be executed, ValueError as
    Popen does, and ConfigurationError for a user that no longer exists.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise ValueError("this process ignores SIGCHLD, so every program would seem to succeed")
    account = confinement.account()
    home = {} if account is None else {"HOME": account.pw_dir}
    try:
        errors, theirs = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise _not_run(error) from error
    try:
        child = subprocess.Popen(
            [*_launcher(theirs, confinement, account), *argv],
            stdin=stdin,
            stdout=output,
            stderr=output,
            bufsize=0,
            pass_fds=[theirs],
            start_new_session=True,
            env={**environment, **home},
            cwd=cwd,
        )
    except BaseException as error:
        os.close(errors)
        if not isinstance(error, OSError) or (cwd is not None and error.filename == cwd):
            raise
        raise _not_run(error) from error
    finally:
        os.close(theirs)
    _wait_for_program(child, errors)
    return child


def _not_run(error: OSError) -> LauncherFailed:
    return LauncherFailed(error.errno, f"its launcher {sys.executable} could not be run: {error.strerror}")


def _launcher(errors: int, confinement: Confinement, account: pwd.struct_passwd | None) -> list[str]:
    limits = ",".join(f"{number}={value}" for number, value in confinement.limits.items())
    user = "" if account is None else f"{account.pw_uid}:{account.pw_gid}:{','.join(map(str, _groups(account)))}"
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(errors), limits, user]


def _groups(account: pwd.struct_passwd) -> list[int]:
    member_of = [group.gr_gid for group in grp.getgrall() if account.pw_name in group.gr_mem]
    return sorted({account.pw_gid, *member_of})


def _wait_for_program(child: subprocess.Popen[bytes], errors: int) -> None:
    """Wait until the child executes the program; raises OSError if it could not, LauncherFailed if it did not try."""
    end = monotonic() + _LAUNCH_TIMEOUT_S
    report, is_late = b"", False
    try:
        while True:
            if not select.select([errors], [], [], max(0.0, end - monotonic()))[0]:
                is_late = True
                os.killpg(child.pid, signal.SIGKILL)  # what it has reported before that is read below
                end = float("inf")
            block = os.read(errors, _REPORT_BYTES)
            if not block:
                break
            report += block
    finally:
        os.close(errors)
    if report == READY:
        return
    failed = _launcher_failure(child, report, is_late=is_late)
    with child:  # which closes its pipes and waits for it
        raise failed


def _launcher_failure(child: subprocess.Popen[bytes], report: bytes, *, is_late: bool) -> OSError:
    if report:
        number = int(report.removeprefix(READY))
        reason = os.strerror(number)
        return (
            OSError(number, reason) if report.startswith(READY) else LauncherFailed(number, f"its launcher: {reason}")
        )
    if is_late:
        return LauncherFailed(errno.ETIMEDOUT, f"its launcher did not start it within {_LAUNCH_TIMEOUT_S:g} s")
    status = child.wait()
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
    said = _last_line(child.stderr)
    return LauncherFailed(errno.ENOEXEC, f"its launcher {how}{': ' if said else ''}{said}")


def _last_line(stderr: IO[bytes] | None) -> str:
    said = b"" if stderr is None else os.read(stderr.fileno(), _STDERR_BYTES)
    return said.decode(errors="replace").strip().rpartition("\n")[2].rstrip(".")
