"""Serves metrics at an address of their own, on a thread of its own."""

import importlib.util
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from broker.errors import BrokerError
from broker.metrics.values import Source
from broker.system.threads import start_thread
from broker.web.addresses import host_and_port, is_loopback, listen_at
from broker.web.errors import WebServerError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from broker.metrics.exposition import Exposition

__all__ = [
    "MetricsError",
    "serving_metrics",
]


PATH = "/metrics"
_log = structlog.get_logger("acm.metrics")


class MetricsError(BrokerError):
    """The address for metrics is none."""

    code = "metrics_not_possible"


@contextmanager
def serving_metrics(setting: str, listen: str | None, sources: Sequence[Source]) -> Iterator[None]:
    """Serve the metrics of these sources for a block, at HOST:PORT, unless that is None; `setting` is its
    name.

    An address in use, and a missing prometheus-client, are logged, since nothing else depends on metrics. Raises
    MetricsError for a bad address.
    """
    if listen is None:
        yield
        return
    address = _address(setting, listen)
    listener = _listener(address)
    if listener is None:
        yield
        return
    from broker.metrics.exposition import Exposition  # and prometheus-client, which others do without
    from broker.web.server import WebLimits, WebServer

    limits = WebLimits(max_connections=32, max_requests=8, connection_lifetime_s=60.0, shutdown_timeout_s=1)
    web = WebServer(_app(Exposition(sources)), None, limits)
    thread = start_thread(lambda: web.serve(listener), "metrics")
    _log.info("metrics_served", listen=listen)
    if not is_loopback(address[0]):
        _log.warning("metrics_without_tls", listen=listen, reason="Everybody who reaches this address can read them.")
    try:
        yield
    finally:
        web.stop()
        _join(thread)


def _address(setting: str, listen: str) -> tuple[str, int]:
    address = host_and_port(listen)
    if address is None:
        raise MetricsError(
            f"{setting}: {listen[:80]!r} is not HOST:PORT, as in 127.0.0.1:9444.",
            code="bad_metrics_address",
        )
    return address


def _listener(address: tuple[str, int]) -> socket.socket | None:
    """Return what listens there; None if metrics cannot be served, which is logged: nothing else depends on them."""
    reason = "prometheus-client is not installed: `make install EXTRA=metrics` installs it."
    if importlib.util.find_spec("prometheus_client") is not None:
        try:
            return listen_at(address)
        except WebServerError as error:
            reason = str(error)
    _log.error("metrics_not_served", reason=reason)
    return None


def _join(thread: threading.Thread | None) -> None:
    if thread is not None:
        thread.join()


def _app(exposition: "Exposition") -> "Starlette":
    from starlette.applications import Starlette  # which takes memory that a program without metrics saves
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from broker.metrics.exposition import CONTENT_TYPE

    def metrics(request: Request) -> Response:  # not async: it may read the ledger, on a thread of Starlette's
        return Response(exposition(), headers={"Content-Type": CONTENT_TYPE})

    return Starlette(routes=[Route(PATH, metrics, methods=["GET"])])
