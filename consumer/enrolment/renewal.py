"""Renewing the certificate at two thirds of its life, beside the agent's loop."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consumer.enrolment.client import EnrolmentClient
from consumer.enrolment.keys import new_key
from consumer.enrolment.store import CertifiedGrant, Enrolment, EnrolmentDirectory
from consumer.errors import EnrolmentError
from consumer.ports import Clock

__all__ = [
    "Renewal",
]


_log = structlog.get_logger(__name__)
_TIMEOUT_S = 60.0
_Answer = tuple[CertifiedGrant, Ed25519PrivateKey] | EnrolmentError


class Renewal:
    """A consumer.ports.Chore. The server is asked on a thread of its own; what came of it is taken in by `step`.

    `use` is told each enrolment with a new certificate, `tell` why a renewal failed, in one sentence, and None once one
    has succeeded. One that failed is tried again after growing waits, for as long as it takes. While `paused`, as in
    the midst of an `enroll-agent`, nothing is asked and no answer taken in. A renewal changes no address: only what was
    tried out may do that.
    """

    def __init__(
        self,
        enrolments: EnrolmentDirectory,
        enrolment: Enrolment,
        clock: Clock,
        *,
        use: Callable[[Enrolment], None],
        tell: Callable[[str | None], None],
        paused: Callable[[], bool],
        waits: Callable[[], Iterator[float]],
    ) -> None:
        self._enrolments = enrolments
        self._enrolment = enrolment
        self._clock = clock
        self._use = use
        self._tell = tell
        self._paused = paused
        self._new_waits = waits
        self._waits = waits()
        self._again_at = 0.0
        self._asking = False
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()

    def step(self) -> None:
        """Ask for a new certificate when it is time, and take in the answer when it is there."""
        if self._paused():
            return
        if self._asking:
            self._take_answer()
        elif self._clock.now() >= self._enrolment.grant.renew_at and self._clock.monotonic() >= self._again_at:
            self._asking = True
            self._again_at = self._clock.monotonic() + next(self._waits)
            threading.Thread(target=self._ask, name="acm-renewal", daemon=True).start()

    def next_due(self) -> float | None:
        """Return None: a renewal is in no hurry, and the loop turns every second."""

    def _ask(self) -> None:
        deadline = self._clock.monotonic() + _TIMEOUT_S
        try:
            client = EnrolmentClient(self._enrolment.grant.server, self._clock, deadline, threading.Event())
            key = new_key()
            self._answers.put((client.renew(self._enrolment, key), key))
        except EnrolmentError as error:
            self._answers.put(error)
        except Exception as error:
            _log.exception("renewal_broke_down")
            self._answers.put(EnrolmentError(f"The renewal broke down: {type(error).__name__}: {error}"))

    def _take_answer(self) -> None:
        try:
            answer = self._answers.get_nowait()
        except queue.Empty:
            return
        self._asking = False
        try:
            if isinstance(answer, EnrolmentError):
                raise answer
            self._take_up(*answer)
        except EnrolmentError as error:
            end = self._enrolment.grant.not_after
            _log.warning("renewal_failed", reason=str(error))
            self._tell(f"The certificate, which ends at {end:%Y-%m-%d %H:%M} UTC, was not renewed: {error}")

    def _take_up(self, granted: CertifiedGrant, key: Ed25519PrivateKey) -> None:
        before = self._enrolment
        home = replace(granted.grant, broker=before.grant.broker, topic_prefix=before.grant.topic_prefix)
        now = self._enrolments.add(replace(granted, grant=home), key)
        self._enrolments.make_current(now.directory.name)
        self._enrolment = now
        self._waits = self._new_waits()
        self._use(now)
        self._tell(None)
        self._enrolments.remove(before.directory.name)
        _log.info("certificate_renewed", not_after=now.grant.not_after.isoformat())
