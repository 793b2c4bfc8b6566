"""Process 1 of a container: passes signals on, and reaps orphaned processes."""

import contextlib
import os
import signal

__all__ = [
    "run_as_child_of_init",
]


_ALL = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_OF_TERMINALS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


def run_as_child_of_init() -> None:
    """Return in a child process if this is process 1, which then only serves the child, and ends with its exit code.

    The kernel makes process 1 the parent of all orphans (pid_namespaces(7)). If the program itself waited for any
    child, it would take the exit status from those who started one; so an init of its own does it.
    """
    if os.getpid() != 1:
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    child = os.fork()
    if child:
        _serve(child)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(child: int) -> None:
    while True:
        received = signal.sigwaitinfo(_ALL)
        number = signal.Signals(received.si_signo)
        if number is signal.SIGCHLD:
            _reap(child)
        elif received.si_code <= 0 and number not in _OF_TERMINALS:  # a terminal signals the whole group itself
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)


def _reap(child: int) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
            if not pid:
                return
