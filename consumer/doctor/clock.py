"""The clock: whether it agrees with the server, as far as this machine knows the time there."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from broker.durations import rough_duration
from broker.errors import CodedError
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok
from consumer.doctor.patient import Patient
from consumer.enrolment.client import EnrolmentClient
from consumer.ports import Clock
from consumer.store.reader import read_summary

__all__ = ["check_agents_clock"]


DIFFERS = Fault(
    "agents_clock_differs",
    Level.WARN,
    "The clock of this machine is a minute or more away from the server's.",
    "timedatectl set-ntp true (on the machine whose clock is wrong)",
)
_CHECK = "clock"
_TOLERATED = timedelta(minutes=1)
_TIMEOUT_S = 10.0


def check_agents_clock(patient: Patient, clock: Clock) -> Iterator[Finding]:
    """Compare the clock with that of the enrolment server, else with the last time that the server has signed."""
    behind = _behind(patient, clock)
    now = f"{clock.now():%Y-%m-%d %H:%M:%S} UTC"
    if behind is None:
        yield NOT_CHECKED.found(_CHECK, f"Not checked: it is {now} here, and the time of the server is not known.")
    elif abs(behind) > _TOLERATED:
        direction = "behind" if behind > timedelta() else "ahead of"
        yield DIFFERS.found(
            _CHECK, f"It is {now} here, {rough_duration(abs(behind).total_seconds())} {direction} the server's clock."
        )
    else:
        yield ok(_CHECK, f"It is {now} here, and the server agrees.")


def _behind(patient: Patient, clock: Clock) -> timedelta | None:
    """Return by how much this clock is behind the server's, negative if it is ahead; None if that is not known."""
    answered = _time_of_enrolment_server(patient, clock)
    if answered is not None:
        return answered - clock.now()
    if patient.record is not None and patient.record.clock_behind_s is not None:
        return timedelta(seconds=patient.record.clock_behind_s)
    return _since_heard(patient, clock.now())


def _time_of_enrolment_server(patient: Patient, clock: Clock) -> datetime | None:
    if patient.enrolment is None:
        return None
    end = clock.monotonic() + _TIMEOUT_S
    with suppress(CodedError):  # the check of the enrolment server reports it
        return EnrolmentClient(patient.enrolment.grant.server, clock, end, threading.Event()).ask_time(
            patient.enrolment
        )
    return None


def _since_heard(patient: Patient, now: datetime) -> timedelta | None:
    """A clock before a time that the server has signed is behind; one after it may be right."""
    with suppress(CodedError):  # the check of the store reports it
        summary = read_summary(patient.state) if patient.state is not None else None
        if summary is not None and summary.heard_time is not None:
            return max(summary.heard_time.server - now, timedelta())
    return None
