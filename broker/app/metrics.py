"""What the programs of the server's side expose as metrics, beside what they count."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from time import monotonic

from broker.ledger.database import Database
from broker.metrics.kept import kept
from broker.metrics.values import Family, Kind, Metric, Source, gauge
from broker.mqtt.connection import MqttConnection
from broker.pki.revocation_list import end_of_lists
from broker.pki.server_certificates import CertificateFile

__all__ = [
    "build_info",
    "of_certificates",
    "of_commits",
    "of_connection",
]


BUILD = Metric("acm_build_info", Kind.GAUGE, "Always 1; the version of the program.", ("version",))
CONNECTED = Metric("acm_broker_connected", Kind.GAUGE, "1 if the program is connected to the MQTT broker, else 0.")
CONNECTIONS = Metric("acm_broker_connections_total", Kind.COUNTER, "Connections to the MQTT broker that were made.")
UNCONFIRMED = Metric(
    "acm_broker_unconfirmed_messages", Kind.GAUGE, "Published messages that the MQTT broker has not confirmed yet."
)
UNCONFIRMED_BYTES = Metric(
    "acm_broker_unconfirmed_bytes", Kind.GAUGE, "Length of the published messages that are not confirmed yet."
)
COMMITS = Metric(
    "acm_ledger_commits_total",
    Kind.COUNTER,
    "Transactions of this process that have written to the ledger; SQLite syncs its file once for each.",
)
CERTIFICATE_EXPIRY = Metric(
    "acm_certificate_expiry_timestamp_seconds",
    Kind.GAUGE,
    "When a certificate of the servers or the broker expires, in seconds since 1970.",
    ("file",),
)
LIST_EXPIRY = Metric(
    "acm_revocation_list_expiry_timestamp_seconds",
    Kind.GAUGE,
    "When the revocation list expires, in seconds since 1970; the broker refuses every agent then.",
    ("file",),
)


def build_info() -> Iterable[Family]:
    """Return the version of the program."""
    return [gauge(BUILD, {(version("agent-command-manager"),): 1})]


def of_connection(connection: MqttConnection) -> Source:
    """Return the source of metrics of a connection to the broker."""

    def families() -> Iterator[Family]:
        yield gauge(CONNECTED, float(connection.connected))
        yield Family(CONNECTIONS, {(): connection.connections})
        yield gauge(UNCONFIRMED, connection.backlog)
        yield gauge(UNCONFIRMED_BYTES, connection.backlog_bytes)

    return families


def of_commits(database: Database) -> Source:
    """Return the source of metrics of a database's transactions."""
    return lambda: [Family(COMMITS, {(): database.commits})]


def of_certificates(files: Sequence[CertificateFile], revocation_list: Path) -> Source:
    """Return the source of the ends of certificates and of the revocation list, of those files that can be read."""

    def families() -> Iterator[Family]:
        read = ((file.path.name, file.read()) for file in files)
        ends: dict[tuple[str, ...], float] = {
            (name,): it.not_valid_after_utc.timestamp() for name, it in read if it is not None
        }
        yield gauge(CERTIFICATE_EXPIRY, ends)
        with suppress(OSError, ValueError):
            end = end_of_lists(revocation_list.read_bytes())
            if end is not None:
                yield gauge(LIST_EXPIRY, {(revocation_list.name,): end.timestamp()})

    return kept(families, monotonic)
