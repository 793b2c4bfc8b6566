"""get-audit-journal: the agent's journal of what it has accepted, run, reported and deleted."""

from broker.contract.commands.get_audit_journal import GetAuditJournal, GetAuditJournalData
from broker.contract.messages import Command
from consumer.handler import Context, Handler, Interruption, Result
from consumer.store.reader import read_journal

__all__ = [
    "HANDLER",
]


_MAX_BYTES = 1 << 17
_BESIDE_BYTES = 8192  # of a result: the command, the times, and the hashes beside the entries


def _execute(command: Command, parameters: GetAuditJournal, context: Context) -> Result:
    room = context.max_result_bytes() - _BESIDE_BYTES
    copy = read_journal(context.state, parameters.first, min(_MAX_BYTES, room))
    data = GetAuditJournalData(copy.anchor, copy.head, copy.pages)
    if not copy.pages:
        return Result(f"The journal ends with number {copy.head.number}.", data)
    first, last = copy.pages[0].first, copy.pages[-1].last
    return Result(f"The entries {first} to {last} of {copy.head.number} are in the data.", data)


HANDLER = Handler("get-audit-journal", Interruption.RERUN, GetAuditJournal, _execute)
