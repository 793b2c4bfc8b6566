"""Structured logs on stderr, without secrets and without control characters."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from broker.contract.secret_shapes import mask_shapes
from broker.contract.secrets import MASK, is_secret_name
from broker.text import printable, printable_line

__all__ = [
    "configure_logs",
]


def plain_event(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Remove control characters from every text of a log line; a processor of structlog."""
    return {printable_line(str(name)): _plain_value(value) for name, value in event.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    return printable(value if isinstance(value, str) else str(value))


def configure_logs(level: str) -> None:
    """Log to stderr as lines of key=value, with secrets masked, which are recognized by key or shape.

    Control characters, which could control a terminal, are replaced.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _without_secrets,
            plain_event,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _without_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {name: MASK if is_secret_name(name) else _masked(value) for name, value in event.items()}


def _masked(value: object) -> object:
    return mask_shapes(str(value)) if isinstance(value, str | BaseException) else value
