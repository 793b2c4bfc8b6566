"""The process that serves the API of `acm server`.

    python -P -m broker.cli.hosted_api_process LISTENER

LISTENER is the number of the descriptor of the listening socket. The configuration comes on standard input, as JSON.
"""

import socket
import sys

import msgspec
import structlog

from broker.app.api_server import ApiServer
from broker.app.config import ServerConfig
from broker.doctor.server_checks import server_checks
from broker.errors import BrokerError
from broker.system.logging import configure_logs
from broker.system.process import forbid_dumps
from broker.system.signals import on_signals
from broker.system.standard_streams import secure_standard_streams

__all__ = [
    "main",
]


_log = structlog.get_logger("acm.api")


def main(listener: str) -> None:
    """Serve until TERM; an expected error is logged, and the exit code is 1."""
    secure_standard_streams()
    with on_signals() as signals:
        config = msgspec.json.decode(sys.stdin.buffer.read(), type=ServerConfig)
        configure_logs(config.log_level)
        forbid_dumps()
        try:
            server = ApiServer(config, listener=socket.socket(fileno=int(listener)), checks=server_checks)
            signals.deliver(server.stop, server.reload)
            server.run()
        except BrokerError as error:
            _log.error("api_failed", code=error.code, reason=str(error))
            sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
