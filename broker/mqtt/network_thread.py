"""The network thread of an MQTT client: stopped within a bound, restarted if it has died."""

import socket
import threading
from typing import Any, Protocol

import structlog

__all__ = [
    "break_connection",
    "ensure_running",
    "stop_within",
]


_log = structlog.get_logger("acm.mqtt")


class NetworkLoop(Protocol):
    """The part of paho's client that runs its thread. Both loop functions return 0 on success."""

    def loop_start(self) -> int:
        """Start the thread; does nothing and returns an error while the thread is alive."""

    def loop_stop(self) -> int:
        """End the thread and join it, without a bound."""

    def socket(self) -> Any:
        """Return the open socket, or None."""


def stop_within(loop: NetworkLoop, timeout_s: float) -> None:
    """End the thread; after the timeout, break its connection and do not wait for it."""
    # loop_stop joins without a bound, and would wait for as long as a broker hangs.
    stopper = threading.Thread(target=loop.loop_stop, name="mqtt-stop", daemon=True)
    try:
        stopper.start()
        stopper.join(timeout_s)
        reason = "the broker does not answer" if stopper.is_alive() else None
    except RuntimeError as error:  # the machine has no thread for it
        reason = str(error)
    if reason is not None:
        break_connection(loop)
        _log.warning("mqtt_stop_unfinished", timeout_s=timeout_s, reason=reason)


def ensure_running(loop: NetworkLoop) -> None:
    """Restart the thread if it has died, with a new connection; raises RuntimeError if the machine has none for it."""
    if loop.loop_start() == 0:
        break_connection(loop)
        _log.error("mqtt_network_thread_restarted")


def break_connection(loop: NetworkLoop) -> None:
    """Shut the open socket down, if there is one; the thread notices it."""
    open_socket = loop.socket()
    if isinstance(open_socket, socket.socket):
        try:
            # An SSLSocket would first stop to decrypt: what has arrived since would be read as it came, from anybody,
            # and what another thread sends just now would be sent as it is.
            socket.socket.shutdown(open_socket, socket.SHUT_RDWR)
        except OSError as error:
            _log.debug("mqtt_socket_already_closed", error=str(error))
