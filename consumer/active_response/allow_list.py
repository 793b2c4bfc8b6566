"""The allow-list of scripts: a file of lines `name - executable - timeout`, and checks of the executables.

The lines are those of Wazuh's `ar.conf`, as its manager writes it and its execd reads it.
"""

import codecs
import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import structlog

from broker.errors import ExposedFileError
from broker.system.files import state_of
from broker.system.permissions import refuse_changeable
from broker.system.text_files import NotText, decode_text
from broker.text import counted
from consumer.errors import ActiveResponseError
from consumer.settings import ActiveResponseConfig

__all__ = [
    "AllowList",
    "AllowListCheck",
    "Allowed",
    "check_executable",
]


_log = structlog.get_logger(__name__)
_SHIPPED = Path(__file__).with_name("scripts")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SEPARATOR = re.compile(r"\s-\s")
_COMMENT = re.compile(r"(^|\s)#.*")
_MAX_TIMEOUT_S = 10 * 365 * 86400
_MAX_NAMED = 3
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Allowed:
    """One line: the executable of a script, and the seconds after which its effect is reversed (0: never)."""

    executable: str
    timeout_s: int


@dataclass(frozen=True)
class AllowList:
    """The scripts of one directory, by the names that commands use.

    `refused` says of each line that is none what is wrong with it; the others count nevertheless.
    """

    directory: Path
    scripts: dict[str, Allowed]
    refused: tuple[str, ...] = ()

    @classmethod
    def load(cls, config: ActiveResponseConfig) -> "AllowList":
        """Read the configured file, or the shipped one.

        Raises ActiveResponseError and ExposedFileError.
        """
        directory = Path(config.directory) if config.directory else _SHIPPED
        path = Path(config.allow_list) if config.allow_list else _SHIPPED.with_name("allow-list")
        try:
            refuse_changeable(path)
            lines = _decoded(_content(path)).splitlines()
        except (OSError, NotText) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ActiveResponseError(
                f"The allow-list {path} cannot be read: {reason}.", code="allow_list_unreadable"
            ) from error
        scripts: dict[str, Allowed] = {}
        refused: list[str] = []
        for number, line in enumerate(lines, start=1):
            without_comment = _COMMENT.sub("", line).strip()
            if not without_comment:
                continue
            try:
                name, allowed = _parse(without_comment, f"{path}:{number}")
            except ActiveResponseError as error:
                refused.append(str(error))
                continue
            # Wazuh's manager lists some names twice, once for each platform: the script that is here counts.
            if name not in scripts or _is_there(directory, allowed) > _is_there(directory, scripts[name]):
                scripts[name] = allowed
        return cls(directory, scripts, tuple(refused))

    @property
    def problem(self) -> str | None:
        """The lines that are refused, in one text; None if all are good."""
        if not self.refused:
            return None
        more = len(self.refused) - _MAX_NAMED
        others = f" {counted(more, 'more line is', 'more lines are')} refused." if more > 0 else ""
        return f"{' '.join(self.refused[:_MAX_NAMED])}{others}"

    def find(self, name: str) -> Allowed:
        """Return the script of this name, after checking its executable; raises the errors of `check_executable`."""
        allowed = self.scripts.get(name)
        if allowed is None:
            names = ", ".join(sorted(self.scripts)) or "none"
            refused = f" Lines that are refused: {self.problem}" if self.refused else ""
            raise ActiveResponseError(
                f"The script {name!r} is not in this agent's allow-list; listed are: {names}.{refused}",
                code="script_not_allowed",
            )
        check_executable(self.directory, allowed.executable)
        return allowed


class AllowListCheck:
    """What is wrong with the allow-list that the operator has written, determined again whenever the file changes."""

    def __init__(self, config: ActiveResponseConfig) -> None:
        self._config = config
        self._seen: object = self  # differs from each state of a file
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """The refused lines, or why none can be read; None if all is well, or if the shipped list is used."""
        if self._config.allow_list is None:
            return None
        state = _state_of(Path(self._config.allow_list))
        if state != self._seen:
            self._seen, self._problem = state, self._look()
            if self._problem is not None:
                _log.warning("allow_list_refused", reason=self._problem)
        return self._problem

    def _look(self) -> str | None:
        try:
            return AllowList.load(self._config).problem
        except (ActiveResponseError, ExposedFileError) as error:
            return str(error)


def _state_of(path: Path) -> object:
    try:
        return state_of(path)
    except OSError as error:
        return error.errno


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


def _content(path: Path) -> bytes:
    """Return the bytes of a regular file; nothing else is waited for, such as the writer of a pipe. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {_MAX_BYTES} bytes")
    return content


def _decoded(content: bytes) -> str:
    """Return the text; raises NotText for UTF-16. Other bytes that are not UTF-8 refuse their line, not the list."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return decode_text(content)
    return content.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")


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
