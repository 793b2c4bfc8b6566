"""The options for the format of what a command prints, declared once: `-o`, `--json` and those of lists."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from broker.console.formats import DocumentFormat, ListFormat, ListOptions
from broker.console.listing import Listing
from broker.console.output import Printer
from broker.errors import InvalidArgument

__all__ = [
    "option",
    "output_options",
    "take_printer",
    "with_options",
    "with_printer",
]


_JSON = Annotated[bool, typer.Option("--json", help="Short for -o json.")]
_DOCUMENT_FORMAT = Annotated[DocumentFormat | None, typer.Option("--output", "-o", help="Format (default: text).")]
_LIST_FORMAT = Annotated[
    ListFormat | None,
    typer.Option("--output", "-o", help="Format (default: table on a terminal, elsewhere plain: one line per row)."),
]
_NO_HEADERS = Annotated[bool, typer.Option("--no-headers", help="Leave out the title and the names of columns.")]
_WATCH = Annotated[
    bool,
    typer.Option("--watch", "-w", help="Then print each row that is new or has changed, until Ctrl-C."),
]
_TEXT_FORMATS = {ListFormat.JSON: DocumentFormat.JSON, ListFormat.YAML: DocumentFormat.YAML}


def output_options(listing: Listing[Any] | None, *, watches: bool = False) -> list[inspect.Parameter]:
    """Return the options of a command that prints one document, or with `listing` such a list, which it may watch."""
    if listing is None:
        return [option("as_json", _JSON, False), option("output", _DOCUMENT_FORMAT)]
    names = ", ".join(listing.column_names)
    complete = listing.columns_beginning_with
    columns = typer.Option(
        "--columns", metavar="NAMES", autocompletion=complete, help=f"Show these, separated by commas: {names}."
    )
    sort = typer.Option(
        "--sort",
        metavar="[-]COLUMN",
        autocompletion=complete,
        help="Sort what is shown by a column; `-` reverses the order.",
    )
    return [
        option("as_json", _JSON, False),
        option("output", _LIST_FORMAT),
        option("columns", Annotated[str | None, columns]),
        option("sort", Annotated[str | None, sort]),
        option("no_headers", _NO_HEADERS, False),
        *([option("watch", _WATCH, False)] if watches else []),
    ]


def take_printer(values: dict[str, Any]) -> Printer:
    """Remove the values of these options, and return the output that they ask for. Raises InvalidArgument."""
    form, as_json = values.pop("output", None), values.pop("as_json", False)
    if as_json and form not in (None, "json"):
        raise InvalidArgument(f"--json cannot be used with -o {form}: leave one out.", code="conflicting_options")
    if "columns" not in values:
        return Printer(DocumentFormat.JSON if as_json else form or DocumentFormat.TEXT)
    chosen = ListFormat.JSON if as_json else form
    columns, sort, headers = values.pop("columns"), values.pop("sort"), not values.pop("no_headers")
    return Printer(
        _TEXT_FORMATS.get(chosen, DocumentFormat.TEXT) if chosen else DocumentFormat.TEXT,
        ListOptions(chosen, columns, sort, headers, values.pop("watch", False)),
    )


def with_printer(listing: Listing[Any] | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Pass a command a Printer as its first argument, made from the options of `output_options`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        return with_options(command, output_options(listing), lambda values: command(take_printer(values), **values))

    return decorate


def with_options(
    command: Callable[..., None], options: list[inspect.Parameter], call: Callable[[dict[str, Any]], None]
) -> Callable[..., None]:
    """Return a command with more options than `command` has, whose first argument is made from them by `call`.

    typer reads its signature.
    """

    @functools.wraps(command)
    def called(**values: Any) -> None:
        call(values)

    parameters = [*list(inspect.signature(command).parameters.values())[1:], *options]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def option(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    """Return the parameter of a command for an option."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
