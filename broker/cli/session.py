"""The session of a command of acm, and the options that it is created from."""

import contextlib
import getpass
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from broker.app.config import ServerConfig, is_configured, load_config
from broker.app.contexts import ApiContext
from broker.app.default_directory import default_settings
from broker.cli.where import ApiChoice, api_options, chosen_api, needs_ledger, refuse_api
from broker.console.listing import Listing
from broker.console.output import Printer, print_text
from broker.console.output_options import option, output_options, take_printer, with_options
from broker.contract.messages import Origin
from broker.text import encodable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from broker.contract.artifacts import Artifact
    from broker.enrolment.store import EnrolmentStore
    from broker.enrolment.tokens import TokenStore
    from broker.fleet.port import Fleet
    from broker.ledger.clock import LedgerClock
    from broker.ledger.database import Database
    from broker.ledger.ledger import Ledger
    from broker.pki.authority import CertificateAuthority
    from broker.signing.key_store import SigningKeyStore

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
_HURRY_S = 3.0


class Session:
    """One call of acm. The parts that its configuration names are opened at first use, and closed at the end.

    With `api`, only the fleet is there, over that API; everything besides raises InvalidArgument. One that `hurries`
    asks it once, and does not wait for long. Every property may raise ServerConfigurationError. The factories are
    imported when they are called, so that a command loads only the libraries that it uses.
    """

    def __init__(
        self,
        config_file: Path | None,
        overrides: Mapping[str, str | None],
        *,
        printer: Printer,
        api: ApiContext | None = None,
        hurries: bool = False,
        creates_ledger: bool = False,
        only_reads: bool = False,
    ) -> None:
        self._api = api
        self._hurries = hurries
        self.config_file = config_file
        self.overrides = overrides
        self.printer = printer
        self._creates_ledger = creates_ledger
        self._only_reads = only_reads
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def config(self) -> ServerConfig:
        """The configuration: options override the environment, the environment the file, the file the defaults."""
        return load_config(self.config_file, self.overrides)

    @property
    def is_over_api(self) -> bool:
        """Whether it works over an API, and not on a ledger."""
        return self._api is not None

    @cached_property
    def fleet(self) -> "Fleet":
        """What an operator sees of the fleet, and does with it, on the ledger or over the API; raises LedgerError."""
        if self._api is None:
            from broker.fleet.on_ledger import LedgerFleet

            return LedgerFleet(self.ledger, self.origin, tell=self.tell)
        from broker.client.client import Client

        ca = Path(self._api.ca) if self._api.ca else None
        patience: dict[str, Any] = {"attempts": 1, "answer_within_s": _HURRY_S} if self._hurries else {}
        return self._stack.enter_context(Client(self._api.server, self._api.token, ca=ca, tell=self.tell, **patience))

    @cached_property
    def database(self) -> "Database":
        """The database of the ledger and the enrolments; raises LedgerError."""
        if self.is_over_api:
            raise needs_ledger("This works")
        from broker.app.factories import open_configured_database

        database = open_configured_database(
            self.config.ledger,
            create=self._creates_ledger,
            read_only=self._only_reads,
            tell=self.tell,
        )
        return self._stack.enter_context(database)

    @cached_property
    def ledger(self) -> "Ledger":
        """The ledger; raises LedgerError."""
        from broker.ledger.ledger import Ledger

        return Ledger(self.database, now=self.clock)

    @cached_property
    def clock(self) -> "LedgerClock":
        """The clock that decides what expires: that of the ledger's database; raises LedgerError."""
        from broker.app.factories import utc_now
        from broker.ledger.clock import LedgerClock

        clock = LedgerClock(self.database, utc_now)
        if clock.warning is not None:
            self.tell(clock.warning)
        return clock

    @cached_property
    def enrolments(self) -> "EnrolmentStore":
        """The enrolments in the ledger's database; raises LedgerError."""
        from broker.enrolment.store import EnrolmentStore

        return EnrolmentStore(self.database, now=self.clock)

    @cached_property
    def tokens(self) -> "TokenStore":
        """The enrolment tokens in the ledger's database; raises LedgerError."""
        from broker.enrolment.tokens import TokenStore

        return TokenStore(self.database, now=self.clock)

    @cached_property
    def authority(self) -> "CertificateAuthority":
        """The certificate authority; raises AuthorityError."""
        from broker.app.credentials import open_authority

        return open_authority(self.config)

    @cached_property
    def signing_keys(self) -> "SigningKeyStore":
        """The list of signing keys, without the private ones; raises SigningKeyError."""
        from broker.app.credentials import open_signing_key_store

        return open_signing_key_store(self.config)

    def put_blob(self, file: Path) -> "Artifact":
        """Store a file for agents; raises BlobError."""
        return self.ledger.blobs.put(file)

    def change_nothing(self) -> None:
        """Open the ledger as a command does that only reads; for --dry-run, before anything is opened."""
        self._creates_ledger, self._only_reads = False, True

    @property
    def origin(self) -> Origin:
        """The user that runs acm, on this machine: the origin of commands."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
        return Origin(name=encodable(f"{user}@{socket.gethostname()}"), module="acm")

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

    @staticmethod
    def tell(text: str) -> None:
        """Tell the user on stderr what is unusual."""
        print_text(f"acm: {text}", to_stderr=True)


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
            choice = ApiChoice.take(values, names_ledger=_name_ledger(flags, config_file))
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
