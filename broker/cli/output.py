"""What acm prints: JSON for programs, text that cannot control the terminal for people."""

import json
from datetime import datetime
from typing import Any

import typer
from rich.text import Text

from broker.text import plain

__all__ = [
    "iso",
    "literal",
    "print_json",
    "say",
]


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print what may hold words of others: it cannot control the terminal."""
    typer.echo(plain(text), err=to_stderr)


def print_json(document: Any) -> None:
    """Print one JSON document on a line, in ASCII: what could control a terminal is escaped."""
    typer.echo(json.dumps(document))


def literal(text: str) -> Text:
    """Return what others wrote as it is, on one line: it neither controls the terminal nor is read as markup."""
    return Text(plain(text, kept=""))


def iso(moment: datetime | None) -> str | None:
    """Return a time in UTC as RFC 3339 writes it."""
    return moment.isoformat().replace("+00:00", "Z") if moment else None
