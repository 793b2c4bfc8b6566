"""What the parts of acm's command line share: options, output, logs and signals."""

import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

__all__ = ["ConfigOption", "JsonOption", "LedgerOption", "configure_logs", "on_signals", "print_json"]

ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML configuration file.")]
LedgerOption = Annotated[
    str | None, typer.Option("--ledger", help="Database URL, for example sqlite:////var/lib/acm/ledger.db.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def print_json(document: Any) -> None:
    """Print one JSON document on a line."""
    typer.echo(json.dumps(document))


def configure_logs(level: str) -> None:
    """Log to stderr as lines of key=value."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextlib.contextmanager
def on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on TERM and INT while the block runs."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
