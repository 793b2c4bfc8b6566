"""What the broker really refuses: strangers, revoked certificates, and the topics of others.

Everything that must be refused is tried, by a client whose name no agent and no server can have. A message that is not
refused reaches only clients that subscribe to everything; the server logs it as `unknown_topic`.
"""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.app.config import ServerConfig
from broker.app.credentials import open_authority
from broker.contract.topics import Channel
from broker.enrolment.mqtt_takeover import context_of
from broker.errors import BrokerError
from broker.mqtt.address import BrokerAddress, parse_url
from broker.mqtt.failures import connect_error
from broker.mqtt.probe import ClosedByBroker, Probe, connected_socket
from broker.pki.authority import CertificateAuthority, crl_path
from broker.pki.authority_files import CA_CERTIFICATE
from broker.pki.certificates import DOCTOR, Issuer, authority_certificate, doctor_certificate
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok
from broker.web.addresses import is_loopback

__all__ = [
    "check_access",
]


OPEN = Fault(
    "broker_open",
    Level.WARN,
    "The broker of this machine accepts every client, without a certificate or password: for trials only.",
    "Set up a secured broker: acm ca init, acm broker config (docs/operations.md)",
)
STRANGERS = Fault(
    "broker_accepts_strangers",
    Level.FAIL,
    "The broker accepts clients that have no certificate of the authority, and no password.",
    "In mosquitto.conf: require_certificate true, allow_anonymous false, cafile ca.crt; then restart the broker.",
)
AGENTS_REFUSED = Fault(
    "agents_refused",
    Level.FAIL,
    "The broker refuses a client with a valid certificate of the authority, so it refuses all agents.",
    "Make the broker load ca.crt and crl.pem again (systemctl reload mosquitto); if the list has expired: acm ca crl",
)
WRITES = Fault(
    "acl_lets_agents_write",
    Level.FAIL,
    "The broker lets an agent publish on topics of the server or of other agents.",
    "In mosquitto.conf: acl_file with the file `acl` that `acm broker config` writes; then restart the broker.",
)
READS = Fault(
    "acl_lets_agents_read",
    Level.FAIL,
    "The broker delivers messages of other agents, or its own, to an agent.",
    "In mosquitto.conf: acl_file with the file `acl` that `acm broker config` writes; then restart the broker.",
)
REVOKED_ACCEPTED = Fault(
    "revoked_accepted",
    Level.FAIL,
    "The broker accepts a certificate that is on the revocation list.",
    "Make the broker load the list again (systemctl reload mosquitto); mosquitto.conf needs crlfile.",
)
_CHECK, _REVOCATION = "acl", "revocation"
_OTHER = f"{DOCTOR}-other"  # a name that no agent has, either
_REFUSED = 0x80  # the first reason code of a failure (MQTT 5 section 2.4)
_OF_THE_SERVER = (Channel.COMMAND, Channel.CONTROL, Channel.ACK, Channel.BLOB_CHUNK)
_LIFETIME = timedelta(minutes=10)
_TIMEOUT_S = 5.0


def check_access(config: ServerConfig, now: datetime) -> Iterator[Finding]:
    """Try what must be refused with what this machine has; the rest is `not_checked`."""
    address = _address_of_agents(config)
    try:
        yield from _Access(config, address, now).findings() if address.tls else _without_tls(address)
    except OSError as error:
        reason = connect_error(error, tls=address.tls)
        yield NOT_CHECKED.found(_CHECK, f"Not checked: no connection to the broker at {address.text}: {reason}.")


def _address_of_agents(config: ServerConfig) -> BrokerAddress:
    """Return the address at which this machine reaches what agents connect to."""
    own = parse_url(config.broker)
    given = parse_url(config.enroll_broker) if config.enroll_broker else own
    return given if given.tls and not own.tls else own


def _without_tls(address: BrokerAddress) -> Iterator[Finding]:
    with connected_socket(address, None, _TIMEOUT_S) as plain:
        is_open = _accepts(Probe(plain))
    if is_open:
        fault = STRANGERS if address.username or not is_loopback(address.host) else OPEN
        yield fault.found(_CHECK, f"The broker at {address.text} accepts a client without certificate and password.")
    else:
        yield ok(_CHECK, f"The broker at {address.text} refuses a client without a password.")
    yield NOT_CHECKED.found(_CHECK, "Not checked: the topics of agents, since the broker has no TLS.")


def _accepts(probe: Probe) -> bool:
    try:
        code = probe.connect(DOCTOR)
        if code == 0:
            probe.disconnect()
    except ClosedByBroker:
        return False
    return code == 0


class _Access:
    """The trials at a broker with TLS. Its methods raise OSError if the broker cannot be reached, or is not trusted."""

    def __init__(self, config: ServerConfig, address: BrokerAddress, now: datetime) -> None:
        self._config = config
        self._address = address
        self._now = now
        self._prefix = config.topic_prefix

    def findings(self) -> Iterator[Finding]:
        """Try it as a stranger, then as an agent, then with a revoked certificate."""
        try:
            self._anonymous()
        except OSError as error:
            reason = error.strerror or "it has no certificate in PEM"
            yield NOT_CHECKED.found(_CHECK, f"Not checked: {self._authorities()} cannot be read: {reason}.")
            return
        yield from self._as_strangers()
        try:
            authority = open_authority(self._config)
        except BrokerError as error:
            yield NOT_CHECKED.found(_CHECK, f"Not checked: the topics of agents, and revoked certificates: {error}")
            return
        yield from self._as_agent(authority)

    def _as_strangers(self) -> Iterator[Finding]:
        strangers = {"without a certificate": self._anonymous(), "with one of another authority": self._foreign()}
        accepted = [name for name, context in strangers.items() if self._is_accepted(context)]
        for name in accepted:
            yield STRANGERS.found(_CHECK, f"The broker at {self._address.text} accepts a client {name}.")
        if not accepted:
            yield ok(_CHECK, f"The broker refuses a client {' and a client '.join(strangers)}.")

    def _as_agent(self, authority: CertificateAuthority) -> Iterator[Finding]:
        context = self._context(authority)
        try:
            with self._connected(context):
                pass
        except ssl.SSLCertVerificationError:
            raise
        except (ssl.SSLError, ClosedByBroker, ConnectionResetError, BrokenPipeError) as error:
            reason = connect_error(error, tls=True)
            yield AGENTS_REFUSED.found(_CHECK, f"The broker refuses a new certificate of the authority: {reason}.")
            return
        yield from self._writing(context)
        yield from self._reading(context)
        yield from self._revoked(authority)

    def _writing(self, context: ssl.SSLContext) -> Iterator[Finding]:
        others = [f"{self._prefix}/{_OTHER}/{channel}" for channel in Channel]
        topics = [*others, *(f"{self._prefix}/{DOCTOR}/{channel}" for channel in _OF_THE_SERVER)]
        allowed = list(self._allowed(context, topics))
        if allowed:
            yield WRITES.found(_CHECK, f"An agent may publish on {', '.join(allowed)}.")
        else:
            yield ok(_CHECK, "The broker refuses what an agent publishes on topics of the server and of other agents.")

    def _allowed(self, context: ssl.SSLContext, topics: Sequence[str]) -> Iterator[str]:
        """Yield those of the topics on which a client may publish."""
        left = list(topics)
        while left:
            with self._connected(context) as probe, suppress(ClosedByBroker):  # which refuses the message, too
                while left:
                    topic = left.pop(0)
                    if probe.publish(topic) < _REFUSED:
                        yield topic

    def _reading(self, context: ssl.SSLContext) -> Iterator[Finding]:
        with self._connected(context) as probe, suppress(ClosedByBroker):  # that refuses it, too
            probe.subscribe([f"{self._prefix}/#", "$SYS/#"])
        foreign = sorted({topic for topic in probe.received if not topic.startswith(f"{self._prefix}/{DOCTOR}/")})
        if foreign:
            shown = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
            yield READS.found(_CHECK, f"An agent receives the messages on {shown}.")
        else:
            yield ok(_CHECK, f"The broker delivers no message of others that it has kept ({self._prefix}/#, $SYS/#).")

    def _revoked(self, authority: CertificateAuthority) -> Iterator[Finding]:
        """Connect with a certificate that has the serial number of a revoked one: the list knows nothing else of it."""
        path = Path(self._config.crl) if self._config.crl else crl_path(Path(self._config.ca))
        listed = authority.read_revocation_list(path)
        if listed is None or not listed.entries:
            yield ok(_REVOCATION, "Nothing is on the revocation list yet, so whether the broker uses it was not tried.")
            return
        newest = max(listed.entries, key=lambda entry: entry.revoked_at)
        if self._is_accepted(self._context(authority, newest.serial)):
            when = f"{newest.revoked_at:%Y-%m-%d %H:%M} UTC"
            yield REVOKED_ACCEPTED.found(_REVOCATION, f"The broker accepts the certificate that was revoked at {when}.")
        else:
            yield ok(_REVOCATION, "The broker refuses the certificate that was revoked last.")

    def _is_accepted(self, context: ssl.SSLContext) -> bool:
        try:
            with self._connected(context):
                return True
        except ssl.SSLCertVerificationError:
            raise
        except (ssl.SSLError, ClosedByBroker, ConnectionResetError, BrokenPipeError):
            return False

    @contextmanager
    def _connected(self, context: ssl.SSLContext) -> Iterator[Probe]:
        """Connect in MQTT for a block; raises ClosedByBroker if the broker refuses the client there."""
        with connected_socket(self._address, context, _TIMEOUT_S) as secured:
            probe = Probe(secured)
            code = probe.connect(DOCTOR)
            if code:
                raise ClosedByBroker(f"it answered with the reason code 0x{code:02X}")
            yield probe
            with suppress(OSError):  # it is closed already
                probe.disconnect()

    def _anonymous(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=self._trusted())
        return context

    def _foreign(self) -> ssl.SSLContext:
        key, own = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        stranger = Issuer(authority_certificate(DOCTOR, key, self._now), key)
        return context_of(self._trusted(), doctor_certificate(stranger, own.public_key(), self._now, _LIFETIME), own)

    def _context(self, authority: CertificateAuthority, serial: int | None = None) -> ssl.SSLContext:
        key = Ed25519PrivateKey.generate()
        return context_of(self._trusted(), authority.issue_for_doctor(key.public_key(), _LIFETIME, serial), key)

    def _trusted(self) -> str:
        """Return the authorities (PEM) of which the broker's certificate must be."""
        return self._authorities().read_text(encoding="ascii", errors="replace")

    def _authorities(self) -> Path:
        files = self._config.broker_tls
        return files.ca if files is not None else Path(self._config.ca) / CA_CERTIFICATE
