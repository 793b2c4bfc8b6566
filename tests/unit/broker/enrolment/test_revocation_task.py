"""The task that applies revocations, while the ledger fails."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from broker.enrolment.revocation_task import RevocationTask
from broker.errors import LedgerError
from tests.support.threads import no_thread_left


class WrittenFile:
    """A list that was rewritten."""

    path = Path("/x/crl.pem")

    def refresh(self) -> bool:
        return True


class FailingSessions:
    """Sessions in a ledger that fails."""

    def __init__(self) -> None:
        self.tried = threading.Event()

    def step(self) -> None:
        self.tried.set()
        raise LedgerError("The ledger failed.", code="database_failed")


def test_expected_error_is_logged_and_does_not_end_the_task() -> None:
    revocations: Any = WrittenFile()
    sessions: Any = FailingSessions()
    failures: list[str] = []
    task = RevocationTask(revocations, sessions, on_failure=lambda: failures.append("failed"), poll_interval_s=0.0)

    async def run() -> None:
        async with task.running():
            await asyncio.to_thread(sessions.tried.wait, 10)

    with capture_logs() as logs:
        asyncio.run(run())
    assert [(entry["event"], entry.get("code")) for entry in logs] == [
        ("revocation_list_written", None),
        ("revocation_failed", "database_failed"),
    ]
    assert (task.failed, failures) == (False, [])


def test_missing_thread_is_logged_and_does_not_end_the_task() -> None:
    revocations: Any = WrittenFile()
    failures: list[str] = []
    task = RevocationTask(revocations, None, on_failure=lambda: failures.append("failed"), poll_interval_s=0.0)

    async def run() -> None:
        async with task.running():
            with no_thread_left():
                while not logs and not failures:
                    await asyncio.sleep(0)

    with capture_logs() as logs:
        asyncio.run(run())
    assert [(entry["event"], entry.get("code")) for entry in logs] == [("revocation_failed", "no_thread")]
    assert (task.failed, failures) == (False, [])
