"""What the agent needs of a change from one enrolment to another."""

import threading
from typing import Protocol

from consumer.enrolment.store import Attempt, Enrolment

__all__ = [
    "Relocation",
]


class Relocation(Protocol):
    """Lets the agent live by another enrolment: first on trial, then for good once its last results are delivered."""

    @property
    def holds(self) -> bool:
        """Whether no command may begin: this process is about to be replaced."""

    @property
    def refusal(self) -> str | None:
        """Why commands that have not begun must not begin any more, in one sentence: the agent leaves their server."""

    def try_out(self, enrolment: Enrolment, deadline: float, cancelled: threading.Event) -> None:
        """Let the enrolment carry a result, while the agent's own connection is down; it is taken up again after.

        Raises EnrolmentError when no server has acknowledged the result by the deadline, or when cancelled.
        """

    def leave_for(self, attempt: Attempt) -> None:
        """Make it durable that the agent goes on by this attempt's enrolment once its command's result is delivered.

        Raises EnrolmentError when it could not be made durable; then nothing was decided.
        """
