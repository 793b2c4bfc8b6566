"""Messages that the agent refuses: logged at a limited rate, and shown in the status for a while."""

from collections.abc import Callable
from typing import Any

import structlog

from broker.system.log_throttle import LogThrottle
from consumer.engine.problems import Problem, Problems

__all__ = ["Refusals"]


_log = structlog.get_logger(__name__)
_MIN_SHOWN_S = 600.0  # an operator looks at the status only now and then, and acks arrive all the time


class Refusals:
    """The newest reason stays in the status for ten minutes, and then until a message is accepted."""

    def __init__(self, problems: Problems, monotonic: Callable[[], float]) -> None:
        self._problems = problems
        self._monotonic = monotonic
        self._throttle = LogThrottle(monotonic)
        self._shown_until = 0.0

    def refuse(self, reason: str, event: str = "message_refused", **facts: Any) -> None:
        """Log and show why a message was refused; `reason` is one sentence."""
        suppressed = self._throttle.allow(event)
        if suppressed is not None:
            _log.warning(event, **facts, reason=reason, suppressed=suppressed)
        self._problems.report(Problem.MESSAGE, reason)
        self._shown_until = self._monotonic() + _MIN_SHOWN_S

    def accepted(self) -> None:
        """Note that a message was accepted: the last refusal is history once it was shown long enough."""
        if self._monotonic() >= self._shown_until:
            self._problems.report(Problem.MESSAGE, None)
