"""Mosquitto as a child process: on loopback for trials, or secured with the files of `acm broker config`."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from broker.errors import BrokerError
from broker.mosquitto.configuration import render_loopback_configuration
from broker.system.ends_with_parent import ending_with_this_process
from broker.system.files import resolved, state_of, write_durably
from broker.system.service_manager import VARIABLES

__all__ = [
    "EmbeddedMosquitto",
    "MosquittoError",
    "MosquittoNotFound",
    "SecuredMosquitto",
    "find_mosquitto",
    "mosquitto_version",
]


_LOOPBACK = "127.0.0.1"
_POLL_INTERVAL_S = 0.01
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_RELEASE_TIMEOUT_S = 3.0
_SEARCH_PATH = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin")
_LISTENER = re.compile(r"^listener +([0-9]{1,5})(?: +(\S+))? *$", re.MULTILINE)
_VERSION = re.compile(r"mosquitto version (\d+)\.(\d+)\.(\d+)")
_RELOADED = ("ca.crt", "crl.pem", "broker.pem", "acl", "passwords")


class MosquittoError(BrokerError):
    """Mosquitto did not start, or its configuration cannot be used."""

    code = "mosquitto_error"


class MosquittoNotFound(MosquittoError):
    """Mosquitto is not installed."""

    code = "mosquitto_not_found"


def find_mosquitto() -> str:
    """Return the path of the mosquitto program; raises MosquittoNotFound."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_SEARCH_PATH))
    found = shutil.which("mosquitto", path=path)
    if found is None:
        raise MosquittoNotFound("Mosquitto is not installed: on Debian, run `apt-get install mosquitto`.")
    return found


def mosquitto_version() -> tuple[int, ...]:
    """Return the version of the installed mosquitto, as in (2, 0, 18); raises MosquittoError."""
    program = find_mosquitto()
    try:
        # Its options have none for this; it prints its help, and ends with 3.
        done = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=_START_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise MosquittoError(f"{program} cannot be run: {error}.") from error
    found = _VERSION.search(done.stdout)
    if found is None:
        raise MosquittoError(f"{program} does not tell its version.")
    return tuple(map(int, found.groups()))


class _Child:
    """One mosquitto process, which can be started and stopped repeatedly."""

    def __init__(self, host: str, port: int, *, ends_with_parent: bool) -> None:
        program = find_mosquitto()
        self._ends_with_parent = ends_with_parent
        self._command = ending_with_this_process(program) if ends_with_parent else [program]
        self._process: subprocess.Popen[bytes] | None = None
        self.host, self.port = host, port

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, configuration: Path, output: IO[bytes] | None, timeout_s: float) -> bool:
        """Start it; return whether it accepts connections within `timeout_s` seconds. If it does not, it is killed."""
        if not self._is_free():
            raise MosquittoError(
                f"Port {self.port} on {self.host} is in use by another program: choose another port.",
                code="port_in_use",
            )
        argv = [*self._command, "-c", str(configuration)]
        ours = {name for name in os.environ if name.startswith("ACM_")} | set(VARIABLES)
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        # SIGPIPE stays ignored, as Python ignores it: the end of its log's reader would end Mosquitto.
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, restore_signals=False
        )
        deadline = time.monotonic() + timeout_s
        while self.running and time.monotonic() < deadline:
            if self._listens():
                return True
            time.sleep(_POLL_INTERVAL_S)
        self.kill()
        return False

    def stop(self, timeout_s: float) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def reload(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def _is_free(self) -> bool:
        """Return whether nothing listens; a Mosquitto whose supervisor was killed needs a moment to save its data."""
        deadline = time.monotonic() + (_RELEASE_TIMEOUT_S if self._ends_with_parent else 0.0)
        while self._listens():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
        return True

    def _listens(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1.0):
                return True
        except OSError:
            return False


class EmbeddedMosquitto:
    """Runs one Mosquitto on 127.0.0.1, for the `with` block or from start() to stop(). Raises MosquittoError.

    The default of `port` is a free port, that of `data_dir` a temporary directory, which close() deletes. A restart
    on the same object keeps both. `ends_with_parent` lets it end when the thread that started it does, however that
    ends, so that no Mosquitto without a supervisor blocks the port.
    """

    def __init__(
        self,
        port: int | None = None,
        data_dir: Path | None = None,
        *,
        start_timeout_s: float = _START_TIMEOUT_S,
        ends_with_parent: bool = False,
    ) -> None:
        self.port = port or _free_port()
        self._child = _Child(_LOOPBACK, self.port, ends_with_parent=ends_with_parent)
        self._temporary = None if data_dir else tempfile.TemporaryDirectory(prefix="acm-mosquitto-")
        self._data = resolved(data_dir or Path(self._temporary.name if self._temporary else ""))
        self._start_timeout_s = start_timeout_s

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return f"mqtt://{_LOOPBACK}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._child.running

    @property
    def log_path(self) -> Path:
        """The file that Mosquitto logs to."""
        return self._data / "mosquitto.log"

    def start(self) -> None:
        """Start it and wait until it accepts connections. Raises MosquittoError, with the last line of its log."""
        if self.running:
            return
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self._data / "mosquitto.conf"
        configuration.write_text(
            _with_current_user(render_loopback_configuration(self._data, self.port)), encoding="utf-8"
        )
        with self.log_path.open("ab") as log:
            started = self._child.start(configuration, log, self._start_timeout_s)
        if not started:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            raise MosquittoError(
                f"mosquitto did not start on port {self.port}: {lines[-1] if lines else 'no output'}",
                code="mosquitto_not_started",
            )

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """Stop it with SIGTERM, so that it saves its data, and after `timeout_s` seconds with SIGKILL."""
        self._child.stop(timeout_s)

    def reload(self) -> None:
        """Send SIGHUP: it reads its configuration again."""
        self._child.reload()

    def kill(self) -> None:
        """End it with SIGKILL: unsaved data is lost."""
        self._child.kill()

    def close(self) -> None:
        """Stop it and delete its temporary directory."""
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SecuredMosquitto:
    """Runs Mosquitto in a directory that `acm broker config` wrote, for the `with` block. Raises MosquittoError.

    Its log goes to this process's stderr. `ends_with_parent` is that of EmbeddedMosquitto. Call `reload_when_changed`
    often.
    """

    def __init__(self, directory: Path, *, ends_with_parent: bool = False) -> None:
        self._directory = resolved(directory)
        self._text = self._read_configuration()
        listener = _LISTENER.search(self._text)
        if listener is None:
            raise MosquittoError(f"{self._directory}/mosquitto.conf has no line `listener PORT`.", code="no_listener")
        self._child = _Child(listener[2] or _LOOPBACK, int(listener[1]), ends_with_parent=ends_with_parent)
        self._loaded = self._state()

    @property
    def address(self) -> str:
        """The address on which it listens, as HOST:PORT."""
        return f"{self._child.host}:{self._child.port}"

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._child.running

    def reload(self) -> None:
        """Send SIGHUP: it reads its lists and its certificate again."""
        self._loaded = self._state()
        self._child.reload()

    def reload_when_changed(self) -> bool:
        """Send SIGHUP if a file that Mosquitto reloads has changed; return whether one had."""
        changed = self._state() != self._loaded
        if changed:
            self.reload()
        return changed

    def __enter__(self) -> Self:
        data = self._directory / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        self._loaded = self._state()
        if not self._child.start(self._configuration(data), None, _START_TIMEOUT_S):
            raise MosquittoError(
                f"mosquitto did not start with {self._directory}/mosquitto.conf; the reason is in its log above.",
                code="mosquitto_not_started",
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop(_STOP_TIMEOUT_S)

    def _configuration(self, data: Path) -> Path:
        text = _with_current_user(self._text)
        if text == self._text:
            return self._directory / "mosquitto.conf"
        path = data / "mosquitto.conf"
        write_durably(path, text.encode(), 0o600)
        return path

    def _read_configuration(self) -> str:
        try:
            return (self._directory / "mosquitto.conf").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise MosquittoError(
                f"{self._directory}/mosquitto.conf cannot be read: write the directory with `acm broker config`.",
                code="unreadable_mosquitto_configuration",
            ) from error

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [state_of(self._directory / name) for name in _RELOADED]


def _with_current_user(configuration: str) -> str:
    # As root, mosquitto would change to the user `mosquitto`, which cannot use our directories.
    return configuration + "user root\n" if os.geteuid() == 0 else configuration


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
