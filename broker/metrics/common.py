"""The metrics that programs of both sides have."""

from collections.abc import Iterable, Iterator

from broker.metrics.values import Family, Kind, Metric, Source, gauge
from broker.mqtt.connection import MqttConnection

__all__ = [
    "CERTIFICATE_EXPIRY",
    "build_info",
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
CERTIFICATE_EXPIRY = Metric(
    "acm_certificate_expiry_timestamp_seconds",
    Kind.GAUGE,
    "When a certificate of a server, the broker or the agent expires, in seconds since 1970.",
    ("file",),
)


def build_info(version: str) -> Source:
    """Return the source of the version of the program."""

    def families() -> Iterable[Family]:
        return [gauge(BUILD, {(version,): 1})]

    return families


def of_connection(connection: MqttConnection) -> Source:
    """Return the source of metrics of a connection to the broker."""

    def families() -> Iterator[Family]:
        yield gauge(CONNECTED, float(connection.connected))
        yield Family(CONNECTIONS, {(): connection.connections})
        yield gauge(UNCONFIRMED, connection.backlog)
        yield gauge(UNCONFIRMED_BYTES, connection.backlog_bytes)

    return families
