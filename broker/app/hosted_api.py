"""The API of `acm server`: a process of its own, which serves it from the first connection on."""

import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import msgspec
import structlog

from broker.api.address import api_address
from broker.app.config import ServerConfig
from broker.system.ends_with_parent import ending_with_this_process
from broker.system.retry import growing_wait
from broker.system.service_manager import HEALTH_FILE, VARIABLES
from broker.web.addresses import listen_at
from broker.web.errors import WebServerError

__all__ = [
    "HostedApi",
    "has_api",
    "hosted_api",
]


_PROGRAM = (sys.executable, "-P", "-m", "broker.cli.hosted_api_process")  # -P: no module of the working directory
_END_TIMEOUT_S = 10.0  # the process gives the requests in progress half of it
_LONGEST_WAIT_S = 60.0
_STABLE_AFTER_S = 60.0
_log = structlog.get_logger("acm.server")


def has_api() -> bool:
    """Whether the API is part of this installation: `make install EXTRA=api`."""
    return importlib.util.find_spec("fastapi") is not None


@contextmanager
def hosted_api(config: ServerConfig) -> Iterator["HostedApi | None"]:
    """Serve the API for a block, at `api_listen`; None if it is off, not installed, or the address is in use.

    The latter two are logged: the server works without it. Raises ApiAddressError.
    """
    listener = _listener(config)
    if listener is None:
        yield None
        return
    with listener:
        host = HostedApi(config, listener)
        try:
            yield host
        finally:
            host.stop()


def _listener(config: ServerConfig) -> socket.socket | None:
    if config.api_is_off:
        return None
    address = api_address(config.api_listen, has_tls=config.api_pair is not None)
    if not has_api():
        _log.info("api_not_served", reason="FastAPI is not installed: `make install EXTRA=api` installs it.")
        return None
    try:
        listener = listen_at(address)
    except WebServerError as error:
        _log.warning("api_not_served", reason=str(error))
        return None
    _log.info("api_listens", listen=config.api_listen, tls=config.api_pair is not None)
    return listener


# design.md: "The API of the server is a process of its own"
class HostedApi:
    """Waits for connections on a thread of its own, and then runs the process that accepts them.

    A process that ends by itself is begun again by the next connection, after a growing wait.
    """

    def __init__(self, config: ServerConfig, listener: socket.socket) -> None:
        self._config = config
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="hosted-api", daemon=True)
        self._thread.start()

    def reload(self) -> None:
        """Let the process read its certificate again; may be called from a signal handler."""
        process = self._process
        if process is not None:
            process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End the process, and wait until it has ended."""
        os.eventfd_write(self._stopped, 1)
        self._thread.join()
        os.close(self._stopped)

    def _run(self) -> None:
        attempt = 0
        while self._wait_for(self._listener.fileno()):
            began = monotonic()
            try:
                self._serve()
            except OSError as error:  # no process or memory is left for it
                _log.error("api_not_started", reason=error.strerror)
            attempt = 0 if monotonic() - began > _STABLE_AFTER_S else attempt + 1
            self._wait_for(timeout_s=growing_wait(attempt, longest_s=_LONGEST_WAIT_S))

    def _serve(self) -> None:
        """Run the process until it ends by itself, or is ended by `stop`."""
        with self._started() as process:
            self._process = process
            ended = os.pidfd_open(process.pid)
            if self._wait_for(ended):
                _log.error("api_ended", exit_code=process.wait())
            else:
                self._end(process)
            os.close(ended)
            self._process = None

    def _started(self) -> "subprocess.Popen[bytes]":
        """Start the process, which gets the configuration on its standard input: it may have a password."""
        listener = self._listener.fileno()
        process = subprocess.Popen(
            ending_with_this_process(*_PROGRAM, str(listener)),
            stdin=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name not in (*VARIABLES, HEALTH_FILE)},
            pass_fds=[listener],
            process_group=0,  # Ctrl-C is for the server, which ends it
        )
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(self._config))
            process.stdin.close()
        except BrokenPipeError:
            pass
        return process

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()

    def _wait_for(self, descriptor: int | None = None, *, timeout_s: float | None = None) -> bool:
        """Wait until the descriptor can be read, or the time is over; False if `stop` was called."""
        poll = select.poll()
        for watched in (self._stopped, *(() if descriptor is None else (descriptor,))):
            poll.register(watched, select.POLLIN)
        ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
        return all(found != self._stopped for found, _ in ready)
