"""Runs the checks of a doctor at once, each in a thread with a deadline, so that none hangs or hides the others."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from time import monotonic

from broker.errors import CodedError
from broker.system.findings import Fault, Finding, Level
from broker.system.threads import start_thread

__all__ = [
    "TIMED_OUT",
    "Check",
    "examine",
]


TIMED_OUT = Fault(
    "check_timed_out",
    Level.FAIL,
    "A check was not done within its deadline: what it asks hangs, or is very slow.",
    "Find out why it does not answer, starting with the first FAIL above; then run the doctor again.",
)
STOPPED = Fault(
    "check_stopped",
    Level.FAIL,
    "A check ended with an error that it does not know; the sentence has it.",
    "Remove the cause if the sentence names one, then run the doctor again; else report it as a fault of the doctor.",
)
NO_THREAD = Fault(
    "no_thread",
    Level.FAIL,
    "The machine has no thread for a check.",
    "Raise the limit of processes and threads of this user (`ulimit -u`) or of the service (`TasksMax`).",
)


@dataclass(frozen=True)
class Check:
    """A named check; `run` yields its findings, each as soon as it is known. It changes nothing."""

    name: str
    run: Callable[[], Iterable[Finding]]


def examine(checks: Iterable[Check], limit_s: float) -> Iterator[Finding]:
    """Run all checks at once, and yield their findings in the order of the checks.

    One that has not ended `limit_s` seconds after the start is left behind in its thread, which does not keep the
    process from ending; what it has found so far is yielded, and that it hangs.
    """
    end = monotonic() + limit_s
    for running in [_Running.started(check) for check in checks]:
        yield from running.findings(end, limit_s)


@dataclass
class _Running:
    check: Check
    found: SimpleQueue[Finding] = field(default_factory=SimpleQueue)
    ended: Event = field(default_factory=Event)

    @classmethod
    def started(cls, check: Check) -> "_Running":
        running = cls(check)
        if start_thread(running._run, f"check-{check.name}") is None:
            running.found.put(NO_THREAD.found(check.name, "The machine has no thread for this check now."))
            running.ended.set()
        return running

    def findings(self, end: float, limit_s: float) -> Iterator[Finding]:
        in_time = self.ended.wait(max(0.0, end - monotonic()))
        while not self.found.empty():
            yield self.found.get()
        if not in_time:
            yield TIMED_OUT.found(self.check.name, f"The check was not done after {limit_s:g} s.")

    def _run(self) -> None:
        try:
            for finding in self.check.run():
                self.found.put(finding)
        except CodedError as error:
            self.found.put(STOPPED.found(self.check.name, f"The check could not be done: {error}"))
        except Exception as error:  # the thread's end: whatever it is, the user reads it as a finding
            self.found.put(STOPPED.found(self.check.name, f"The check ended with {type(error).__name__}: {error}"))
        finally:
            self.ended.set()
