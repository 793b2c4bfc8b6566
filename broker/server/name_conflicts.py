"""Notices that two processes run under one agent's name, as after a machine was cloned."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from broker.contract.limits import truncated
from broker.contract.messages import Status
from broker.system.log_throttle import LogThrottle

__all__ = ["NameConflicts"]


_log = structlog.get_logger("acm.server")
_REMEMBERED_S = 600.0
_MAX_AGENTS = 10_000
_MESSAGE = (
    "Two processes run under the name {agent}, and each ends the other's connection: enroll a cloned machine again "
    "under its own name, or stop one of them."
)


@dataclass
class _Incarnations:
    newest: str
    before: str | None = None
    conflict_until: float = 0.0


class NameConflicts:
    """Compares the incarnations in statuses: one that returns after another was online never ended.

    `monotonic` is a clock in seconds. Remembers at most 10,000 agents, those whose process changed last.
    """

    def __init__(self, monotonic: Callable[[], float], throttle: LogThrottle) -> None:
        self._monotonic = monotonic
        self._throttle = throttle
        self._agents: dict[str, _Incarnations] = {}

    def marked(self, status: Status) -> Status:
        """Return the status, with the conflict in its `last_error` until ten minutes have passed without one.

        Do not pass retained statuses: the broker may deliver them late.
        """
        known = self._agents.get(status.agent)
        if status.online and (known is None or known.newest != status.incarnation):
            known = self._changed(status, known)
        if known is None or self._monotonic() >= known.conflict_until:
            return status
        message = _MESSAGE.format(agent=status.agent)
        return truncated(replace(status, last_error=f"{message} {status.last_error or ''}".rstrip()))

    def _changed(self, status: Status, known: _Incarnations | None) -> _Incarnations:
        before, until = (known.newest, known.conflict_until) if known else (None, 0.0)
        if known is not None and status.incarnation == known.before:
            until = self._monotonic() + _REMEMBERED_S
            reason = _MESSAGE.format(agent=status.agent)
            self._throttle.warn(_log, "agent_name_used_twice", status.agent, agent=status.agent, reason=reason)
        self._agents.pop(status.agent, None)  # moves it to the end
        self._agents[status.agent] = _Incarnations(status.incarnation, before, until)
        if len(self._agents) > _MAX_AGENTS:
            del self._agents[next(iter(self._agents))]
        return self._agents[status.agent]
