"""One HTTP connection of a client, with bounds on how long a client may keep it without a complete request."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = [
    "CLIENT_CERTIFICATE",
    "connections_of",
]


CLIENT_CERTIFICATE = "client_certificate"
"""The name in the state of a request of what the client has shown and proved: its certificate in DER, or None."""


def connections_of(head_timeout_s: float, lifetime_s: float | None) -> type[H11Protocol]:
    """Return the class of connections whose heads of requests must be complete in time; uvicorn waits forever.

    With a lifetime, a connection is ended after it, whatever it does.
    """

    class LimitedConnection(H11Protocol):
        """One connection; of its timers the one of the head runs while no request is in progress."""

        _head: asyncio.TimerHandle | None = None
        _end: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            secured = transport.get_extra_info("ssl_object")
            certificate = None if secured is None else secured.getpeercert(binary_form=True)
            self.app_state = {**self.app_state, CLIENT_CERTIFICATE: certificate}
            self._time_head()
            if lifetime_s is not None:
                self._end = self.loop.call_later(lifetime_s, transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._time_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._time_head()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._head, self._end):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def _time_head(self) -> None:
            waits_for_head = self.cycle is None or self.cycle.response_complete
            if waits_for_head and self._head is None:
                self._head = self.loop.call_later(head_timeout_s, self.transport.abort)
            elif not waits_for_head and self._head is not None:
                self._head.cancel()
                self._head = None

    return LimitedConnection
