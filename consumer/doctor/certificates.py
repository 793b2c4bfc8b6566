"""The agent's certificate, and those of the authorities that it trusts: how long each is still valid."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from broker.durations import rough_duration
from broker.system.findings import Fault, Finding, Level, ok
from consumer.doctor.patient import Patient
from consumer.enrolment.store import Enrolment

__all__ = ["check_agent_certificates", "validity"]


EXPIRED = Fault(
    "agent_certificate_expired",
    Level.FAIL,
    "The agent's certificate has expired: no broker accepts it.",
    "Start the agent: it asks the enrolment server to renew it. If that refuses, enroll again with a new token.",
)
NOT_YET = Fault(
    "agent_certificate_not_yet_valid",
    Level.FAIL,
    "The agent's certificate is not valid yet by the clock of this machine.",
    "timedatectl set-ntp true (the clock is behind), then run the doctor again",
)
NOT_RENEWED = Fault(
    "agent_certificate_not_renewed",
    Level.WARN,
    "Two thirds of the certificate's lifetime are over, and it was not renewed.",
    "Start the agent, which renews it; if it runs, its last errors say why not: acm-agent status --state DIR",
)
UNREADABLE = Fault(
    "agent_certificate_unreadable",
    Level.FAIL,
    "A certificate of the enrolment is missing, damaged, or in another agent's name.",
    "Remove `enrolment` in the state directory, and enroll again with a new token.",
)
AUTHORITY_EXPIRED = Fault(
    "trusted_authority_expired",
    Level.FAIL,
    "All authorities that the agent trusts have expired, so it trusts no broker.",
    "Replace the authority (docs/operations.md), and enroll the agent again with a new token.",
)
AUTHORITY_ENDS = Fault(
    "trusted_authority_ends_soon",
    Level.WARN,
    "The authority that the agent trusts ends within a year, and the agent knows no successor.",
    "acm ca rollover begin (on the machine of the authority)",
)
_CHECK = "certificates"
_WARN_BEFORE_OF_AUTHORITY = timedelta(days=365)


def check_agent_certificates(patient: Patient, now: datetime) -> Iterator[Finding]:
    """Read the certificates of the current enrolment."""
    enrolment = patient.enrolment
    if enrolment is None:
        return
    try:
        own = _read(enrolment.directory / "certificate.pem")[0]
        authorities = _read(enrolment.directory / "ca.pem")
    except _Unreadable as error:
        yield UNREADABLE.found(_CHECK, str(error))
        return
    yield _own(enrolment, own, now, patient)
    yield _authorities(authorities, now)


def validity(certificate: x509.Certificate, now: datetime) -> str:
    """Return until when a certificate is valid, and how long that still is, as the end of a sentence."""
    end = certificate.not_valid_after_utc
    left = (end - now).total_seconds()
    if left <= 0:
        return f"has expired {rough_duration(-left)} ago, at {end:%Y-%m-%d %H:%M} UTC"
    return f"is valid for {rough_duration(left)}, until {end:%Y-%m-%d %H:%M} UTC"


class _Unreadable(Exception):
    """A file has no certificate; the text is the sentence for the user."""


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise _Unreadable(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise _Unreadable(f"{path} has no certificate in PEM.") from error


def _own(enrolment: Enrolment, certificate: x509.Certificate, now: datetime, patient: Patient) -> Finding:
    agent, name = enrolment.grant.agent, _name(certificate)
    if name != agent:
        return UNREADABLE.found(_CHECK, f"The certificate of {agent} is in the name {name}.")
    sentence = f"The certificate of {agent} {validity(certificate, now)}"
    if now >= certificate.not_valid_after_utc:
        return EXPIRED.found(_CHECK, f"{sentence}.")
    if now < certificate.not_valid_before_utc:
        return NOT_YET.found(
            _CHECK,
            f"The certificate of {agent} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, but "
            f"the clock of this machine is at {now:%Y-%m-%d %H:%M} UTC.",
        )
    renewal = f"{enrolment.grant.renew_at:%Y-%m-%d %H:%M} UTC"
    if now >= enrolment.grant.renew_at:
        fix = f"Start the agent, which renews it; if it runs, its last errors say why not: {patient.command('status')}"
        return NOT_RENEWED.found(_CHECK, f"{sentence}; it was to be renewed at {renewal}.", fix=fix)
    return ok(_CHECK, f"{sentence}; it is renewed from {renewal} on.")


def _name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _authorities(certificates: list[x509.Certificate], now: datetime) -> Finding:
    """The authority that ends last counts: during a rollover, an agent trusts the old one and its successor."""
    last = max(certificates, key=lambda certificate: certificate.not_valid_after_utc)
    left = last.not_valid_after_utc - now
    sentence = f"The authority that the agent trusts {validity(last, now)}."
    if left <= timedelta():
        return AUTHORITY_EXPIRED.found(_CHECK, sentence)
    return (AUTHORITY_ENDS.found if left <= _WARN_BEFORE_OF_AUTHORITY else ok)(_CHECK, sentence)
