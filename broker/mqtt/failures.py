"""Why a connection could not be made or has ended, in plain words: never a library's code, file or line alone."""

import errno
import socket
import ssl

from broker.mqtt.reason_codes import PACKET_TOO_LARGE, SESSION_TAKEN_OVER
from broker.text import printable_line

__all__ = [
    "ANOTHER_CLIENT",
    "NO_ANSWER",
    "Abandoned",
    "connack_reason",
    "connect_error",
    "disconnect_reason",
    "early_end",
    "lost_reason",
    "network_error",
    "reason_text",
]


_MAX_DETAILS = 200
ANOTHER_CLIENT = "another client connected as {name}: two programs use one name"
NO_ANSWER = "it answers nothing: the broker hangs, another kind of server is there, or one that expects TLS (mqtts://)"
_UNSUPPORTED_VERSION = "it speaks an older MQTT: MQTT 5 is needed"
# The codes of a CONNACK of MQTT 3.1.1 (section 3.2.2.3), from brokers that do not know MQTT 5.
_OLD_CODES = {
    2: "the client id was refused",
    3: "the broker is unavailable",
    4: "bad user name or password",
    5: "not authorized",
}
_CONNACK = 0x20
_ERRNOS = {
    errno.ECONNREFUSED: "connection refused: no broker listens there, or a firewall refuses it",
    errno.ECONNRESET: "the connection was reset",
    errno.EPIPE: "the connection was closed",
    errno.ETIMEDOUT: "it does not answer (timed out): a wrong address, or a firewall",
}
# X509_V_ERR_… of OpenSSL (x509_vfy.h).
_VERIFICATION = {
    9: "the broker's certificate is not yet valid: compare the clocks",
    10: "the broker's certificate has ended",
    12: "the revocation list has ended",
    62: "the broker's certificate is for another host name",
    64: "the broker's certificate is for another address",
    **dict.fromkeys((2, 18, 19, 20, 21), "the broker's certificate is from an authority that is not trusted"),
}
# OpenSSL's names begin differently in each version (SSLV3_ALERT_…, SSL/TLS_ALERT_…): only their ends are compared.
_TLS_REASONS = {
    "ALERT_CERTIFICATE_EXPIRED": "the broker refuses this client's certificate: it, or the broker's revocation list, "
    "has ended",
    "ALERT_CERTIFICATE_REVOKED": "the broker refuses this client's certificate: it is revoked",
    "ALERT_CERTIFICATE_UNKNOWN": "the broker refuses this client's certificate",
    "ALERT_CERTIFICATE_REQUIRED": "the broker requires a client certificate",
    "ALERT_BAD_CERTIFICATE": "the broker refuses this client's certificate: none was sent, or it is not valid",
    "ALERT_UNKNOWN_CA": "the broker does not trust the authority of this client's certificate",
    "ALERT_ACCESS_DENIED": "the broker denies access",
    "ALERT_PROTOCOL_VERSION": "the broker and this client have no version of TLS in common",
    "ALERT_HANDSHAKE_FAILURE": "the broker and this client have no TLS algorithm in common, or it requires a client "
    "certificate",
    "WRONG_VERSION_NUMBER": "it does not answer in TLS: is it the port for mqtt:// URLs?",
    "RECORD_LAYER_FAILURE": "it does not answer in TLS: is it the port for mqtt:// URLs?",
}


class Abandoned(Exception):
    """This client has ended a connection that does not work; the text is the reason."""


def connect_error(error: BaseException | None, *, tls: bool) -> str:
    """Return why no connection was made, from the error of the attempt; `tls` is whether it used TLS."""
    if isinstance(error, socket.gaierror):
        return f"the host name cannot be resolved ({(error.strerror or 'unknown error').rstrip('.')})"
    if isinstance(error, TimeoutError) and "handshake" in str(error):
        return f"there was no TLS handshake in time: {_other_port(tls)}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError | BrokenPipeError):
        return f"the connection was closed at once: {_other_port(tls)}"
    return network_error(error)


def _other_port(tls: bool) -> str:
    return f"is it the port for {'mqtt' if tls else 'mqtts'}:// URLs?"


def network_error(error: BaseException | None) -> str:
    """Return the meaning of an error of a socket or of TLS."""
    if isinstance(error, Abandoned):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        meant = _VERIFICATION.get(error.verify_code, "the broker's certificate cannot be verified")
        return f"{meant} ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").replace(" ", "_").upper()
        known = (text for end, text in _TLS_REASONS.items() if reason.endswith(end))
        return next(known, f"TLS failed ({reason.lower().replace('_', ' ') or 'unknown error'})")
    if isinstance(error, TimeoutError):
        return _ERRNOS[errno.ETIMEDOUT]
    number = error.errno if isinstance(error, OSError) else None
    return _ERRNOS.get(number or 0) or getattr(error, "strerror", None) or str(error) or type(error).__name__


def early_end(error: BaseException | None, packet: bytes, *, tls: bool) -> str:
    """Return why a connection ended before the broker accepted this client.

    `packet` is what arrived and could not be read as MQTT 5, without its length.
    """
    if len(packet) == 3 and packet[0] == _CONNACK and packet[2] in _OLD_CODES:
        return f"{_OLD_CODES[packet[2]]} (code {packet[2]} of MQTT 3.1.1), and {_UNSUPPORTED_VERSION}"
    if packet:
        return "the answer is not MQTT 5: another kind of server is there"
    if error is not None:
        return connect_error(error, tls=tls)
    return f"the connection was closed without an answer: {_other_port(tls)} Or a broker without MQTT 5?"


def connack_reason(code: int, name: str, properties: object) -> str:
    """Return why the broker refused this client (MQTT 5 section 3.2.2.2), with what else it says."""
    text = _UNSUPPORTED_VERSION if name == "Unsupported protocol version" else reason_text(code, name)
    return f"the broker refused this client: {text}{_details(properties)}"


def disconnect_reason(code: int, name: str, properties: object, client_id: str) -> str:
    """Return why the broker ended an established connection, by its DISCONNECT (MQTT 5 section 3.14)."""
    if code == SESSION_TAKEN_OVER:
        return ANOTHER_CLIENT.format(name=client_id)
    return f"the broker ended the connection: {reason_text(code, name)}{_details(properties)}"


def lost_reason(name: str, error: BaseException | None) -> str:
    """Return why an established connection ended without a DISCONNECT; `name` is paho's for it."""
    if error is not None:
        return network_error(error)
    if name == "Keep alive timeout":
        return "the broker did not answer in time"
    return "the broker closed the connection without a reason"


def _details(properties: object) -> str:
    """Return what else the broker tells, in brackets."""
    told = vars(properties) if properties is not None else {}
    details = [str(told[key]) for key in ("ReasonString", "ServerReference") if told.get(key)]
    return f" ({printable_line(', '.join(details), _MAX_DETAILS)})" if details else ""


def reason_text(code: int, name: str) -> str:
    """Return the standard's name of a reason code as a text; `unspecified` alone would say nothing.

    `name` is that of the code that `broker.mqtt.reason_codes` has put in its place, if the standard does not list it.
    """
    if code == PACKET_TOO_LARGE:
        return "packet too large"
    told_nothing = name.lower() == "unspecified error"
    return f"reason code 0x{code:02X}, which tells no reason" if told_nothing else name.lower()
