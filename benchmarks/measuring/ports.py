"""Ports for what a benchmark starts."""

import socket

__all__ = ["free_port"]


def free_port() -> int:
    """Return a port of the loopback interface that nothing uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
