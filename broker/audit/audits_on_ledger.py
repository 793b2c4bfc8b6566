"""Audits of the agents of a ledger, as a principal may ask for them."""

from collections.abc import Callable

from broker.audit.comparison import Verdict, compare
from broker.audit.request import request_audit
from broker.contract.messages import Origin
from broker.fleet.models import CommandView
from broker.fleet.report_models import AuditDifference, AuditVerdict, JournalPlace
from broker.fleet.views import view_of_command
from broker.fleet.visibility import Visible
from broker.ledger.also import Also, nothing_else
from broker.ledger.ledger import Ledger
from broker.ledger.waiting import Wait

__all__ = [
    "LedgerAudits",
]


_MAX_SHOWN = 100  # differences


class LedgerAudits:
    """The `JournalAudits` of a ledger, for all its agents or for those in one of `groups`.

    `origin` is that of the commands; `wait` makes the wait of an audit; `also` writes what belongs to its outcome.
    """

    def __init__(
        self,
        ledger: Ledger,
        origin: Origin,
        groups: frozenset[str] | None = None,
        *,
        wait: Callable[[float], Wait] = Wait,
        also: Also[str] = nothing_else,
    ) -> None:
        self._ledger = ledger
        self._origin = origin
        self._visible = Visible(ledger, groups)
        self._wait = wait
        self._also = also

    def verify_journal(
        self, agent: str, wait_s: float, seen: Callable[[CommandView], None] | None = None
    ) -> AuditVerdict:
        """Return the differences, and remember up to where there were none."""
        audits, within = self._ledger.audits, self._wait(wait_s)
        verdict, requests = self._compared(agent, within, seen)
        if not verdict.differences:
            within.call(lambda: audits.mark_verified(agent, verdict.head, self._also))
            within.call(lambda: audits.drop_pages(requests))
        return _view(agent, verdict)

    def accept_journal(
        self, agent: str, wait_s: float, seen: Callable[[CommandView], None] | None = None
    ) -> AuditVerdict:
        """Return the differences, and report those up to here never again."""
        audits, within = self._ledger.audits, self._wait(wait_s)
        verdict, requests = self._compared(agent, within, seen)
        within.call(lambda: audits.accept(agent, verdict.head, self._also))
        within.call(lambda: audits.drop_pages(requests))
        return _view(agent, verdict)

    def _compared(
        self, agent: str, within: Wait, seen: Callable[[CommandView], None] | None
    ) -> tuple[Verdict, tuple[str, ...]]:
        self._visible.agent(agent)
        show = seen or (lambda _: None)
        journal, side = request_audit(self._ledger, agent, self._origin, within, lambda row: show(view_of_command(row)))
        return compare(journal, side), side.requests


def _view(agent: str, verdict: Verdict) -> AuditVerdict:
    return AuditVerdict(
        agent,
        agrees=not verdict.differences,
        differences=tuple(AuditDifference(**vars(it)) for it in verdict.differences[:_MAX_SHOWN]),
        difference_count=len(verdict.differences),
        notes=verdict.notes,
        entries=verdict.entries,
        commands=verdict.commands,
        since=verdict.since,
        until=verdict.until,
        head=JournalPlace(verdict.head.number, verdict.head.hash),
    )
