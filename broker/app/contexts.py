"""The contexts of a user: servers elsewhere, by names, in one file that no other user can read. Imports little."""

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from broker.errors import BrokerError
from broker.suggestions import did_you_mean
from broker.system.files import write_durably
from broker.system.lock import locked_directory
from broker.system.permissions import refuse_readable
from broker.system.text_files import NotText, read_text
from broker.text import toml_string

__all__ = [
    "ApiContext",
    "ContextError",
    "ContextFile",
    "Contexts",
    "contexts_file",
]


_HEADER = "# Written by `acm context`. It has access tokens: no other user may read it.\n"


class ContextError(BrokerError):
    """A context does not exist, or the file of the contexts cannot be used."""

    code = "context_error"


class ApiContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API elsewhere: its URL, and an access token, or the files of the user's certificate and its key.

    `ca` is the file of the authority that issued the API's certificate; without it, those of the system are trusted.
    """

    server: str
    token: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if self.token is None and (self.certificate is None or self.key is None):
            raise ValueError("a context has a token, or a certificate and its key")

    def __repr__(self) -> str:
        return f"ApiContext({self.server!r})"  # the token is secret


class Contexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All contexts by name, and the name of the one in use; None if commands work on a ledger."""

    current: str | None = None
    contexts: dict[str, ApiContext] = {}

    def named(self, name: str) -> ApiContext:
        """Return one context; raises ContextError."""
        if name not in self.contexts:
            raise ContextError(
                f"There is no context {name[:80]!r}; `acm context list` has them.{did_you_mean(name, self.contexts)}",
                code="unknown_context",
            )
        return self.contexts[name]


class ContextFile:
    """The file of the contexts; None for a user without a home directory, who has none.

    Reading it raises ContextError, and ExposedFileError if another user may read it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def read(self) -> Contexts:
        """Return all contexts; none if there is no file."""
        if self.path is None:
            return Contexts()
        try:
            refuse_readable(self.path)
            return msgspec.convert(tomllib.loads(read_text(self.path)), Contexts)
        except FileNotFoundError:
            return Contexts()
        except OSError as error:
            raise ContextError(f"{self.path} cannot be read: {error.strerror}.", code="contexts_unreadable") from error
        except (tomllib.TOMLDecodeError, NotText, msgspec.ValidationError) as error:
            raise ContextError(
                f"{self.path} is not as `acm context` writes it: {error}. Correct it, or remove it and add the "
                "contexts again.",
                code="contexts_malformed",
            ) from error

    def change(self, change: Callable[[Contexts], Contexts]) -> None:
        """Replace all contexts by what `change` makes of them, whatever other processes do at the same time.

        Raises as `read` does, and what `change` raises.
        """
        if self.path is None:
            raise ContextError(
                "This user has no home directory for contexts: set XDG_CONFIG_HOME.", code="no_home_for_contexts"
            )
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked_directory(self.path.parent):
                write_durably(self.path, _toml(change(self.read())).encode(), mode=0o600)
        except OSError as error:
            raise ContextError(
                f"{self.path} cannot be written: {error.strerror}.", code="contexts_unwritable"
            ) from error


def contexts_file(environment: Mapping[str, str] = os.environ) -> ContextFile:
    """Return the file of this user: in $XDG_CONFIG_HOME/acm, by default ~/.config/acm."""
    configuration = Path(environment.get("XDG_CONFIG_HOME", ""))
    if not configuration.is_absolute():  # to be ignored then (XDG Base Directory Specification)
        try:
            configuration = Path.home() / ".config"
        except RuntimeError:
            return ContextFile(None)
    return ContextFile(configuration / "acm" / "contexts.toml")


def _toml(contexts: Contexts) -> str:
    lines = [] if contexts.current is None else [f"current = {toml_string(contexts.current)}"]
    for name, context in sorted(contexts.contexts.items()):
        members = {member: getattr(context, member) for member in context.__struct_fields__}
        lines += ["", f"[contexts.{toml_string(name)}]"]
        lines += [f"{member} = {toml_string(value)}" for member, value in members.items() if value is not None]
    return _HEADER + "\n".join(lines) + "\n"
