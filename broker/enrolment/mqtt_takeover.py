"""Ends another client's MQTT session by taking it over with a certificate in its name.

A CONNECT with the same client id makes the broker close the existing connection, with reason code 0x8E, Session taken
over (MQTT 5 section 3.1.4). With Clean Start and without Session Expiry Interval it discards the session state, too. So
the broker only has to use the name in the certificate as the client id. paho is not used, because it does not report
which TLS alert ended a handshake.
"""

import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.contract.private_keys import private_key_to_pem
from broker.errors import BrokerError
from broker.mqtt.address import BrokerAddress
from broker.mqtt.failures import connect_error
from broker.mqtt.tls import certified_name

__all__ = [
    "Takeover",
    "TakeoverError",
    "TakeoverRefused",
    "take_over",
]


# The parameters of take_over: broker, authority (PEM), certificate and its key, client id.
Takeover = Callable[[BrokerAddress, str, x509.Certificate, Ed25519PrivateKey, str], None]
_TIMEOUT_S = 5.0
_VERDICT_S = 1.0
_CONNECT, _CONNACK, _DISCONNECT = 0x10, 0x20, b"\xe0\x00"
# MQTT 5, Clean Start, Keep Alive 10 s, no properties: the session ends with the connection (section 3.1.2.11.2).
_CONNECT_HEAD = b"\x00\x04MQTT\x05\x02\x00\x0a\x00"
_REVOKED_ALERT = "ALERT_CERTIFICATE_REVOKED"


class TakeoverError(BrokerError):
    """The broker cannot be reached, or does not accept the connection."""

    code = "takeover_failed"


class TakeoverRefused(BrokerError):
    """The broker rejects the certificate because it is revoked."""

    code = "certificate_revoked"


def take_over(
    address: BrokerAddress, authority: str, certificate: x509.Certificate, key: Ed25519PrivateKey, client_id: str
) -> None:
    """End the session of `client_id`; `authority` (PEM) must have signed the broker's certificate.

    Returns when the broker has accepted the connection, which is then closed. Raises TakeoverRefused if the broker's
    revocation list has the certificate, and TakeoverError for any other failure.
    """
    try:
        context = _context(authority, certificate, key)
        with (
            socket.create_connection((address.host, address.port), timeout=_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=certified_name(address.host)) as secured,
        ):
            _await_verdict(secured)
            secured.sendall(_connect_packet(client_id))
            response = secured.recv(256)
            secured.sendall(_DISCONNECT)
    except ssl.SSLError as error:
        if (error.reason or "").endswith(_REVOKED_ALERT):
            raise TakeoverRefused("The broker rejected the certificate as revoked.") from error
        raise TakeoverError(
            f"No TLS with the broker at {address.text}: {connect_error(error, tls=True)}.",
            code="tls_handshake_failed",
        ) from error
    except OSError as error:
        raise TakeoverError(
            f"Cannot connect to the broker at {address.text}: {connect_error(error, tls=True)}.",
            code="broker_unreachable",
        ) from error
    if len(response) < 4 or response[0] != _CONNACK or response[3] != 0:
        raise TakeoverError(
            f"The broker did not accept {client_id!r}; its response was {response[:4].hex() or 'empty'}.",
            code="connect_refused",
        )


def _context(authority: str, certificate: x509.Certificate, key: Ed25519PrivateKey) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # by the rule of broker.mqtt.tls
    context.load_verify_locations(cadata=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with TemporaryDirectory(prefix="acm-") as directory:  # ssl reads keys only from files
        pair = Path(directory) / "pair.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(private_key_to_pem(key) + certificate.public_bytes(Encoding.PEM))
        context.load_cert_chain(pair)
    return context


def _await_verdict(secured: ssl.SSLSocket) -> None:
    """Return once the broker may have checked the certificate; raises ssl.SSLError if it refuses it.

    In TLS 1.3 the handshake ends for the client before that (RFC 8446 section 2). Then a packet that is sent too early
    is answered by a reset, which discards the alert. Most brokers send a session ticket when they have accepted it.
    """
    if secured.version() != "TLSv1.3":
        return
    verdict = select.poll()
    verdict.register(secured, select.POLLIN)
    verdict.poll(_VERDICT_S * 1000)
    secured.setblocking(False)
    with suppress(ssl.SSLWantReadError):  # a ticket, or nothing
        secured.recv(1)
    secured.settimeout(_TIMEOUT_S)


def _connect_packet(client_id: str) -> bytes:
    name = client_id.encode()  # at most 63 bytes, so that the remaining length is one byte
    body = _CONNECT_HEAD + len(name).to_bytes(2, "big") + name
    return bytes([_CONNECT, len(body)]) + body
