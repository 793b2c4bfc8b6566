"""The broker: whether it answers in MQTT 5, and whether it and the agent accept each other's certificates.

The question does not begin a session, and ends none: a client in the agent's name would take over that of the agent.
"""

import shlex
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta

from cryptography import x509

from broker.errors import CodedError
from broker.mqtt.address import BrokerAddress, MqttError, TlsFiles, parse_url
from broker.mqtt.failures import NO_ANSWER, connect_error
from broker.mqtt.probe import ClosedByBroker, Probe, connected_socket
from broker.mqtt.tls import client_context
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok
from consumer.doctor.certificates import validity
from consumer.doctor.patient import Patient

__all__ = ["check_agents_broker"]


UNREACHABLE = Fault(
    "agents_broker_unreachable",
    Level.FAIL,
    "No MQTT broker answers at the address that the agent uses.",
    "Start the broker, or open the way to it: `nc -vz HOST PORT` tries it. A broker with another address needs a new "
    "enrolment (or `broker` in the configuration of an agent without one).",
)
NOT_MQTT5 = Fault(
    "agents_broker_not_mqtt5",
    Level.FAIL,
    "Something answers at the address of the broker, but not in MQTT 5.",
    "Correct the port, or use a broker with MQTT 5 (docs/brokers.md); mqtts:// is for TLS, mqtt:// for a port without.",
)
NOT_TRUSTED = Fault(
    "agents_broker_not_trusted",
    Level.FAIL,
    "The agent does not accept the broker's certificate: its authority, its host name or its time.",
    "acm broker config --out DIR --host HOST (at the server), then reload the broker; or correct this machine's clock.",
)
REFUSED = Fault(
    "agent_refused_by_broker",
    Level.FAIL,
    "The broker does not accept the agent's certificate in the TLS handshake.",
    "At the server: `acm enrolment list --agent NAME` shows whether it was revoked, and `acm ca crl` renews an expired "
    "list; otherwise enroll again with a new token.",
)
FILES = Fault(
    "agent_tls_files_unusable",
    Level.FAIL,
    "The key or the certificates of the enrolment cannot be used for TLS.",
    "Remove `enrolment` in the state directory, and enroll again with a new token.",
)
ENDS_SOON = Fault(
    "agents_broker_certificate_ends_soon",
    Level.WARN,
    "The broker's certificate ends within 30 days; then no agent accepts it.",
    "Start `acm enroll-server` at the server, which renews it, or run `acm broker config --out DIR` there.",
)
WITHOUT_TLS = Fault(
    "agent_without_tls",
    Level.WARN,
    "The connection to the broker has no TLS: for trials only.",
    "Enroll the agent with a secured broker (docs/operations.md).",
)
_BROKER, _TLS = "broker", "tls"
_TIMEOUT_S = 5.0
_WARN_BEFORE = timedelta(days=30)
# The reason codes of a CONNACK of MQTT 3.1.1 (section 3.2.2.3), and that of MQTT 5 for a version that is not supported.
_OLDER_MQTT = {1, 2, 3, 4, 5, 0x84}


def check_agents_broker(patient: Patient, now: datetime) -> Iterator[Finding]:
    """Connect as the agent does, and ask for a connection that no broker grants."""
    url = patient.broker
    if url is None:
        yield NOT_CHECKED.found(_BROKER, "Not checked: no broker is configured, and no enrolment names one.")
        return
    try:
        address = parse_url(url)
        files = patient.enrolment.tls if patient.enrolment is not None else None
        context = client_context(files) if address.tls else None
    except MqttError as error:
        yield FILES.found(_TLS, str(error))
        return
    except CodedError as error:  # a key that others can read: see the permissions
        yield NOT_CHECKED.found(_TLS, f"Not checked: {error}")
        return
    yield from _ask(patient, address, context, files, now)


def _ask(
    patient: Patient, address: BrokerAddress, context: ssl.SSLContext | None, files: TlsFiles | None, now: datetime
) -> Iterator[Finding]:
    try:
        with connected_socket(address, context, _TIMEOUT_S) as connection:
            _greet(Probe(connection))
            certificate = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
    except OSError as error:
        yield _failure(patient, address, error)
        return
    yield ok(_BROKER, f"The broker at {address.text} answers in MQTT 5.")
    if certificate is None:
        yield WITHOUT_TLS.found(_TLS, f"The connection to the broker at {address.text} has no TLS.")
        return
    found = x509.load_der_x509_certificate(certificate)
    both = (
        "The broker and the agent accept each other's certificates" if files else "The broker's certificate is trusted"
    )
    is_near = found.not_valid_after_utc - now <= _WARN_BEFORE
    yield (ENDS_SOON.found if is_near else ok)(_TLS, f"{both}; the broker's {validity(found, now)}.")


def _greet(probe: Probe) -> None:
    try:
        code = probe.greet()
    except TimeoutError as error:
        raise ClosedByBroker(NO_ANSWER) from error
    if code in _OLDER_MQTT:
        raise ClosedByBroker("it speaks an older MQTT")


def _failure(patient: Patient, address: BrokerAddress, error: OSError) -> Finding:
    sentence = f"No connection to {address.text}: {connect_error(error, tls=address.tls)}."
    if isinstance(error, ssl.SSLCertVerificationError):
        host = shlex.quote(address.host)
        fix = (
            f"acm broker config --out DIR --host {host} (at the server), then reload the broker; or correct this clock"
        )
        return NOT_TRUSTED.found(_TLS, sentence, fix=fix)
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        agent = patient.enrolment.grant.agent if patient.enrolment is not None else "NAME"
        fix = f"At the server: acm enrolment list --agent {agent} (was it revoked?), acm ca crl (has the list expired?)"
        return REFUSED.found(_TLS, sentence, fix=f"{fix}; otherwise enroll again with a new token")
    is_other_service = isinstance(error, ClosedByBroker | ssl.SSLError | ConnectionResetError)
    if is_other_service or (isinstance(error, TimeoutError) and "handshake" in str(error)):
        return NOT_MQTT5.found(_BROKER, sentence)
    return UNREACHABLE.found(_BROKER, sentence, fix=f"Start the broker, or open the way to it: {_try(address)}")


def _try(address: BrokerAddress) -> str:
    return shlex.join(["nc", "-vz", address.host, str(address.port)])
