"""The enrolment: whether there is one, and whether its server answers, which renews the certificate."""

import threading
from collections.abc import Iterator

from broker.errors import CodedError
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok
from consumer.doctor.patient import Patient
from consumer.enrolment.client import EnrolmentClient
from consumer.errors import EnrolmentError
from consumer.ports import Clock

__all__ = ["check_agent_enrolment", "check_enrolment_server"]


NOT_ENROLLED = Fault(
    "agent_not_enrolled",
    Level.FAIL,
    "The agent is not enrolled, so it would reject every command, and does not start.",
    "acm-agent enroll --server https://HOST:8443 --token - --agent NAME --state DIR < TOKEN",
)
UNSIGNED = Fault(
    "agent_accepts_unsigned",
    Level.WARN,
    "The agent runs unsigned commands, from every client of the broker: for trials only.",
    "Enroll the agent, and remove accept_unsigned (--accept-unsigned, ACM_ACCEPT_UNSIGNED).",
)
UNREADABLE = Fault(
    "agent_enrolment_unreadable",
    Level.FAIL,
    "The enrolment on the disk cannot be read.",
    "If its files are damaged, remove `enrolment` in the state directory, and enroll again with a new token.",
)
SERVER_AWAY = Fault(
    "enrolment_server_unreachable",
    Level.WARN,
    "The enrolment server does not answer, or is not trusted, so the certificate cannot be renewed.",
    "Start `acm enroll-server` at the address that the sentence names; check proxies (https_proxy) and firewalls.",
)
_CHECK, _SERVER = "enrolment", "enrolment server"
_TIMEOUT_S = 10.0


def check_agent_enrolment(patient: Patient) -> Iterator[Finding]:
    """Report the current enrolment, or why there is none."""
    enrolment, error = patient.enrolment, patient.enrolment_error
    if error is not None:
        yield UNREADABLE.found(_CHECK, str(error))
    elif enrolment is not None:
        grant = enrolment.grant
        yield ok(_CHECK, f"{grant.agent} is enrolled at {grant.server}, for the broker {grant.broker}.")
    elif not patient.accepts_unsigned:
        yield NOT_ENROLLED.found(_CHECK, _missing(patient), fix=_enroll(patient))
    if patient.accepts_unsigned:
        yield UNSIGNED.found(_CHECK, "The agent runs unsigned commands, from every client of the broker.")


def _missing(patient: Patient) -> str:
    return f"The agent{f' of {patient.state}' if patient.state else ''} is not enrolled."


def _enroll(patient: Patient) -> str:
    name = patient.config.agent if patient.config is not None else "NAME"
    return patient.command("enroll", "--server", "https://HOST:8443", "--token", "-", "--agent", name) + " < TOKEN"


def check_enrolment_server(patient: Patient, clock: Clock) -> Iterator[Finding]:
    """Ask the enrolment server for an answer, trusting the same authority as a renewal."""
    enrolment = patient.enrolment
    if enrolment is None:
        return
    server = enrolment.grant.server
    try:
        EnrolmentClient(server, clock, clock.monotonic() + _TIMEOUT_S, threading.Event()).ask_time(enrolment)
    except EnrolmentError as error:
        yield SERVER_AWAY.found(_SERVER, str(error))
    except CodedError as error:
        yield NOT_CHECKED.found(_SERVER, f"Not checked: {error}")
    else:
        yield ok(_SERVER, f"The enrolment server {server} answers, and is trusted.")
