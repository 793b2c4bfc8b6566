"""An agent, in a thread of the test, that answers each request for its audit journal."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from broker.app.factories import open_database
from broker.contract.commands.get_audit_journal import GetAuditJournalData
from broker.contract.journal import command_sha256
from broker.contract.messages import Command
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from tests.support.journals import chained
from tests.support.makers import result
from tests.support.recorded import record_feedback

__all__ = ["answering_audits", "honest_journal"]


@contextmanager
def answering_audits(url: str, agent: str, journal: Callable[[Command], GetAuditJournalData]) -> Iterator[None]:
    """Let an agent answer each get-audit-journal in the ledger with the journal that is made for it."""
    stopped = threading.Event()
    thread = threading.Thread(target=_answer, args=(url, agent, journal, stopped))
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def honest_journal(request: Command) -> GetAuditJournalData:
    """Return the journal of an agent that has never had another command than this request for it."""
    at = request.created_at.isoformat()
    sequence = msgspec.to_builtins(request.sequence)
    accepted = {"id": request.id, "type": request.type, "sha256": command_sha256(request), "sequence": sequence}
    opening = {"number": 1, "at": at, "opened": {"store_generation": "g"}}
    return chained([opening, {"number": 2, "at": at, "accepted": [accepted], "begun": [request.id]}])


def _answer(url: str, agent: str, journal: Callable[[Command], GetAuditJournalData], stopped: threading.Event) -> None:
    with open_database(url) as database:
        ledger = Ledger(database, now=lambda: datetime.now(UTC))
        while not stopped.wait(0.02):
            for row in ledger.commands(agent, CommandState.QUEUED):
                if row.command.type == "get-audit-journal":
                    data = msgspec.to_builtins(journal(row.command))
                    record_feedback(ledger, agent, [replace(result(row.command.id), agent=agent, data=data)])
