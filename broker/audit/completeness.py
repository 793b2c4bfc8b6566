"""Checks that the journal has everything the server has seen: accepted commands, results, and the request itself."""

from broker.audit.findings import Findings, LedgerSide, describe
from broker.audit.replay import Replay, order
from broker.contract.messages import JournalMark, SequenceNumber
from broker.contract.states import ErrorCode
from broker.ledger.audits import KnownCommand
from broker.ledger.tables import CommandState

__all__ = [
    "check_completeness",
]


# A command that was answered with one of these was never in the agent's store.
_NEVER_STORED = (ErrorCode.REJECTED, ErrorCode.SUPERSEDED)


def check_completeness(head: JournalMark, side: LedgerSide, replayed: Replay, findings: Findings) -> None:
    """Report each command and result that the journal lacks."""
    if side.requested_by not in replayed.lives:
        reason = "the journal does not hold the command that requested it"
        findings.add_difference("request_missing", head.number + 1, reason, side.requested_by)
    for known in side.accepted:
        number = _number_before(known.sequence, replayed, head)
        if known.command_id in replayed.lives:
            if _lacks_result(known, replayed):
                reason = (
                    f"the ledger holds the result {known.digest} of {describe(known.sequence)}; the journal does not"
                )
                findings.add_difference("result_missing", number, reason, known.command_id)
        elif known.code not in _NEVER_STORED and _reaches_back_to(known.sequence, replayed):
            reason = f"the agent accepted {describe(known.sequence)} ({known.state}); the journal does not hold it"
            findings.add_difference("command_missing", number, reason, known.command_id)


def _lacks_result(known: KnownCommand, replayed: Replay) -> bool:
    life = replayed.lives[known.command_id]
    return known.state is CommandState.COMPLETED and life.reported is None and not life.is_cut


def _reaches_back_to(sequence: SequenceNumber, replayed: Replay) -> bool:
    opened = replayed.opened
    if opened is not None and not opened.message and not opened.held:
        return True
    return bool(replayed.numbered) and order(sequence) > order(replayed.numbered[0][0])


def _number_before(sequence: SequenceNumber, replayed: Replay, head: JournalMark) -> int:
    """Return the number of the first entry that should come after this command's, or the one after the last."""
    later = (number for other, number in replayed.numbered if order(other) > order(sequence))
    return next(later, head.number + 1)
