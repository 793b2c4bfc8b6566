"""A broker's URL, and the TLS files of a connection to it."""

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
    """The MQTT connection cannot be made or used as asked."""


@dataclass(frozen=True)
class BrokerAddress:
    """A broker's URL taken apart."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = None


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for one `mqtts` connection: who is trusted, and what this client shows of itself."""

    ca: Path
    certificate: Path
    key: Path


def parse_url(url: str) -> BrokerAddress:
    """Take apart `mqtt://user:password@host:port` (or mqtts); raise MqttError, never with the password."""
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
        if len(url.split()) != 1:
            raise ValueError("it has spaces")
    except ValueError:  # its text may quote the password
        raise MqttError(
            "The broker's URL cannot be read: write mqtt://HOST:PORT, and special characters of a password as %XX."
        ) from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path not in ("", "/") or port == 0:
        raise MqttError("The broker's URL must look like mqtt://HOST:PORT or mqtt://USER:PASSWORD@HOST:PORT.")
    return BrokerAddress(
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )
