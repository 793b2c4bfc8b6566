"""What acm and acm-agent do with their own process: what they log, and that no secret of theirs can be read in it."""

import ctypes
import logging
import os
import sys
from collections.abc import Iterable, MutableMapping

import structlog
from structlog.typing import EventDict, WrappedLogger

from broker.contract.plain_text import plain_event
from broker.contract.secrets import MASK, mask_shapes, tells_of_secret

__all__ = ["configure_logs", "forbid_dumps", "take_out"]

_PR_SET_DUMPABLE = 4


def configure_logs(level: str) -> None:
    """Log to stderr as lines of key=value, without what is known as a secret by its key or its shape.

    What would control a terminal is replaced.
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
    return {name: MASK if tells_of_secret(name) else _masked(value) for name, value in event.items()}


def _masked(value: object) -> object:
    return mask_shapes(str(value)) if isinstance(value, str | BaseException) else value


def forbid_dumps() -> None:
    """Let this process leave no core dump, and let nobody but root look into it; until it becomes another program.

    That is PR_SET_DUMPABLE of prctl(2). A limit of 0 on core dumps is not enough: the kernel does not hold a program
    that takes dumps (core_pattern) to it, children inherit it, and the environment stays readable in /proc.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def take_out(names: Iterable[str], environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Take these variables out of the environment, so that no child inherits them, and return those that were there."""
    return {name: environment.pop(name) for name in names if name in environment}
