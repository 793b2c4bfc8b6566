"""Managed services: none (the agent's own process), a child process, a systemd unit, or the embedding program."""

from consumer.services.callbacks import CallbackService
from consumer.services.child import ChildService
from consumer.services.none import NoService
from consumer.services.systemd import SystemdService

__all__ = [
    "CallbackService",
    "ChildService",
    "NoService",
    "SystemdService",
]
