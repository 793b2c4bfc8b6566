"""A managed service as the agent uses it: in its loop, in its status, and when it exits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from broker.system.retry import growing_waits
from consumer.errors import ServiceError
from consumer.ports import BackgroundTask, Clock, Service, ServiceState
from consumer.services.child import ChildService
from consumer.services.none import NoService
from consumer.services.systemd import SystemdService
from consumer.settings import AgentConfig

__all__ = [
    "ManagedService",
    "managed_service",
]


_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ManagedService:
    """A service with its background `tasks`; `shut_down` stops it when the agent exits.

    `problem` is why it does not run though it should, in one sentence. `cheap_state` is set only if reading the state
    is cheap enough for every status: systemd or the embedding program may take long to answer.
    """

    service: Service
    tasks: tuple[BackgroundTask, ...] = ()
    cheap_state: Callable[[], ServiceState] | None = None
    shut_down: Callable[[], object] = lambda: None
    problem: Callable[[], str | None] = lambda: None


def _shut_down(child: ChildService) -> None:
    try:
        child.shut_down()
    except ServiceError as error:
        _log.error("service_not_stopped", reason=str(error))


def managed_service(config: AgentConfig, clock: Clock) -> ManagedService:
    """Return the configured service."""
    wanted = config.service
    if wanted.kind == "child":
        child = ChildService(
            wanted.argv,
            Path(config.state),
            clock,
            growing_waits,
            grace_s=wanted.stop_grace_s,
            settle_s=wanted.settle_s,
        )
        return ManagedService(child, (child,), child.state, partial(_shut_down, child), child.problem)
    if wanted.kind == "systemd":
        return ManagedService(SystemdService(wanted.unit or "", clock, settle_s=wanted.settle_s))
    return ManagedService(NoService())
