"""Applies revocations while the enrolment server runs, in a task of its event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from broker.enrolment.session_revocation import SessionRevoker
from broker.errors import BrokerError
from broker.pki.revocation_file import RevocationFile

__all__ = [
    "RevocationTask",
]


_POLL_INTERVAL_S = 2.0
_RETRY_S = 60.0
_log = structlog.get_logger("acm.enrolment")


class RevocationTask:
    """Keeps the revocation list current and ends the sessions of revoked agents; then does the `upkeep`.

    An expected error is logged, and the work is tried again after a minute. Any other one ends the task: `failed` is
    set and `on_failure` is called, because a server without the task would let the revocation list expire.
    """

    def __init__(
        self,
        revocations: RevocationFile,
        sessions: SessionRevoker | None,
        upkeep: Callable[[], None] = lambda: None,
        *,
        on_failure: Callable[[], None],
        poll_interval_s: float = _POLL_INTERVAL_S,
    ) -> None:
        self.failed = False
        self._revocations = revocations
        self._sessions = sessions
        self._upkeep = upkeep
        self._on_failure = on_failure
        self._poll_interval_s = poll_interval_s

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the task for the block."""
        task = asyncio.create_task(self._run())
        task.add_done_callback(self._on_end)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.critical("revocations_stopped", exc_info=task.exception())
            self.failed = True
            self._on_failure()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_interval_s)
            if not await self._applied():
                await asyncio.sleep(_RETRY_S)

    async def _applied(self) -> bool:
        try:
            applying = asyncio.get_running_loop().run_in_executor(None, self._apply)
        except RuntimeError as error:  # the machine has no thread for it now
            _log.error("revocation_failed", code="no_thread", reason=str(error))
            return False
        return await applying

    def _apply(self) -> bool:
        try:
            if self._revocations.refresh():
                _log.info("revocation_list_written", path=str(self._revocations.path))
            if self._sessions is not None:
                self._sessions.step()
            self._upkeep()
        except BrokerError as error:
            _log.error("revocation_failed", code=error.code, reason=str(error))
            return False
        return True
