"""The session of a command of acm, and the options that it is created from."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from broker.app.config import is_configured
from broker.app.default_directory import default_settings
from broker.cli.parts import Parts
from broker.cli.where import ApiChoice, api_options, chosen_api, refuse_api
from broker.console.listing import Listing
from broker.console.output import Printer
from broker.console.output_options import option, output_options, take_printer, with_options

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "CA",
    "CA_DIR",
    "CRL",
    "LEDGER",
    "ConfigOverride",
    "Session",
    "completing_session",
    "with_session",
]


_Row = TypeVar("_Row")


class Session(Parts):
    """One call of acm: the parts that its configuration names, and its output."""

    def show(self, document: Any, view: "RenderableType") -> None:
        """Print `document` for programs, or `view` for people."""
        self.printer.show(document, view)

    def show_list(
        self, listing: Listing[_Row], read: Callable[[], Sequence[_Row]], *, limit: int | None = None
    ) -> None:
        """Print the rows that `read` returns, at most `limit`: it returns one more if there are more."""
        if not self.printer.list_options.watch:
            self.printer.show_list(listing, read, limit=limit)
            return
        from broker.cli.watching import EachPause, watch_list

        if self.is_over_api:
            watch_list(listing, lambda: read()[:limit], self.printer.list_options, EachPause())
            return
        with self.database.changes() as changes:
            watch_list(listing, lambda: read()[:limit], self.printer.list_options, changes)


@dataclass(frozen=True)
class ConfigOverride:
    """An option that overrides the member `key` of the configuration."""

    key: str
    option: Any


_CONFIG_VARIABLE = "ACM_CONFIG"
_CONFIG = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar=_CONFIG_VARIABLE,
        metavar="FILE",
        help="TOML configuration file (default: that of `acm up`, if nothing else configures the call).",
    ),
]
_CONFIG_OF_ITS_OWN = Annotated[
    Path | None, typer.Option("--config", envvar=_CONFIG_VARIABLE, metavar="FILE", help="TOML configuration file.")
]
_LOCAL = ("acm-ledger.db", "acm-ca")
LEDGER = ConfigOverride(
    "ledger",
    typer.Option("--ledger", metavar="URL", help="Database URL of the ledger (default: sqlite:///acm-ledger.db)."),
)
CA = ConfigOverride(
    "ca", typer.Option("--ca", metavar="DIR", help="Directory of the certificate authority (default: acm-ca).")
)
CA_DIR = ConfigOverride(
    "ca", typer.Option("--dir", metavar="DIR", help="Directory of the certificate authority (default: acm-ca).")
)
CRL = ConfigOverride(
    "crl",
    typer.Option(
        "--crl", metavar="FILE", help="Revocation list to write (default: crl.pem in the directory of the authority)."
    ),
)


def with_session(
    *overrides: ConfigOverride,
    prints: bool = True,
    lists: Listing[Any] | None = None,
    watches: bool = False,
    over_api: bool = False,
    creates_ledger: bool = False,
    only_reads: bool = False,
    uses_default: bool = True,
    is_group: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Pass a command a Session as its first argument, made from --config, the options `overrides`, and its output.

    The command prints one document, or the list `lists`, which it `watches` if it is asked to, or with `prints` false
    nothing that has a format. It works `over_api`, too, or refuses the options that name an API. Only a command that
    `creates_ledger`, because it has something to store, creates a ledger that does not exist. One that `only_reads`
    changes nothing of it: it migrates no older one either. One that makes or runs an installation is not
    `uses_default`: it does not look for the configuration that `acm up` has made. One that `is_group` is not called
    when a command of it is.

    This declares the options that commands share once: the decorated function has the command's own parameters and
    these, and typer reads its signature.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        config_option = _CONFIG if uses_default else _CONFIG_OF_ITS_OWN
        shared = {"config": config_option, **{it.key: Annotated[str | None, it.option] for it in overrides}}
        options = [option(name, annotation) for name, annotation in shared.items()]
        options += api_options(hidden=not over_api)
        options += [option("group_context", typer.Context)] if is_group else []
        finds_ledger = uses_default and LEDGER in overrides

        def call(values: dict[str, Any]) -> None:
            printer, config_file = take_printer(values), values.pop("config")
            flags = {override.key: values.pop(override.key) for override in overrides}
            names_machine = over_api and any(flags.values())  # also by the directory of an authority
            choice = ApiChoice.take(values, names_ledger=names_machine or _name_ledger(flags, config_file))
            if is_group and (called := values.pop("group_context").invoked_subcommand) is not None:
                choice.refuse_before(called)
                return
            api = chosen_api(choice) if over_api else None
            if not over_api:
                refuse_api(choice, finds_ledger=finds_ledger)
            if uses_default and config_file is None and api is None:
                config_file = _found_config(flags)
            session = Session(
                config_file, flags, printer=printer, api=api, creates_ledger=creates_ledger, only_reads=only_reads
            )
            with session:
                command(session, **values)

        return with_options(command, [*options, *(output_options(lists, watches=watches) if prints else [])], call)

    return decorate


# design.md: "One place is looked at, and only if nothing else configures a call"
def _found_config(flags: Mapping[str, str | None]) -> Path | None:
    """Return the configuration of `acm up` unless anything else configures this call."""
    if _CONFIG_VARIABLE in os.environ or is_configured(flags):
        return None
    return default_settings(Path(), _LOCAL)


def _name_ledger(flags: Mapping[str, str | None], config_file: Path | None) -> bool:
    """Whether options name a ledger; typer's value of --config may come from the environment."""
    is_option = config_file is not None and str(config_file) != os.environ.get(_CONFIG_VARIABLE)
    return flags.get(LEDGER.key) is not None or is_option


def completing_session(params: Mapping[str, Any]) -> Session:
    """Return the session in which the words of a command line are completed, by those of its options that are known.

    Raises as `chosen_api` does.
    """
    flags = {LEDGER.key: params.get(LEDGER.key)}
    given = params.get("config") or os.environ.get(_CONFIG_VARIABLE)
    config_file = Path(given) if given else None
    api = chosen_api(ApiChoice.take(dict(params), names_ledger=_name_ledger(flags, config_file)))
    if config_file is None and api is None:
        config_file = _found_config(flags)
    return Session(config_file, flags, printer=Printer(), api=api, hurries=True, only_reads=True)
