"""The web server: what it does with clients that are slow."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from broker.web.addresses import listen_at
from broker.web.server import WebLimits, WebServer


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer each request with its path, once its body is there."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    body = scope["path"].encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def connected(limits: WebLimits) -> Iterator[socket.socket]:
    """Yield a connection to a server with these limits."""
    server = WebServer(app, None, limits)
    with listen_at(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=server.serve, args=(listener,))
        thread.start()
        try:
            with socket.create_connection(address, timeout=20) as connection:
                yield connection
        finally:
            server.stop()
            thread.join()


def answer(connection: socket.socket) -> bytes:
    """Return what is read until the connection has ended, or a whole answer."""
    read = b""
    while not read.endswith(b"/a"):
        try:
            part = connection.recv(1000)
        except ConnectionError:
            part = b""
        if not part:
            return read
        read += part
    return read


@pytest.mark.parametrize("sent", [b"", b"GET /a HTT"])
def test_head_of_a_request_must_be_complete_in_time(sent: bytes) -> None:
    with connected(WebLimits(request_head_timeout_s=0.2)) as connection:
        connection.sendall(sent)
        assert answer(connection) == b""


def test_second_head_must_be_complete_in_time_too() -> None:
    with connected(WebLimits(request_head_timeout_s=0.5)) as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer(connection).endswith(b"/a")
        connection.sendall(b"GET /a HTT")
        assert answer(connection) == b""
