"""Real brokers for tests: Mosquitto in a container, else Mosquitto as a child process."""

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Protocol

from broker.mosquitto.process import EmbeddedMosquitto, find_mosquitto

__all__ = [
    "ContainerBroker",
    "LocalBroker",
    "TestBroker",
    "build_image",
    "docker_answers",
    "free_port",
    "image_lock",
    "tuned_mosquitto",
]

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "acm-mosquitto:test"
_CONNECT = bytes.fromhex("100c00044d5154540402000a0000")  # MQTT 3.1.1 CONNECT, clean session, no client id
_CONNACK = 0x20
_SAVED = "mosquitto.db"


class TestBroker(Protocol):
    """A broker that a test may treat badly. Port and URL stay the same; each call returns when its effect is there."""

    __test__ = False

    @property
    def port(self) -> int: ...

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None:
        """TERM: the broker saves its data."""

    def kill(self) -> None:
        """KILL: what was not saved is lost."""

    def restart(self) -> None: ...

    def lose_data(self) -> None:
        """KILL, and come back with nothing."""


class LocalBroker:
    """Mosquitto as a child process."""

    def __init__(self) -> None:
        self._data = Path(tempfile.mkdtemp(prefix="acm-test-"))
        self._child = EmbeddedMosquitto(data_dir=self._data)
        self.port, self.url = self._child.port, self._child.url
        self.start, self.stop, self.kill = self._child.start, self._child.stop, self._child.kill

    def restart(self) -> None:
        self.stop()
        self.start()

    def lose_data(self) -> None:
        self.kill()
        shutil.rmtree(self._data)
        self.start()

    def save(self) -> bytes:
        """Restart it, and return what it has on its disk."""
        self.stop()
        saved = (self._data / _SAVED).read_bytes()
        self.start()
        return saved

    def go_back(self, saved: bytes) -> None:
        """KILL, and come back with what `save` has returned earlier."""
        self.kill()
        (self._data / _SAVED).write_bytes(saved)
        self.start()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._data, ignore_errors=True)


class ContainerBroker:
    """Mosquitto in a container of its own, published on 127.0.0.1."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._name = f"acm-test-{uuid.uuid4().hex[:12]}"
        self._run()

    def start(self) -> None:
        docker("start", self._name)
        wait_for_connack(self.port)

    def stop(self) -> None:
        docker("stop", "--time", "5", self._name)

    def kill(self) -> None:
        docker("kill", "--signal", "KILL", self._name)
        docker("wait", self._name)

    def restart(self) -> None:
        self.stop()
        self.start()

    def lose_data(self) -> None:
        self.remove()
        self._run()

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self._name)

    def _run(self) -> None:
        docker("run", "--detach", "--name", self._name, "--publish", f"127.0.0.1:{self.port}:1883", IMAGE)
        wait_for_connack(self.port)


@contextmanager
def tuned_mosquitto(directory: Path, *settings: str, port: int | None = None) -> Iterator[str]:
    """Run a local Mosquitto with these lines in its configuration, open to every local client; yield its URL."""
    port = port or free_port()
    own = ("user root",) if os.geteuid() == 0 else ()
    configuration = directory / f"mosquitto-{port}.conf"
    configuration.write_text("\n".join((f"listener {port} 127.0.0.1", "allow_anonymous true", *own, *settings, "")))
    with configuration.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen([find_mosquitto(), "-c", str(configuration)], stdout=log, stderr=log)
    try:
        wait_for_connack(port)
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def docker(*arguments: str, timeout_s: float = 60) -> str:
    """Run the docker CLI; an AssertionError carries its last words."""
    done = subprocess.run(("docker", *arguments), capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {(done.stderr or done.stdout)[-2000:]}"
    return done.stdout


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        probe = subprocess.run(("docker", "version"), capture_output=True, timeout=15, check=False)
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


def build_image() -> None:
    """Build the broker's image; the workers of one run take turns, and all but the first find it in the cache."""
    with image_lock():
        docker("build", "-q", "-t", IMAGE, "-f", str(ROOT / "docker/mosquitto.Dockerfile"), str(ROOT), timeout_s=600)


@contextmanager
def image_lock() -> Iterator[None]:
    """Hold the machine-wide lock for building images."""
    with (Path(tempfile.gettempdir()) / f"acm-test-images-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_connack(port: int, timeout_s: float = 20) -> None:
    """Poll until the broker answers a CONNECT: Docker's proxy takes connections before Mosquitto listens."""
    deadline = time.monotonic() + timeout_s
    while not _answers(port):
        assert time.monotonic() < deadline, f"no MQTT broker answers on port {port} after {timeout_s} s"
        Event().wait(0.02)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(_CONNECT)
            return probe.recv(1) == bytes([_CONNACK])
    except OSError:
        return False
