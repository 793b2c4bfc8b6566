"""Settings of a program from a TOML file, environment variables and flags: what both programs have in common."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from broker.contract.secrets import has_url_password
from broker.errors import CodedError
from broker.system.permissions import refuse_changeable, refuse_readable
from broker.system.text_files import NotText, read_text

__all__ = [
    "SettingsReader",
    "given_flags",
]


_Settings = TypeVar("_Settings", bound=msgspec.Struct)


@dataclass(frozen=True)
class SettingsReader:
    """Reads the settings of one program. Its methods raise `error`, which they give a code.

    `urls` are the settings whose value is a URL that may contain a password. `prefix` begins the names of the
    environment variables.
    """

    urls: tuple[str, ...]
    error: type[CodedError]
    prefix: str = "ACM_"

    @property
    def secret_variables(self) -> tuple[str, ...]:
        """The environment variables that may contain a password."""
        return tuple(map(self.variable, self.urls))

    def variable(self, name: str) -> str:
        """Return the name of the environment variable for a setting."""
        return f"{self.prefix}{name.upper()}"

    def read_file(self, path: Path) -> dict[str, Any]:
        """Return the values in a TOML file.

        Raises ExposedFileError if another user could change the file, or read a password in it. A pipe is not checked:
        no other user can open it.
        """
        try:
            values = tomllib.loads(read_text(path))
            if path.is_file():
                has_password = any(self._has_password(values, name) for name in self.urls)
                (refuse_readable if has_password else refuse_changeable)(path)
        except OSError as error:
            raise self.error(f"{path}: cannot be read: {error.strerror}.", code="settings_unreadable") from error
        except (tomllib.TOMLDecodeError, NotText) as error:
            raise self.error(f"{path}: not valid TOML: {error}.", code="settings_not_toml") from error
        return values

    def refuse_unknown(self, values: Mapping[str, Any], kind: type[msgspec.Struct], source: str) -> None:
        """Raise `error` for the first key that the settings do not have, in the whole tree of values."""
        names, types = kind.__struct_fields__, get_type_hints(kind)
        for name, value in values.items():
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"the keys here are {', '.join(names)}."
                raise self.error(f"{source}: unknown key {name[:80]!r}; {hint}", code="unknown_setting")
            inner = types[name]
            if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                self.refuse_unknown(value, inner, f"{source}, [{name}]")

    def from_environment(self, names: Iterable[str], environment: Mapping[str, str]) -> dict[str, Any]:
        """Return the settings of these names that the environment has; raises `error` for an empty one."""
        variables = {name: self.variable(name) for name in names}
        found = {name: environment[key] for name, key in variables.items() if key in environment}
        for name, value in found.items():
            if not value:
                raise self.error(f"{variables[name]} is empty: set a value, or unset it.", code="empty_setting")
        return found

    def refuse_passwords(self, flags: Mapping[str, Any]) -> None:
        """Raise `error` for a flag with a password in its URL: every user of the machine can see command lines."""
        for name in self.urls:
            if self._has_password(flags, name):
                raise self.error(
                    f"--{name} must not contain a password, because every user of the machine can see command lines: "
                    f"put the URL into {self.variable(name)} or into the configuration file.",
                    code="password_on_command_line",
                )

    def convert(self, values: Mapping[str, Any], kind: type[_Settings], source: str, **options: Any) -> _Settings:
        """Return the values as typed settings, or raise `error`, which names `source`; `options` are msgspec's."""
        try:
            settings: _Settings = msgspec.convert(values, kind, **options)
        except msgspec.ValidationError as error:
            raise self.error(f"The configuration ({source}) is wrong: {error}.", code="settings_invalid") from error
        return settings

    @staticmethod
    def _has_password(values: Mapping[str, Any], name: str) -> bool:
        return has_url_password(str(values.get(name, "")))


def given_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that were given, which are those that are not None."""
    return {name: value for name, value in flags.items() if value is not None}
