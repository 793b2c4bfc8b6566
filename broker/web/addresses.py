"""Addresses to listen on, as HOST:PORT."""

import ipaddress
import os
import socket
from urllib.parse import urlsplit

from broker.web.errors import WebServerError

__all__ = [
    "host_and_port",
    "is_loopback",
    "listen_at",
]


def host_and_port(listen: str) -> tuple[str, int] | None:
    """Return the host, an IPv6 address without its brackets, and the port; None unless both are there."""
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, port) if host and port is not None else None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone, whatever a resolver says."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen_at(address: tuple[str, int]) -> socket.socket:
    """Return a listening socket; on `::` it accepts IPv4, too. Raises WebServerError."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise WebServerError(f"Cannot listen on {host}:{port}: {reason}.", code="cannot_listen") from error
