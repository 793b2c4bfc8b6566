"""What agents have said, recorded in a ledger as the server does it, for tests of one message."""

from collections.abc import Collection, Sequence

from broker.contract.messages import Feedback, Status
from broker.ledger.feedback import Recorded
from broker.ledger.ledger import Ledger
from broker.ledger.status import RecordedStatuses

__all__ = ["record_feedback", "record_status"]


def record_feedback(ledger: Ledger, agent: str, feedbacks: Sequence[Feedback]) -> Recorded:
    """Record feedback of one agent."""
    ((_, recorded),) = ledger.record_turn({agent: feedbacks}).feedback
    return recorded


def record_status(ledger: Ledger, *statuses: Status, repeated: Collection[str] = ()) -> RecordedStatuses:
    """Record statuses of agents."""
    said = {it.agent: [other for other in statuses if other.agent == it.agent] for it in statuses}
    return ledger.record_turn(said, repeated=repeated).statuses
