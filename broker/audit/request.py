"""Requests an agent's audit journal, part by part, and reads the ledger's side of the comparison."""

from collections.abc import Callable

import msgspec

from broker.audit.findings import LedgerSide
from broker.contract.commands.get_audit_journal import GetAuditJournalData
from broker.contract.journal import JournalEntry, JournalPage
from broker.contract.messages import Command, JournalMark, Origin
from broker.errors import BrokerError
from broker.ledger.commands import LedgerRow
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.outcomes import require_success
from broker.ledger.waiting import Wait, wait_for_command

__all__ = [
    "AuditError",
    "request_audit",
]


_TYPE = "get-audit-journal"
_MAX_ANSWERS = 200  # of 128 KiB: several times what a journal keeps
_MAX_COMMANDS = 20_000  # more than a journal keeps
_decode = msgspec.json.Decoder(JournalEntry).decode


class AuditError(BrokerError):
    """An agent's audit journal cannot be read."""

    code = "audit_error"


def request_audit(
    ledger: Ledger, agent: str, origin: Origin, wait: Wait, show: Callable[[LedgerRow], None] = lambda _: None
) -> tuple[GetAuditJournalData, LedgerSide]:
    """Fetch an agent's journal as of its first answer, and the ledger's side of it; call `show` while waiting.

    What the agent has reported is read before the journal is requested, so the journal must hold it. Raises WaitTimeout
    if the journal is not complete within the wait, CommandFailed, and AuditError.
    """
    status = next((row.status for row in wait.call(ledger.agents) if row.name == agent), None)
    accepted = wait.call(lambda: ledger.audits.accepted_commands(agent, _MAX_COMMANDS))
    verified = wait.call(lambda: ledger.audits.verified(agent))
    reader = _JournalReader(ledger, agent, origin, wait, show)
    journal = reader.read()
    side = LedgerSide(
        agent,
        known=wait.call(lambda: ledger.audits.look_up(_named_in(journal))),
        unmatched=wait.call(lambda: ledger.audits.unmatched_results(agent)),
        accepted=accepted,
        status_head=status.audit_head if status else None,
        verified=verified,
        accepts_unsigned=status.accepts_unsigned if status else False,
        requested_by=reader.requests[0],
        requests=tuple(reader.requests),
    )
    return journal, side


def _named_in(journal: GetAuditJournalData) -> list[str]:
    names: dict[str, None] = {}
    for page in journal.pages:
        for line in page.entries:
            try:
                entry = _decode(line)
            except (msgspec.DecodeError, UnicodeError):
                continue  # the comparison reports it
            named = [accepted.id for accepted in entry.accepted] + [reported.id for reported in entry.reported]
            names.update(dict.fromkeys([*named, *entry.begun, *entry.resumed, *entry.deleted]))
    return list(names)


class _JournalReader:
    """Sends get-audit-journal until it has the journal up to the head in the first answer."""

    def __init__(
        self, ledger: Ledger, agent: str, origin: Origin, wait: Wait, show: Callable[[LedgerRow], None]
    ) -> None:
        self._ledger = ledger
        self._agent = agent
        self._origin = origin
        self._wait = wait
        self._show = show
        self._pages: list[JournalPage] = []
        self.requests: list[str] = []

    def read(self) -> GetAuditJournalData:
        first = answer = self._request(1)
        for _ in range(_MAX_ANSWERS):
            reached = self._reached
            self._take(answer)
            if self._reached >= first.head.number or self._reached == reached:
                return GetAuditJournalData(first.anchor, first.head, tuple(self._up_to(first.head)))
            answer = self._request(self._reached + 1)
        raise AuditError(f"The journal of {self._agent} did not end within {_MAX_ANSWERS} parts.", code="endless")

    @property
    def _reached(self) -> int:
        return self._pages[-1].last if self._pages else 0

    def _take(self, answer: GetAuditJournalData) -> None:
        for page in answer.pages:
            if self._pages and page.first == self._pages[-1].first:
                self._pages[-1] = page  # it has grown
            elif page.first > self._reached:
                self._pages.append(page)

    def _up_to(self, head: JournalMark) -> list[JournalPage]:
        kept = (page for page in self._pages if page.first <= head.number)
        return [JournalPage(it.first, it.before, it.entries[: head.number - it.first + 1]) for it in kept]

    def _request(self, first: int) -> GetAuditJournalData:
        command = self._wait.call(lambda: self._add(first))
        self.requests.append(command.id)
        row = wait_for_command(self._ledger, command.id, self._wait, self._show)
        require_success(row.command.id, _TYPE, self._agent, row.state, row.result, self._wait.wait_s)
        return self._data(row)

    def _add(self, first: int) -> Command:
        expires_in_s = max(self._wait.left_s, 0.001)
        request = CommandRequest(_TYPE, {"first": first}, self._origin, expires_in_s=expires_in_s)
        return self._ledger.add_command(self._agent, request)

    def _data(self, row: LedgerRow) -> GetAuditJournalData:
        try:
            return msgspec.convert((row.result or {}).get("data"), GetAuditJournalData)
        except msgspec.ValidationError as error:
            raise AuditError(f"The journal of {self._agent} cannot be read: {error}.", code="malformed") from error
