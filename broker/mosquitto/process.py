"""Mosquitto as a child process: on loopback for trials, or secured as `acm broker config` has written it."""

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
from broker.system.files import state_of, write_durably

__all__ = [
    "EmbeddedMosquitto",
    "MosquittoError",
    "MosquittoNotFound",
    "SecuredMosquitto",
    "find_mosquitto",
]


_LOOPBACK = "127.0.0.1"
_POLL_S = 0.01
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin")
_LISTENER = re.compile(r"^listener +([0-9]{1,5})(?: +(\S+))? *$", re.MULTILINE)
_RELOADED = ("crl.pem", "broker.pem", "acl", "passwords")


class MosquittoError(BrokerError):
    """Mosquitto did not start, or its configuration cannot be used."""


class MosquittoNotFound(MosquittoError):
    """No mosquitto program is installed."""


def find_mosquitto() -> str:
    """Return the path of the mosquitto program; raise MosquittoNotFound with what to install."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_PLACES))
    found = shutil.which("mosquitto", path=path)
    if found is None:
        raise MosquittoNotFound("mosquitto was not found: install it, on Debian with `apt-get install mosquitto`.")
    return found


class _Child:
    """One mosquitto process, started and ended any number of times."""

    def __init__(self, host: str, port: int) -> None:
        self._program = find_mosquitto()
        self._process: subprocess.Popen[bytes] | None = None
        self.host, self.port = host, port

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, configuration: Path, output: IO[bytes] | None, timeout_s: float) -> bool:
        """Start it; return whether it takes connections within the bound. It is ended when it does not."""
        if self._listens():
            raise MosquittoError(f"Port {self.port} on {self.host} is taken by another program: choose another port.")
        argv = [self._program, "-c", str(configuration)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ACM_")}
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        deadline = time.monotonic() + timeout_s
        while self.running and time.monotonic() < deadline:
            if self._listens():
                return True
            time.sleep(_POLL_S)
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

    def hang_up(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def _listens(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1.0):
                return True
        except OSError:
            return False


class EmbeddedMosquitto:
    """Runs one Mosquitto on 127.0.0.1, for as long as the `with` block or from start() to stop().

    Without `port` a free one is taken at each first start and kept; without `data_dir` the data live in a temporary
    directory that close() removes. Restarting on the same object keeps port and data. Raises MosquittoError.
    """

    def __init__(
        self, port: int | None = None, data_dir: Path | None = None, *, start_timeout_s: float = _START_TIMEOUT_S
    ) -> None:
        self.port = port or _free_port()
        self._child = _Child(_LOOPBACK, self.port)
        self._temporary = None if data_dir else tempfile.TemporaryDirectory(prefix="acm-mosquitto-")
        self._data = (data_dir or Path(self._temporary.name if self._temporary else "")).resolve()
        self._start_timeout_s = start_timeout_s

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return f"mqtt://{_LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id, or None when it does not run."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child.running

    @property
    def log_path(self) -> Path:
        """The file that Mosquitto logs to."""
        return self._data / "mosquitto.log"

    def start(self) -> None:
        """Start it and wait until it takes connections; raise MosquittoError with its last words if it does not."""
        if self.running:
            return
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self._data / "mosquitto.conf"
        configuration.write_text(_as_this_user(render_loopback_configuration(self._data, self.port)), encoding="utf-8")
        with self.log_path.open("ab") as log:
            started = self._child.start(configuration, log, self._start_timeout_s)
        if not started:
            words = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            raise MosquittoError(f"mosquitto did not start on port {self.port}: {words[-1] if words else 'no output'}")

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """End it with TERM, so that it saves its data, and with KILL after `timeout_s` seconds."""
        self._child.stop(timeout_s)

    def kill(self) -> None:
        """End it with KILL: what it had not saved is lost."""
        self._child.kill()

    def close(self) -> None:
        """Stop it and remove its temporary directory."""
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
    """Runs the Mosquitto of a directory that `acm broker config` has written, for as long as the `with` block.

    It writes to this process's stderr. `reload_when_changed` makes it read its files again: call it often.
    Raises MosquittoError.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._text = self._read_configuration()
        listener = _LISTENER.search(self._text)
        if listener is None:
            raise MosquittoError(f"{self._directory}/mosquitto.conf says on no line of its own: listener PORT.")
        self._child = _Child(listener[2] or _LOOPBACK, int(listener[1]))
        self._loaded = self._state()

    @property
    def address(self) -> str:
        """Where it listens, as HOST:PORT."""
        return f"{self._child.host}:{self._child.port}"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child.running

    def reload_when_changed(self) -> bool:
        """Send HUP if what Mosquitto reads again has changed; return whether it had."""
        state = self._state()
        changed = state != self._loaded
        if changed:
            self._loaded = state
            self._child.hang_up()
        return changed

    def __enter__(self) -> Self:
        data = self._directory / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        self._loaded = self._state()
        if not self._child.start(self._configuration(data), None, _START_TIMEOUT_S):
            raise MosquittoError(f"mosquitto did not start with {self._directory}/mosquitto.conf: its words are above.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop(_STOP_TIMEOUT_S)

    def _configuration(self, data: Path) -> Path:
        text = _as_this_user(self._text)
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
                f"{self._directory}/mosquitto.conf cannot be read: write the directory by `acm broker config`."
            ) from error

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [state_of(self._directory / name) for name in _RELOADED]


def _as_this_user(configuration: str) -> str:
    # As root, mosquitto would give up its rights for the user `mosquitto`, who cannot use our directories.
    return configuration + "user root\n" if os.geteuid() == 0 else configuration


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
