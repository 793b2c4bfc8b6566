"""Notified of the server's work, so that it can be counted and logged."""

from collections.abc import Mapping, Sequence

from broker.contract.messages import Ack
from broker.contract.states import ErrorCode
from broker.contract.trace_context import TraceContext
from broker.ledger.outbox import Claimed
from broker.ledger.turns import RecordedTurn, Said

__all__ = [
    "ServerWatch",
]


class ServerWatch:
    """Notified of what the server has done, once it is committed, by the thread that did it; ignores it."""

    def claimed(self, claimed: Claimed) -> None:
        """Commands and cancels are to be published now."""

    def arrived(self, agent: str, said: Sequence[Said], trace: TraceContext) -> None:
        """An agent has said this in a message with the context of a trace; `recording` follows."""

    def recording(self) -> None:
        """What agents have said will now be recorded."""

    def acked(self, agent: str, acks: Sequence[Ack]) -> None:
        """Results of an agent, stored or known before, are acknowledged to it; `recorded` of their turn follows."""

    def recorded(self, said: Mapping[str, Sequence[Said]], turn: RecordedTurn) -> None:
        """What agents have said was recorded, and the acks for it were published."""

    def completed_by_server(self, code: ErrorCode, count: int = 1) -> None:
        """Commands were completed with this error, without a result of their agents."""

    def refused(self, reason: str, count: int = 1) -> None:
        """Messages of agents were refused or dropped."""

    def turn_ended(self, seconds: float, *, failed: bool) -> None:
        """A turn of the server's loop took so long; `failed`: the ledger or the keys could not be used."""
