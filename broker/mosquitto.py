"""Mosquitto as a child process on loopback: the broker that one gets without installing a server."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib import resources
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Self

from broker.errors import BrokerError

__all__ = ["EmbeddedMosquitto", "MosquittoError", "MosquittoNotFound", "find_mosquitto", "render_configuration"]

_LOOPBACK = "127.0.0.1"
_POLL_S = 0.01
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin")


class MosquittoError(BrokerError):
    """The embedded Mosquitto did not start."""


class MosquittoNotFound(MosquittoError):
    """No mosquitto program is installed."""


def find_mosquitto() -> str:
    """Return the path of the mosquitto program; raise MosquittoNotFound with what to install."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_PLACES))
    found = shutil.which("mosquitto", path=path)
    if found is None:
        raise MosquittoNotFound("mosquitto was not found: install it, on Debian with `apt-get install mosquitto`.")
    return found


def render_configuration(data: Path, port: int) -> str:
    """Return the mosquitto.conf for a loopback broker that keeps its data in `data` and takes anyone on the machine."""
    template = resources.files("broker").joinpath("templates/mosquitto.conf").read_text(encoding="utf-8")
    text = Template(template).substitute(port=port, address=_LOOPBACK, anonymous="true", data=data)
    # As root, mosquitto would give up its rights for the user `mosquitto`, who cannot write to our directory.
    return text + "user root\n" if os.geteuid() == 0 else text


class EmbeddedMosquitto:
    """Runs one Mosquitto on 127.0.0.1, for as long as the `with` block or from start() to stop().

    Without `port` a free one is taken at each first start and kept; without `data_dir` the data live in a temporary
    directory that close() removes. Restarting on the same object keeps port and data. Raises MosquittoError.
    """

    def __init__(self, port: int | None = None, data_dir: Path | None = None, *, start_timeout_s: float = 10.0) -> None:
        self._program = find_mosquitto()
        self._temporary = None if data_dir else tempfile.TemporaryDirectory(prefix="acm-mosquitto-")
        self._data = (data_dir or Path(self._temporary.name if self._temporary else "")).resolve()
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or _free_port()

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return f"mqtt://{_LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id, or None when it does not run."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """The file that Mosquitto logs to."""
        return self._data / "mosquitto.log"

    def start(self) -> None:
        """Start it and wait until it takes connections; raise MosquittoError with its last words if it does not."""
        if self.running:
            return
        if _listens(self.port):
            raise MosquittoError(f"Port {self.port} on {_LOOPBACK} is taken by another program: choose another port.")
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self._data / "mosquitto.conf"
        configuration.write_text(render_configuration(self._data, self.port), encoding="utf-8")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith("ACM_")},
            )
        self._wait_until_listening()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End it with TERM, so that it saves its data, and with KILL after `timeout_s` seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it with KILL: what it had not saved is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

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

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while self.running and time.monotonic() < deadline:
            if _listens(self.port):
                return
            time.sleep(_POLL_S)
        self.kill()
        words = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        raise MosquittoError(f"mosquitto did not start on port {self.port}: {words[-1] if words else 'no output'}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((_LOOPBACK, port)) == 0
