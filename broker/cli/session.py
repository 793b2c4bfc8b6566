"""The session of a command of acm, and the options that it is created from."""

import contextlib
import functools
import getpass
import inspect
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from broker.app.config import ServerConfig, load_config
from broker.cli.options import JsonOption
from broker.cli.output import print_result, print_text
from broker.contract.messages import Origin
from broker.text import encodable

if TYPE_CHECKING:
    from broker.enrolment.store import EnrolmentStore
    from broker.enrolment.tokens import TokenStore
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
    "with_session",
]


class Session:
    """One call of acm. The parts that its configuration names are opened at first use, and closed at the end.

    Every property may raise ServerConfigurationError. The factories are imported when they are called, so that a
    command loads only the libraries that it uses.
    """

    def __init__(
        self,
        config_file: Path | None,
        overrides: Mapping[str, str | None],
        *,
        as_json: bool,
        creates_ledger: bool = False,
        only_reads: bool = False,
    ) -> None:
        self.config_file = config_file
        self.overrides = overrides
        self.as_json = as_json
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

    @cached_property
    def database(self) -> "Database":
        """The database of the ledger and the enrolments; raises LedgerError."""
        from broker.app.factories import open_configured_database

        database = open_configured_database(self.config.ledger, create=self._creates_ledger, read_only=self._only_reads)
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
            print_text(f"acm: {clock.warning}", to_stderr=True)
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

    @property
    def origin(self) -> Origin:
        """The user that runs acm, on this machine: the origin of commands."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
        return Origin(name=encodable(f"{user}@{socket.gethostname()}"), module="acm")

    def show(self, document: Any, view: RenderableType) -> None:
        """Print `document` as JSON if --json was given, else `view` for people."""
        print_result(document, view, as_json=self.as_json)


@dataclass(frozen=True)
class ConfigOverride:
    """An option that overrides the member `key` of the configuration."""

    key: str
    option: Any


_CONFIG = Annotated[
    Path | None, typer.Option("--config", envvar="ACM_CONFIG", metavar="FILE", help="TOML configuration file.")
]
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
    *overrides: ConfigOverride, json: bool = True, creates_ledger: bool = False, only_reads: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Pass a command a Session as its first argument, made from --config, the options `overrides`, and --json.

    Only a command that `creates_ledger`, because it has something to store, creates a ledger that does not exist. One
    that `only_reads` changes nothing of it: it migrates no older one either.

    This declares the options that commands share once: the decorated function has the command's own parameters and
    these, and typer reads its signature.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]
        shared = {"config": _CONFIG, **{it.key: Annotated[str | None, it.option] for it in overrides}}
        parameters = [_keyword(name, annotation, None) for name, annotation in shared.items()]
        if json:
            parameters.append(_keyword("as_json", JsonOption, False))

        @functools.wraps(command)
        def call(**values: Any) -> None:
            config_file = values.pop("config")
            flags = {override.key: values.pop(override.key) for override in overrides}
            as_json = values.pop("as_json", False)
            session = Session(config_file, flags, as_json=as_json, creates_ledger=creates_ledger, only_reads=only_reads)
            with session:
                command(session, **values)

        call.__signature__ = inspect.Signature([*own, *parameters])  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *parameters]}
        return call

    return decorate


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
