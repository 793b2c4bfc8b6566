"""URLs of MQTT brokers, and the TLS files of a connection."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from broker.errors import BrokerError

__all__ = [
    "BrokerAddress",
    "MqttError",
    "TlsFiles",
    "host_in_url",
    "parse_url",
]


_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_OTHER_SCHEMES = {
    **dict.fromkeys(("tcp", "mqtt5", "mqtt311"), "write mqtt:// for it"),
    **dict.fromkeys(("ssl", "tls", "mqtt+ssl", "secure-mqtt"), "write mqtts:// for it"),
    **dict.fromkeys(("ws", "wss"), "MQTT over WebSocket is not supported: use the broker's port for MQTT over TCP"),
}
_FORM = "mqtt://HOST:PORT or mqtt://USER:PASSWORD@HOST:PORT, or mqtts:// for TLS"
# RFC 3986 appendix B; the user information ends at the last @, since a host has none.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<rest>.*)", re.DOTALL
)
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_HOST = re.compile(r"[\w.-]+")
_MAX_HOST_LENGTH = 253


class MqttError(BrokerError):
    """An MQTT connection cannot be configured as requested."""

    code = "mqtt_error"


@dataclass(frozen=True)
class BrokerAddress:
    """The parts of a broker's URL."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = None

    @property
    def text(self) -> str:
        """Host and port for people, without user and password."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def host_in_url(host: str) -> str:
    """Return a host as a URL has it: an IPv6 address in brackets, its zone after `%25` (RFC 6874)."""
    return f"[{host.replace('%', '%25')}]" if ":" in host else host


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of an `mqtts` connection: the trusted authorities, and the client's certificate and key."""

    ca: Path
    certificate: Path
    key: Path


def parse_url(url: str) -> BrokerAddress:
    """Parse `mqtt://user:password@host:port` (or mqtts) by RFC 3986; blanks around it are ignored.

    Raises MqttError, whose text quotes nothing but a scheme: any other part may be a piece of a password.
    """
    url = url.strip()
    parts = _URL.fullmatch(url)
    if parts is None:
        raise _refusal(f"must have the form {_FORM}")
    scheme = parts["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        hint = _OTHER_SCHEMES.get(scheme)
        raise _refusal(f"begins with {scheme}://: {hint}" if hint else f"must have the form {_FORM}")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise _refusal("has a blank or a control character; write it as %XX, a blank as %20")
    if parts["path"] not in ("", "/") or parts["rest"]:
        raise _refusal(
            "has a path, a query or a fragment, which a broker has not; in a password write `/` as %2F, `?` as %3F and "
            "`#` as %23"
        )
    user_information, at, place = parts["authority"].rpartition("@")
    username, password = _credentials(user_information) if at else (None, None)
    host, port = _host_and_port(place)
    return BrokerAddress(host, port or _DEFAULT_PORTS[scheme], scheme == "mqtts", username, password)


def _credentials(user_information: str) -> tuple[str, str | None]:
    username, colon, password = user_information.partition(":")
    if not username:
        raise _refusal("has an `@` but no user name before it")
    return _decoded(username), _decoded(password) if colon and password else None


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _refusal("has a %XX in the user name or password that is not UTF-8; write `%` itself as %25") from None
    if "\0" in decoded:
        raise _refusal("has the character U+0000 in the user name or password, which MQTT does not allow")
    return decoded


def _host_and_port(place: str) -> tuple[str, int | None]:
    if "," in place:
        raise _refusal("names several hosts; name one, whose DNS name may have several addresses")
    parts = _HOST_AND_PORT.fullmatch(place)
    if parts is None or (parts["port"] or "").count(":"):
        raise _refusal("needs one host and one port; write an IPv6 address in brackets, as in mqtt://[::1]:1883")
    port = parts["port"]
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535 and len(port) <= 5):
        raise _refusal("needs a port from 1 to 65535 after the host's colon")
    return _host(parts["host"]), int(port) if port else None


def _host(host: str) -> str:
    if host.startswith("["):
        return _ipv6_address(host[1:-1])
    try:
        name = unquote(host, errors="strict")
        name.encode("idna")
        name = name.removesuffix(".")  # certificates and /etc/hosts have names without it
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name) or name.startswith(".") or len(name) > _MAX_HOST_LENGTH:
        raise _refusal("needs a host: a DNS name, an IPv4 address, or an IPv6 address in brackets")
    return name.lower()


def _ipv6_address(text: str) -> str:
    """Return the address; its zone is written after `%25` (RFC 6874), or after `%` as people write it."""
    address, percent, zone = text.partition("%")
    if zone.startswith("25") and len(zone) > 2:
        zone = unquote(zone[2:])
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        address = ""
    if not address or (percent and not re.fullmatch(r"[\w.~-]+", zone)):
        raise _refusal("needs an IPv6 address between the brackets, as in mqtt://[::1] or mqtt://[fe80::1%25eth0]")
    return address.lower() + percent + zone


def _refusal(what: str) -> MqttError:
    return MqttError(f"The broker's URL {what}.", code="invalid_url")
