"""Output of a command line: for people, text that cannot control the terminal; for programs, documents and lists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from broker.console.formats import DocumentFormat, ListOptions, print_document, print_list
from broker.console.listing import Listing
from broker.text import printable, printable_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = [
    "Printer",
    "literal",
    "millisecond",
    "minute",
    "print_text",
    "second",
    "seconds",
]

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Printer:
    """Prints what a command shows in the format that its user asks for: a document, or a list with `list_options`."""

    document_format: DocumentFormat = DocumentFormat.TEXT
    list_options: ListOptions = field(default_factory=ListOptions)

    @property
    def for_programs(self) -> bool:
        """Whether stdout gets one JSON or YAML document, and nothing else."""
        return self.document_format is not DocumentFormat.TEXT

    def show(self, document: Any, view: "RenderableType") -> None:
        """Print `document` for programs, or `view` for people."""
        if self.for_programs:
            print_document(document, self.document_format)
        elif isinstance(view, str):
            print_text(view)
        else:
            from broker.console.views import print_view

            print_view(view)

    def show_list(
        self,
        listing: Listing[_Row],
        read: Callable[[], Sequence[_Row]],
        *,
        limit: int | None = None,
        document: Any = None,
        title: str | None = None,
    ) -> None:
        """Print the rows that `read` returns, at most `limit`, and whether there are more.

        `document` takes the place of the array of rows for programs. A `title` says more than the number of rows; it is
        on stderr if the format has none. Raises InvalidArgument for a column that does not exist.
        """
        rows = read()
        if self.for_programs and document is not None:
            print_document(document, self.document_format)
            return
        is_cut = limit is not None and len(rows) > limit
        count = listing.counted(len(rows[:limit])) + (" shown; there are more, see --limit" if is_cut else "")
        print_list(listing, rows[:limit], self.list_options, title or count)
        if (is_cut or title) and not self.list_options.has_title:
            print_text(title or count, to_stderr=True)


def print_text(text: str, *, to_stderr: bool = False) -> None:
    """Print text that may come from others, so that it cannot control the terminal."""
    typer.echo(printable(text), err=to_stderr)


def literal(text: str) -> "Text":
    """Return text from others on one line, so that it neither controls the terminal nor is read as markup."""
    from rich.text import Text

    return Text(printable_line(text))


def millisecond(moment: datetime) -> str:
    """Return a time in UTC for people, to the millisecond."""
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}"


def seconds(duration_s: float) -> str:
    """Return a duration for people: to the millisecond below ten seconds."""
    return f"{duration_s:.3f} s" if abs(duration_s) < 10 else f"{duration_s:.1f} s"


def minute(moment: datetime | None) -> str:
    """Return a time in UTC for people, to the minute; empty for None."""
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def second(moment: datetime | None) -> str:
    """Return a time in UTC for people, to the second; empty for None."""
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""
