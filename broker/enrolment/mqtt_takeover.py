"""Ends another client's MQTT session by taking it over, under a certificate in its name.

A second CONNECT with the same client id ends the first connection (MQTT 5 section 3.1.4), and one with clean start and
without an expiry takes the session with it. So it needs nothing of the broker but that the name in a certificate is the
client id. Not done with paho, which does not say what alert a failed handshake ended in.
"""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.contract.private_keys import private_key_to_pem
from broker.errors import BrokerError
from broker.mqtt.address import BrokerAddress

__all__ = [
    "TakeOver",
    "TakeoverError",
    "TakeoverRefused",
    "take_over",
]


# Broker, authority (PEM), certificate and its key, client id: as take_over.
TakeOver = Callable[[BrokerAddress, str, x509.Certificate, Ed25519PrivateKey, str], None]
_TIMEOUT_S = 5.0
_CONNECT, _CONNACK, _DISCONNECT = 0x10, 0x20, b"\xe0\x00"
# MQTT 5, clean start, keep alive of 10 s, no properties: the session expires with the connection (section 3.1.2.11.2).
_CONNECT_HEAD = b"\x00\x04MQTT\x05\x02\x00\x0a\x00"
_REVOKED_ALERT = "ALERT_CERTIFICATE_REVOKED"


class TakeoverError(BrokerError):
    """The broker was not reached, or answered otherwise than expected."""


class TakeoverRefused(BrokerError):
    """The broker takes the certificate for a revoked one."""


def take_over(
    address: BrokerAddress, authority: str, certificate: x509.Certificate, key: Ed25519PrivateKey, client_id: str
) -> None:
    """End the session of `client_id`; `authority` (PEM) must have signed the broker's certificate.

    Returns when the broker has accepted the connection, which is given up at once. Raises TakeoverRefused when the
    broker's revocation list names the certificate, TakeoverError for all else.
    """
    try:
        context = _context(authority, certificate, key)
        with (
            socket.create_connection((address.host, address.port), timeout=_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as secured,
        ):
            secured.sendall(_connect_packet(client_id))
            answer = secured.recv(256)
            secured.sendall(_DISCONNECT)
    except ssl.SSLError as error:
        if (error.reason or "").endswith(_REVOKED_ALERT):
            raise TakeoverRefused("The broker refuses the certificate as revoked.") from error
        raise TakeoverError(f"No TLS with the broker at {address.host}:{address.port}: {error.reason}.") from error
    except OSError as error:
        reason = error.strerror or error
        raise TakeoverError(f"No connection to the broker at {address.host}:{address.port}: {reason}.") from error
    if len(answer) < 4 or answer[0] != _CONNACK or answer[3] != 0:
        raise TakeoverError(f"The broker did not accept {client_id!r}: it answered {answer[:4].hex() or 'nothing'}.")


def _context(authority: str, certificate: x509.Certificate, key: Ed25519PrivateKey) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    # In TLS 1.3 a client is done before the broker has judged its certificate, and may miss the alert.
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with TemporaryDirectory(prefix="acm-") as directory:  # ssl reads a key from a file only
        pair = Path(directory) / "pair.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(private_key_to_pem(key) + certificate.public_bytes(Encoding.PEM))
        context.load_cert_chain(pair)
    return context


def _connect_packet(client_id: str) -> bytes:
    name = client_id.encode()  # at most 63 bytes, so that the length of the packet takes one byte
    body = _CONNECT_HEAD + len(name).to_bytes(2, "big") + name
    return bytes([_CONNECT, len(body)]) + body
