"""Starts the child processes of handlers under kernel limits, optionally as another user.

Limits must be set before the program starts. A function between fork and exec (`preexec_fn`) can deadlock in a process
with threads; limits set on the child from here (prlimit(2)) come too late; limits of our own process during the start
would apply to all threads. So a child starts as `launch.py`, which takes about 10 ms: it sets its own limits, switches
to the user, and then executes the program under the same process id. It reports failures on a pipe that execve(2)
closes.
"""

import grp
import os
import pwd
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from consumer.settings import Confinement

__all__ = [
    "launch",
]


_LAUNCHER = Path(__file__).with_name("launch.py")
_LAUNCH_TIMEOUT_S = 10.0  # for a busy machine; after that, the launch is assumed to have succeeded
_ERRNO_BYTES = 16


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

    `output` is for stdout and stderr. Raises OSError and ValueError, as Popen does, and ConfigurationError for a user
    that no longer exists.
    """
    account = confinement.account()
    home = {} if account is None else {"HOME": account.pw_dir}
    errors, theirs = os.pipe2(os.O_CLOEXEC)
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
    except BaseException:
        os.close(errors)
        raise
    finally:
        os.close(theirs)
    _wait_for_program(child, errors)
    return child


def _launcher(errors: int, confinement: Confinement, account: pwd.struct_passwd | None) -> list[str]:
    limits = ",".join(f"{number}={value}" for number, value in confinement.limits.items())
    user = "" if account is None else f"{account.pw_uid}:{account.pw_gid}:{','.join(map(str, _groups(account)))}"
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(errors), limits, user]


def _groups(account: pwd.struct_passwd) -> list[int]:
    member_of = [group.gr_gid for group in grp.getgrall() if account.pw_name in group.gr_mem]
    return sorted({account.pw_gid, *member_of})


def _wait_for_program(child: subprocess.Popen[bytes], errors: int) -> None:
    """Wait until the child executes the program; raises OSError if it could not."""
    try:
        report = os.read(errors, _ERRNO_BYTES) if select.select([errors], [], [], _LAUNCH_TIMEOUT_S)[0] else b""
    finally:
        os.close(errors)
    if report:
        with child:  # which closes its pipes and waits for it
            raise OSError(int(report), os.strerror(int(report)))
