"""An `acm api` beside the server of a row."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.server.site import Site, wait_until

__all__ = ["api_process"]


@contextmanager
def api_process(place: Site, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Serve the API on the ledger of a row, at a port of 127.0.0.1; it listens at the start of the block."""
    argv = [str(Path(sys.executable).with_name("acm")), "api", "--listen", f"127.0.0.1:{port}", "--ledger", place.url]
    with (place.directory / "api.log").open("ab") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: _answers(port), "the API to listen")
            yield process
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
