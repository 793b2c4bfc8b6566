"""URLs of MQTT brokers, and the TLS files of a connection."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from broker.errors import BrokerError

__all__ = [
    "BrokerAddress",
    "MqttError",
    "TlsFiles",
    "parse_url",
]


_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


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


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of an `mqtts` connection: the trusted authorities, and the client's certificate and key."""

    ca: Path
    certificate: Path
    key: Path


def parse_url(url: str) -> BrokerAddress:
    """Parse `mqtt://user:password@host:port` (or mqtts). Raises MqttError, whose text never has the password."""
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
        if len(url.split()) != 1:
            raise ValueError("it has spaces")
    except ValueError:  # its text may quote the password
        raise MqttError(
            "The broker's URL cannot be parsed: write mqtt://HOST:PORT, and special characters of a password as %XX.",
            code="invalid_url",
        ) from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path not in ("", "/") or port == 0:
        raise MqttError(
            "The broker's URL must have the form mqtt://HOST:PORT or mqtt://USER:PASSWORD@HOST:PORT.",
            code="invalid_url",
        )
    return BrokerAddress(
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )
