"""Runs a program with all its descendants as its own: none of them can escape into the background.

    python -I -S keeper.py REPORT TRACE PROGRAM ARGUMENT...

REPORT is the number of the descriptor on which it reports in lines: `failed ERRNO` when the keeper cannot do its own
part, `error ERRNO` when PROGRAM cannot be run, or `pid PID`, and later `exit STATUS LEFT`, where LEFT is how many
processes it has left. TRACE is a file for the keeper's process id and start time, written before PROGRAM runs. TERM
asks all descendants to end, QUIT kills them; the keeper ends with the last one. It is run by its path and imports none
of our modules.
"""

import contextlib
import ctypes
import os
import signal
import sys

__all__ = [
    "main",
]


_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def main(report: str, trace: str, *argv: str) -> None:
    """Run the program, and return when it and all its descendants have ended."""
    handle = int(report)
    os.set_inheritable(handle, False)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with contextlib.suppress(OSError), open(trace, "w") as file:  # needed only if the agent is killed
        file.write(f"{os.getpid()} {_start_time()}")
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for number in _SIGNALS:  # before the fork: without SIGCHLD, no end would be noticed
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        environment = _given_environment()
        errors, theirs = os.pipe2(os.O_CLOEXEC)
        program = os.fork()
    except OSError as own:
        _say(handle, f"failed {own.errno}")
        return
    if program == 0:
        _execute(argv, environment, theirs)
    os.close(theirs)
    error = os.read(errors, 16)
    if error:
        _say(handle, f"error {error.decode()}")
        os.waitpid(program, 0)
        return
    _say(handle, f"pid {program}")
    _keep(handle, program)


def _execute(argv: tuple[str, ...], environment: dict[bytes, bytes], errors: int) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(errors, str(error.errno).encode())
    os._exit(127)


def _keep(handle: int, program: int) -> None:
    is_killing = False
    while True:
        received = signal.sigwait(_SIGNALS)
        is_killing |= received == signal.SIGQUIT
        if received == signal.SIGTERM:
            _signal_children(signal.SIGTERM)
        status = _reap(program)
        if is_killing:
            _signal_children(signal.SIGKILL)  # whose own children then are children of this process
        left = len(_children())
        if status is not None:
            _say(handle, f"exit {status} {left}")
        if not left:
            os._exit(0)  # which takes less time than the end of the interpreter


def _reap(program: int) -> int | None:
    """Wait for all children that have ended; return the program's exit status if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == program:
                found = os.waitstatus_to_exitcode(ended[1])
    return found


def _children() -> list[int]:
    """Return the processes whose parent is this one, by field 4 of /proc/PID/stat (proc(5)).

    /proc/PID/task/TID/children is not on every kernel, and may omit some.
    """
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
            if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(pid))
    return found


def _signal_children(number: signal.Signals) -> None:
    for pid in _children():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            group = os.getpgid(pid)
            if group == os.getpgid(0):
                os.kill(pid, number)
            else:
                os.killpg(group, number)


def _start_time() -> str:
    """Return field 22 of /proc/self/stat (proc(5))."""
    with open("/proc/self/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def _given_environment() -> dict[bytes, bytes]:
    """Return the original environment: Python adds LC_CTYPE to its own (PEP 538)."""
    with open("/proc/self/environ", "rb") as source:
        pairs = (entry.partition(b"=") for entry in source.read().split(b"\0") if entry)
        return {name: value for name, _, value in pairs}


def _say(handle: int, line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the agent was killed
        os.write(handle, f"{line}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
