"""The checks of a doctor: each with a deadline, none hidden by another."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from broker.errors import BrokerError
from broker.system.checkup import Check, examine
from broker.system.findings import Finding, ok

LONG_S = 60.0


def sound(name: str) -> Check:
    return Check(name, lambda: [ok(name, "It is sound.")])


def codes(findings: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.code) for finding in findings]


def test_findings_are_in_the_order_of_the_checks() -> None:
    second_ran = threading.Event()

    def first() -> Iterator[Finding]:
        assert second_ran.wait(LONG_S)  # the checks run at the same time
        yield ok("first", "It waited.")

    def second() -> Iterator[Finding]:
        yield ok("second", "It ran.")
        second_ran.set()

    found = codes(examine([Check("first", first), Check("second", second)], LONG_S))
    assert found == [("first", "ok"), ("second", "ok")]


def test_check_that_hangs_is_left_behind_with_what_it_has_found() -> None:
    release = threading.Event()

    def hanging() -> Iterator[Finding]:
        yield ok("hanging", "This much is sound.")
        release.wait(LONG_S)

    found = codes(examine([sound("a"), Check("hanging", hanging), sound("b")], 0.3))
    release.set()
    assert found == [("a", "ok"), ("hanging", "ok"), ("hanging", "check_timed_out"), ("b", "ok")]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (BrokerError("The disk is on fire."), "The check could not be done: The disk is on fire."),
        (ZeroDivisionError("division by zero"), "The check ended with ZeroDivisionError: division by zero"),
    ],
)
def test_error_of_a_check_is_a_finding_and_hides_no_other(error: Exception, sentence: str) -> None:
    def broken() -> Iterator[Finding]:
        yield ok("broken", "This much is sound.")
        raise error

    first, stopped, last = examine([Check("broken", broken), sound("b")], LONG_S)
    assert (first.code, stopped.code, last.code) == ("ok", "check_stopped", "ok")
    assert stopped.found == sentence


def test_machine_without_threads_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert codes(examine([sound("a"), sound("b")], LONG_S)) == [("a", "no_thread"), ("b", "no_thread")]


def test_process_ends_while_a_check_hangs() -> None:
    script = (
        "import threading\n"
        "from broker.system.checkup import Check, examine\n"
        "check = Check('hanging', lambda: threading.Event().wait())\n"
        "print([it.code for it in examine([check], 0.1)])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['check_timed_out']\n"
