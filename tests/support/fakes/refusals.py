"""The refusals of messages, kept for the test."""

from dataclasses import dataclass
from typing import Any

from broker.contract.messages import Feedback
from consumer.engine.problems import Problems
from consumer.engine.refusals import Refusals
from consumer.engine.watch import AgentWatch
from consumer.trust.refusal import Refusal
from tests.support.fakes.clock import TurnedClock


class KeptRefusals(Refusals):
    """Keeps every refusal beside what the status shows."""

    def __init__(self, watch: AgentWatch | None = None) -> None:
        self.problems = Problems()
        self.refused: list[Refusal] = []
        super().__init__(self.problems, TurnedClock().monotonic, watch or AgentWatch())

    def refuse(self, refusal: Refusal, event: str = "message_refused", *, topic: str = "", **facts: Any) -> None:
        self.refused.append(refusal)
        super().refuse(refusal, event, topic=topic, **facts)


@dataclass(frozen=True)
class Receipt:
    """What a receiver did with some messages."""

    feedback: list[Feedback]
    refused: list[Refusal]
