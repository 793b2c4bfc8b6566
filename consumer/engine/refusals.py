"""Messages that the agent refuses: counted, logged at a limited rate, and shown in the status for a while."""

from collections.abc import Callable
from typing import Any

import structlog

from broker.contract.states import ErrorCode, Problem
from broker.system.log_throttle import LogThrottle
from consumer.engine.problems import Problems
from consumer.engine.watch import AgentWatch
from consumer.trust.refusal import Refusal

__all__ = ["Refusals"]


_log = structlog.get_logger(__name__)
_MIN_SHOWN_S = 600.0  # operators look at the status only occasionally, and acks arrive all the time


class Refusals:
    """The newest reason stays in the status for ten minutes, and then until a message is accepted."""

    def __init__(self, problems: Problems, monotonic: Callable[[], float], watch: AgentWatch) -> None:
        self._problems = problems
        self._watch = watch
        self._monotonic = monotonic
        self._throttle = LogThrottle(monotonic)
        self._shown_until = 0.0

    def refuse(self, refusal: Refusal, event: str = "message_refused", *, topic: str = "", **facts: Any) -> None:
        """Log and show why a message was refused. Logged at most once a minute for each event and topic."""
        self._watch.refused(refusal.code)
        facts |= {"topic": topic} if topic else {}
        self._throttle.warn(_log, event, topic, **facts, code=refusal.code, reason=refusal.message)
        self._problems.report(Problem.MESSAGE, refusal.message)
        self._shown_until = self._monotonic() + _MIN_SHOWN_S

    def superseded(self) -> None:
        """Count a command whose number is used up. The answer tells its server, which numbers it again: no problem."""
        self._watch.refused(ErrorCode.SUPERSEDED)

    def accepted(self) -> None:
        """Note that a message was accepted; a refusal that was shown long enough is then removed from the status."""
        if self._monotonic() >= self._shown_until:
            self._problems.report(Problem.MESSAGE, None)
