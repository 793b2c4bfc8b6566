"""The broker: whether it can be reached, and whether it and this machine's server accept each other's certificates."""

import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from broker.app.config import ServerConfig
from broker.app.credentials import BROKER_PEM
from broker.doctor.days import shown_days
from broker.mqtt.address import BrokerAddress, MqttError, parse_url
from broker.mqtt.failures import connect_error
from broker.mqtt.probe import ClosedByBroker, Probe, connected_socket
from broker.mqtt.tls import client_context
from broker.pki.server_certificates import CertificateFile
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok

__all__ = [
    "check_broker",
]


UNREACHABLE = Fault(
    "broker_unreachable",
    Level.FAIL,
    "No MQTT broker answers at the configured address.",
    "Start the broker (systemctl start mosquitto, or acm broker run), or correct `broker` in the configuration.",
)
NOT_MQTT5 = Fault(
    "broker_not_mqtt5",
    Level.FAIL,
    "Something answers at the address of the broker, but not in MQTT 5.",
    "Correct the port in `broker`, or use a broker with MQTT 5 (docs/brokers.md).",
)
NOT_TRUSTED = Fault(
    "broker_not_trusted",
    Level.FAIL,
    "The server does not accept the broker's certificate: its authority, its host name or its time.",
    "Compare `broker_ca` and the host in `broker` with the broker's certificate; `acm broker config --host HOST` "
    "makes one for other hosts.",
)
SERVER_REFUSED = Fault(
    "server_certificate_refused",
    Level.FAIL,
    "The broker does not accept the server's certificate in the TLS handshake.",
    "Make the broker load ca.crt and crl.pem again (systemctl reload mosquitto); if the list has expired: acm ca crl",
)
TLS_FILES = Fault(
    "tls_files_unusable",
    Level.FAIL,
    "The TLS files of the server cannot be used.",
    "acm broker config --out DIR (DIR has the files), or correct broker_ca, broker_certificate and broker_key",
)
OTHER_HOST = Fault(
    "certificate_for_other_host",
    Level.FAIL,
    "The broker's certificate is not for the host that agents are given (`enroll_broker`), so they will not connect.",
    "acm broker config --out DIR --host HOST, then reload the broker",
)
NOT_LOADED = Fault(
    "certificate_not_loaded",
    Level.WARN,
    "The broker still uses an older certificate than the one in its file.",
    "systemctl reload mosquitto (or send HUP to the broker)",
)
WITHOUT_TLS = Fault(
    "broker_without_tls",
    Level.WARN,
    "The connection to the broker has no TLS: for trials on one machine only.",
    "Set up a secured broker: acm ca init, acm broker config (docs/operations.md)",
)
_BROKER, _TLS = "broker", "tls"
_TIMEOUT_S = 5.0


def check_broker(config: ServerConfig, now: datetime) -> Iterator[Finding]:
    """Connect as the server does, but in MQTT only so that no session begins, and that of a running server stays."""
    # design.md: "A doctor changes nothing, and is never the server's client"
    address = parse_url(config.broker)
    if not address.tls:
        yield from _without_tls(address)
        return
    try:
        context = client_context(config.broker_tls)
    except MqttError as error:
        yield TLS_FILES.found(_TLS, str(error))
        return
    try:
        with connected_socket(address, context, _TIMEOUT_S) as secured:
            assert isinstance(secured, ssl.SSLSocket)
            der = secured.getpeercert(binary_form=True)
            Probe(secured).greet()
    except OSError as error:
        yield _failure(address, error)
        return
    yield ok(_BROKER, f"The broker at {address.text} answers in MQTT 5.")
    assert der is not None
    yield from _both_ways(config, x509.load_der_x509_certificate(der), now)
    yield from _for_agents(config, address, context)


def _without_tls(address: BrokerAddress) -> Iterator[Finding]:
    try:
        with connected_socket(address, None, _TIMEOUT_S) as plain:
            Probe(plain).greet()
    except OSError as error:
        yield _failure(address, error)
        return
    yield ok(_BROKER, f"The broker at {address.text} answers in MQTT 5.")
    yield WITHOUT_TLS.found(_TLS, f"The connection to the broker at {address.text} has no TLS.")


def _failure(address: BrokerAddress, error: OSError) -> Finding:
    reason = f"No connection to {address.text}: {connect_error(error, tls=address.tls)}."
    if isinstance(error, ssl.SSLCertVerificationError):
        return NOT_TRUSTED.found(_TLS, reason)
    if isinstance(error, ClosedByBroker):
        return NOT_MQTT5.found(_BROKER, f"{address.text} does not answer in MQTT 5: {error}.")
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return SERVER_REFUSED.found(_TLS, reason)
    return UNREACHABLE.found(_BROKER, reason)


def _both_ways(config: ServerConfig, served: x509.Certificate, now: datetime) -> Iterator[Finding]:
    end = served.not_valid_after_utc
    days = shown_days((end - now) / timedelta(days=1))
    files = config.broker_tls
    accepted = ", and it accepts the server's" if files is not None else ""
    yield ok(_TLS, f"The broker's certificate is trusted and valid {days}{accepted}.")
    if files is None:
        yield NOT_CHECKED.found(_TLS, "Not checked: the server's own certificate, since none is configured.")
        return
    path = files.ca.with_name(BROKER_PEM)
    in_file = CertificateFile(path, path).read()
    if in_file is not None and in_file.serial_number != served.serial_number and in_file.not_valid_after_utc >= end:
        yield NOT_LOADED.found(_TLS, f"The broker uses another certificate than {path} has, valid {days}.")


def _for_agents(config: ServerConfig, address: BrokerAddress, context: ssl.SSLContext) -> Iterator[Finding]:
    """Compare the certificate with the host that agents connect to, which this machine may be unable to reach."""
    given = parse_url(config.enroll_broker) if config.enroll_broker else None
    if given is None or given.host == address.host or given.port != address.port:
        return
    try:
        with connected_socket(address, context, _TIMEOUT_S, host=given.host):
            yield ok(_TLS, f"The broker's certificate is for {given.host}, too, which agents are given.")
    except ssl.SSLCertVerificationError as error:
        fix = f"acm broker config --out {_directory(config)} --host {given.host}, then reload the broker"
        yield OTHER_HOST.found(_TLS, f"For {given.host}, {connect_error(error, tls=True)}.", fix=fix)


def _directory(config: ServerConfig) -> Path | str:
    return config.broker_tls.ca.parent if config.broker_tls is not None else "DIR"
