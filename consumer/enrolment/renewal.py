"""Renews the certificate after two thirds of its lifetime, in the background."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from broker.errors import ExposedFileError
from consumer.enrolment.keys import new_key
from consumer.enrolment.store import CertifiedGrant, Enrolment, EnrolmentDirectory
from consumer.errors import EnrolmentError
from consumer.ports import Clock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _Response = tuple[CertifiedGrant, Ed25519PrivateKey] | EnrolmentError

__all__ = [
    "Renewal",
]


_log = structlog.get_logger(__name__)
_TIMEOUT_S = 60.0


class Renewal:
    """A consumer.ports.BackgroundTask. Requests the certificate on a separate thread; `step` handles the response.

    `use` receives each enrolment with a new certificate; `report` why a renewal failed, in one sentence, and None once
    one has succeeded. A failed renewal is retried indefinitely, with growing waits. While `paused`, as during an
    `enroll-agent`, nothing is requested and no response handled. A renewal never changes the broker's address: only the
    trial of a new enrolment can do that.
    """

    def __init__(
        self,
        enrolments: EnrolmentDirectory,
        enrolment: Enrolment,
        clock: Clock,
        *,
        use: Callable[[Enrolment], None],
        report: Callable[[str | None], None],
        paused: Callable[[], bool],
        waits: Callable[[], Iterator[float]],
    ) -> None:
        self._enrolments = enrolments
        self._enrolment = enrolment
        self._clock = clock
        self._use = use
        self._report = report
        self._paused = paused
        self._new_waits = waits
        self._waits = waits()
        self._retry_at = 0.0
        self._requesting = False
        self._responses: queue.SimpleQueue[_Response] = queue.SimpleQueue()

    def step(self) -> None:
        """Request a new certificate when one is due, and handle the response once it has arrived."""
        if self._paused():
            return
        if self._requesting:
            self._handle_response()
        elif self._clock.now() >= self._enrolment.grant.renew_at and self._clock.monotonic() >= self._retry_at:
            self._requesting = True
            self._retry_at = self._clock.monotonic() + next(self._waits)
            try:
                threading.Thread(target=self._request, name="acm-renewal", daemon=True).start()
            except RuntimeError as error:  # the machine has no thread for it
                self._responses.put(EnrolmentError(f"It could not begin: {error}.", code="renewal_raised"))

    def next_due(self) -> float | None:
        """Return None: a renewal is not urgent, and the loop runs every two seconds."""

    def _request(self) -> None:
        deadline = self._clock.monotonic() + _TIMEOUT_S
        try:
            from consumer.enrolment.client import EnrolmentClient  # its HTTP client is 3 MB, for a minute a month

            client = EnrolmentClient(self._enrolment.grant.server, self._clock, deadline, threading.Event())
            key = new_key()
            self._responses.put((client.renew(self._enrolment, key), key))
        except EnrolmentError as error:
            self._responses.put(error)
        except ExposedFileError as error:
            self._responses.put(EnrolmentError(str(error), code=error.code))
        except Exception as error:
            _log.exception("renewal_raised")
            self._responses.put(
                EnrolmentError(f"The renewal raised {type(error).__name__}: {error}", code="renewal_raised")
            )

    def _handle_response(self) -> None:
        try:
            response = self._responses.get_nowait()
        except queue.Empty:
            return
        self._requesting = False
        try:
            if isinstance(response, EnrolmentError):
                raise response
            self._use_grant(*response)
        except (EnrolmentError, ExposedFileError) as error:
            end = self._enrolment.grant.not_after
            _log.warning("renewal_failed", reason=str(error))
            self._report(f"The certificate, which expires at {end:%Y-%m-%d %H:%M} UTC, was not renewed: {error}")

    def _use_grant(self, granted: CertifiedGrant, key: "Ed25519PrivateKey") -> None:
        before = self._enrolment
        home = replace(granted.grant, broker=before.grant.broker, topic_prefix=before.grant.topic_prefix)
        now = self._enrolments.add(replace(granted, grant=home), key)
        now.tls  # noqa: B018 - raises before the old one is left
        self._enrolments.make_current(now.directory.name)
        self._enrolment = now
        self._waits = self._new_waits()
        self._use(now)
        self._report(None)
        self._enrolments.remove(before.directory.name)
        _log.info("certificate_renewed", not_after=now.grant.not_after.isoformat())
