"""The place of an installation that `acm up` makes, unless --directory names another one. Imports next to nothing."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from broker.errors import BrokerError

__all__ = [
    "NoHome",
    "default_directory",
    "default_settings",
    "settings_of",
]


_OF_ROOT = Path("/var/lib/acm")
_NAME = "acm"


class NoHome(BrokerError):
    """There is no default directory: this user has no home directory."""

    code = "no_home"


def default_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the default directory: /var/lib/acm for root, else `acm` in the user's state directory; raises NoHome.

    The state directory is $XDG_STATE_HOME, by default ~/.local/state (XDG Base Directory Specification, which ignores
    a relative one): the ledger and the keys must persist, but are neither configuration nor documents of the user.
    """
    if os.geteuid() == 0:
        return _OF_ROOT
    state = Path(environment.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        return state / _NAME
    try:
        return Path.home() / ".local" / "state" / _NAME
    except RuntimeError as error:
        raise NoHome("This user has no home directory: name a directory with --directory.") from error


def default_settings(here: Path, local: Collection[str]) -> Path | None:
    """Return the configuration file in the default directory, for a call that nothing else configures.

    None if there is no such file, or it is another user's, such as of services that were set up in the same place; or
    if the directory `here` has one of the files `local`: an installation of its own.
    """
    try:
        found = settings_of(default_directory())
        is_ours = found.stat().st_uid == os.geteuid()
    except (NoHome, OSError):
        return None
    return found if is_ours and not any((here / name).exists() for name in local) else None


def settings_of(directory: Path) -> Path:
    """Return the configuration file in the directory of an installation."""
    return directory / "broker" / "server.toml"
