"""Structured logs on stderr, without secrets, control characters and floods; docs/logs.md lists all events.

Everything goes through them: the logs of libraries, which use Python's logging, and the errors that end a thread.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, MutableMapping
from time import monotonic
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from broker.contract.secret_shapes import mask_shapes
from broker.contract.secrets import MASK, is_secret_name
from broker.errors import CodedError
from broker.system.command_log import WriteCommandLines
from broker.system.log_lines import console_line, json_line
from broker.system.log_throttle import LogLimit
from broker.text import printable, printable_line

__all__ = [
    "configure_logs",
    "reload_log_level",
]


def plain_event(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Remove control characters from every text of a log line; a processor of structlog."""
    return {printable_line(str(name)): _plain_value(value) for name, value in event.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    return printable(value if isinstance(value, str) else _text_of(value))


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}, which has no text: {type(error).__name__}>"


def configure_logs(level: str) -> None:
    """Log to stderr: for people if it is a terminal now, else as lines of JSON. Secrets are masked, by key or shape.

    Control characters, which could control a terminal, are replaced, and what is more than a reader needs of one event
    is omitted (see `LogLimit`). A failure of stderr is ignored: what is logged matters less than the program.
    """
    is_terminal = _is_terminal()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        processors=[
            WriteCommandLines(_LineLogger().msg, as_json=not is_terminal),
            LogLimit(monotonic),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _without_secrets,
            plain_event,
            console_line if is_terminal else json_line,
        ],
        logger_factory=_LineLogger,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)
    threading.excepthook = _log_end_of_thread


def reload_log_level(read: Callable[[], str]) -> None:
    """Use the level that `read` returns from now on; if it raises CodedError, log that and keep the present one."""
    try:
        configure_logs(read())
    except CodedError as error:
        structlog.get_logger("acm.logs").error("configuration_not_read", code=error.code, reason=str(error))


def _is_terminal() -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # as in `_LineLogger`
        return sys.stderr.isatty()
    return False


class _LineLogger:
    """Writes each line to the stderr of that moment; a failure of it, also of none, is ignored."""

    def __init__(self, *_: object) -> None:
        """Take no notice of what structlog passes to a logger that it makes."""

    def msg(self, line: str) -> None:
        # full disk, closed pipe; closed stream; none at all
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    log = debug = info = warning = warn = error = err = critical = exception = fatal = failure = msg


class _FromLibraries(logging.Handler):
    """Takes what libraries log, as the event `library_warning`."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a message that does not fit its arguments
            message = record.getMessage()
            log = structlog.get_logger(record.name)
            log.log(
                record.levelno,
                "library_warning",
                logger=record.name,
                message=message,
                exc_info=record.exc_info or None,
            )


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit or ended.exc_value is None:
        return
    thread = ended.thread.name if ended.thread else ""
    structlog.get_logger("acm.threads").critical("thread_ended", thread=thread, exc_info=ended.exc_value)


def _without_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {name: MASK if is_secret_name(name) else _masked(value) for name, value in event.items()}


def _masked(value: object) -> object:
    return mask_shapes(_text_of(value)) if isinstance(value, str | BaseException) else value
