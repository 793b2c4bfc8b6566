"""The allow-list of scripts: a file of lines `name - executable - timeout`, and checks of the executables."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from broker.system.permissions import refuse_changeable
from broker.system.text_files import NotText, read_text
from consumer.errors import ActiveResponseError
from consumer.settings import ActiveResponseConfig

__all__ = [
    "AllowList",
    "Allowed",
    "check_executable",
]


_SHIPPED = Path(__file__).with_name("scripts")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SEPARATOR = re.compile(r"\s-\s")
_MAX_TIMEOUT_S = 10 * 365 * 86400


@dataclass(frozen=True)
class Allowed:
    """One line: the executable of a script, and the seconds after which its effect is reversed (0: never)."""

    executable: str
    timeout_s: int


@dataclass(frozen=True)
class AllowList:
    """The scripts of one directory, by the names that commands use."""

    directory: Path
    scripts: dict[str, Allowed]

    @classmethod
    def load(cls, config: ActiveResponseConfig) -> "AllowList":
        """Read the configured file, or the shipped one.

        Raises ActiveResponseError, which names file and line, and ExposedFileError.
        """
        directory = Path(config.directory) if config.directory else _SHIPPED
        path = Path(config.allow_list) if config.allow_list else _SHIPPED.with_name("allow-list")
        try:
            refuse_changeable(path)
            lines = read_text(path).splitlines()
        except (OSError, NotText) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ActiveResponseError(
                f"The allow-list {path} cannot be read: {reason}.", code="allow_list_unreadable"
            ) from error
        scripts: dict[str, Allowed] = {}
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#"):
                name, allowed = _parse(line, f"{path}:{number}")
                # Wazuh's manager lists some names twice, once for each platform: the script that is here counts.
                if name not in scripts or _is_there(directory, allowed) > _is_there(directory, scripts[name]):
                    scripts[name] = allowed
        return cls(directory, scripts)

    def find(self, name: str) -> Allowed:
        """Return the script of this name, after checking its executable; raises the errors of `check_executable`."""
        allowed = self.scripts.get(name)
        if allowed is None:
            names = ", ".join(sorted(self.scripts)) or "none"
            raise ActiveResponseError(
                f"The script {name!r} is not in this agent's allow-list; listed are: {names}.",
                code="script_not_allowed",
            )
        check_executable(self.directory, allowed.executable)
        return allowed


def check_executable(directory: Path, executable: str) -> None:
    """Raise ActiveResponseError unless this is an executable file inside the directory.

    Raises ExposedFileError unless only root or the agent's own user can change the file and each directory above it.
    """
    try:
        (directory / executable).stat()  # raises OSError for a loop of links, where resolve() raises another error
        inside = directory.resolve(strict=True)
        path = (inside / executable).resolve(strict=True)
        if inside not in path.parents:
            raise ActiveResponseError(
                f"The script {executable!r} is a link to a file outside {directory}.", code="script_outside"
            )
        refuse_changeable(path)
        mode = path.stat().st_mode
    except OSError as error:
        raise ActiveResponseError(
            f"The script {executable!r} cannot be used: {error.strerror}: {directory}.", code="script_unusable"
        ) from error
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        raise ActiveResponseError(f"The script {path} is not an executable file.", code="script_not_executable")


def _is_there(directory: Path, allowed: Allowed) -> bool:
    return (directory / allowed.executable).is_file()


def _parse(line: str, where: str) -> tuple[str, Allowed]:
    parts = [part.strip() for part in _SEPARATOR.split(line)]
    if len(parts) != 3:
        raise ActiveResponseError(
            f"{where}: write `name - executable - timeout`, as in `firewall-drop - firewall-drop - 600`.",
            code="malformed_line",
        )
    name, executable, timeout = parts
    for word in (name, executable):
        if not _PLAIN_NAME.fullmatch(word) or ".." in word:
            raise ActiveResponseError(
                f"{where}: {word[:80]!r} is not a plain name; use letters, digits, '.', '_', '-', without '/' or '..'.",
                code="invalid_name",
            )
    if not (timeout.isascii() and timeout.isdigit() and int(timeout[:12]) <= _MAX_TIMEOUT_S):
        raise ActiveResponseError(
            f"{where}: {timeout[:80]!r} is not a timeout; write whole seconds, 0 for no timeout.",
            code="invalid_timeout",
        )
    return name, Allowed(executable, int(timeout))
