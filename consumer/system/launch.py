"""Sets limits, drops privileges, and executes another program.

    python -I -S launch.py ERRORS LIMITS USER PROGRAM ARGUMENT...

ERRORS is the number of the descriptor to which READY is written once only PROGRAM remains to be executed, and an errno
when something fails: before READY it is a failure of this launcher, after it one of PROGRAM. LIMITS is NUMBER=VALUE
pairs for setrlimit(2), separated by commas, USER is UID:GID:GROUP,GROUP... or empty. It is run by its path and imports
none of our modules, so that it takes only about 10 ms.
"""

import errno
import os
import resource
import signal
import sys

__all__ = [
    "READY",
    "main",
]


READY = b"+"
_SHELL = "/bin/sh"
_FIRST_LINE_BYTES = 256


def main(errors: str, limits: str, user: str, *argv: str) -> None:
    """Set the limits, switch to the user, and execute the program; returns only if that fails."""
    handle = int(errors)
    os.set_inheritable(handle, False)
    try:
        environment = _given_environment()
        for limit in limits.split(","):
            number, _, value = limit.partition("=")
            _limit(int(number), int(value))
        if user:
            _become(*user.split(":"))
        _reset_signals()
        os.write(handle, READY)
        _execute(argv, environment)
    except OSError as error:
        os.write(handle, str(error.errno).encode())


def _reset_signals() -> None:
    """Ignore and block none: neither those that Python ignores, nor those of the process that started the agent."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(argv: tuple[str, ...], environment: dict[bytes, bytes]) -> None:
    """Execute the program as execvp(3) does: found on the PATH, and by /bin/sh if it is a script without `#!`."""
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        path = _script_without_interpreter(argv[0], environment) if error.errno == errno.ENOEXEC else None
        if path is None:
            raise
        os.execve(_SHELL, [_SHELL, path, *argv[1:]], environment)  # noqa: S606 - as execvp(3) does


def _script_without_interpreter(name: str, environment: dict[bytes, bytes]) -> str | None:
    """Return the path of a file that the kernel cannot execute, unless it is a program for another machine."""
    search = environment.get(b"PATH", os.fsencode(os.defpath)).split(b":")
    directories = [""] if "/" in name else map(os.fsdecode, search)
    paths = (os.path.join(directory, name) for directory in directories)
    path = next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)
    if path is None:
        return None
    with open(path, "rb") as file:
        first_line = file.read(_FIRST_LINE_BYTES).partition(b"\n")[0]
    return None if b"\0" in first_line else path


def _given_environment() -> dict[bytes, bytes]:
    """Return the original environment: Python adds LC_CTYPE to its own (PEP 538)."""
    with open("/proc/self/environ", "rb") as source:
        pairs = (entry.partition(b"=") for entry in source.read().split(b"\0") if entry)
        return {name: value for name, _, value in pairs}


def _limit(number: int, value: int) -> None:
    hard = resource.getrlimit(number)[1]
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(number, (bound, bound))


def _become(uid: str, gid: str, groups: str) -> None:
    os.setgroups([int(group) for group in groups.split(",")])
    os.setgid(int(gid))
    os.setuid(int(uid))


if __name__ == "__main__":
    main(*sys.argv[1:])
