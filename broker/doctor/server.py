"""The server: whether one runs on the ledger, and works."""

import socket
from collections.abc import Iterator
from datetime import timedelta

from broker.app.factories import utc_now
from broker.doctor.ledger import with_database
from broker.ledger.clock import LedgerClock
from broker.ledger.database import Database
from broker.ledger.health import waiting_commands
from broker.ledger.server_lock import RunningServer, running_servers
from broker.system.findings import Fault, Finding, Level, ok
from broker.system.process import is_stopped_by_signal
from broker.text import counted

__all__ = [
    "check_server",
]


NOT_RUNNING = Fault(
    "server_not_running",
    Level.FAIL,
    "No server runs on the ledger: commands are not sent, and results not stored.",
    "systemctl start acm-server (or start `acm server` otherwise)",
)
OTHER_CLIENT_ID = Fault(
    "server_of_other_client_id",
    Level.WARN,
    "A server runs on the ledger, but with another client id than the configured one.",
    "Start the doctor with the configuration of the server (--config, ACM_CONFIG), or start the server with this one.",
)
STOPPED = Fault(
    "server_stopped",
    Level.FAIL,
    "The process of the server is stopped by a signal, and does nothing.",
    "Let it continue with `kill -CONT`, or restart it: systemctl restart acm-server",
)
NOT_CONNECTED = Fault(
    "server_not_connected",
    Level.FAIL,
    "The server runs, but the last thing that it has noted of the broker is a problem of its connection.",
    "Remove what the sentence names; the checks of the broker may show more, and: journalctl -u acm-server",
)
COMMANDS_WAIT = Fault(
    "commands_wait",
    Level.WARN,
    "A server runs, but commands that are due were not sent for minutes.",
    "acm explain ID (the sentence has the id)",
)
_CHECK = "server"
_PATIENCE = timedelta(minutes=2)


def check_server(url: str, client_id: str) -> Iterator[Finding]:
    """Look whose server holds the lock of the ledger at this URL, and whether it sends what is due."""
    return with_database(_CHECK, url, lambda database: _in(database, client_id))


def _in(database: Database, client_id: str) -> Iterator[Finding]:
    servers = running_servers(database)
    if not servers:
        yield NOT_RUNNING.found(_CHECK, "No server runs on this ledger.")
        return
    for server in servers:
        yield _state_of(server)
    if all(server.client_id != client_id for server in servers):
        names = ", ".join(server.client_id for server in servers)
        yield OTHER_CLIENT_ID.found(_CHECK, f"A server runs as {names}, but {client_id} is configured.")
    waiting = waiting_commands(database, LedgerClock(database, utc_now)() - _PATIENCE)
    if waiting is not None:
        yield COMMANDS_WAIT.found(
            _CHECK,
            f"{counted(waiting.count, 'command')} waited for more than {_PATIENCE.seconds // 60} minutes to be sent; "
            f"the oldest is {waiting.oldest}.",
            fix=f"acm explain {waiting.oldest}",
        )


def _state_of(server: RunningServer) -> Finding:
    who = f"{server.client_id} (process {server.pid} on {server.host}, since {server.started_at:%Y-%m-%d %H:%M} UTC)"
    if server.host == socket.gethostname() and is_stopped_by_signal(server.pid):
        return STOPPED.found(_CHECK, f"The server {who} is stopped by a signal.", fix=f"kill -CONT {server.pid}")
    if server.connection_problem is not None:
        since = f"{server.connection_at:%Y-%m-%d %H:%M} UTC" if server.connection_at else "its start"
        problem = server.connection_problem.rstrip(".")
        return NOT_CONNECTED.found(_CHECK, f"The server {who} is not connected since {since}: {problem}.")
    return ok(_CHECK, f"The server {who} runs{', and is connected' if server.connection_at else ''}.")
