"""The refusals of messages, kept for the test."""

from dataclasses import dataclass
from typing import Any

from broker.contract.messages import Feedback
from consumer.engine.problems import Problems
from consumer.engine.refusals import Refusals
from tests.support.fakes.clock import TurnedClock


class KeptRefusals(Refusals):
    """Keeps every reason beside what the status shows."""

    def __init__(self) -> None:
        self.problems = Problems()
        self.reasons: list[str] = []
        super().__init__(self.problems, TurnedClock().monotonic)

    def refuse(self, reason: str, event: str = "message_refused", **facts: Any) -> None:
        self.reasons.append(reason)
        super().refuse(reason, event, **facts)


@dataclass(frozen=True)
class Receipt:
    """What a receiver did with some messages."""

    feedback: list[Feedback]
    refused: list[str]
