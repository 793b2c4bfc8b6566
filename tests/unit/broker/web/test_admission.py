"""What a web server's listening socket does with the connections that it accepts."""

import socket

from broker.web.addresses import listen_at
from broker.web.admission import AdmittingSocket


def test_accepted_connections_send_at_once() -> None:
    with (
        AdmittingSocket(listen_at(("127.0.0.1", 0)), 2, 2, on_shortage=print) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
