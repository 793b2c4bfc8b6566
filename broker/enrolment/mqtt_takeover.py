"""Ends another client's MQTT session by taking it over with a certificate in its name.

A CONNECT with the same client id makes the broker close the existing connection, with reason code 0x8E, Session taken
over (MQTT 5 section 3.1.4). With Clean Start and without Session Expiry Interval it discards the session state, too. So
the broker only has to use the name in the certificate as the client id.
"""

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
from broker.mqtt.failures import connect_error
from broker.mqtt.probe import Probe, connected_socket

__all__ = [
    "Takeover",
    "TakeoverError",
    "TakeoverRefused",
    "context_of",
    "take_over",
]


# The parameters of take_over: broker, authority (PEM), certificate and its key, client id.
Takeover = Callable[[BrokerAddress, str, x509.Certificate, Ed25519PrivateKey, str], None]
_TIMEOUT_S = 5.0
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
        context = context_of(authority, certificate, key)
        with connected_socket(address, context, _TIMEOUT_S) as secured:
            probe = Probe(secured)
            code = probe.connect(client_id)
            probe.disconnect()
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
    if code:
        raise TakeoverError(
            f"The broker did not accept {client_id!r}; its response was the reason code 0x{code:02X}.",
            code="connect_refused",
        )


def context_of(authority: str, certificate: x509.Certificate, key: Ed25519PrivateKey) -> ssl.SSLContext:
    """Return the TLS context of a client with this certificate, which trusts only `authority` (PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # by the rule of broker.mqtt.tls
    context.load_verify_locations(cadata=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with TemporaryDirectory(prefix="acm-") as directory:  # ssl reads keys only from files
        pair = Path(directory) / "pair.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(private_key_to_pem(key) + certificate.public_bytes(Encoding.PEM))
        context.load_cert_chain(pair)
    return context
