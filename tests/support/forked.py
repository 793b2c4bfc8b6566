"""Calls of acm and acm-agent in forks of one process that has loaded them: as good as real ones, in less time.

`python -m tests.support.forked` is that process. It has one thread, so that it can fork at any time.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from tests.support.cli import commands_of

__all__ = ["Call", "Ended", "ForkedCommands", "Stdout"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"acm": "broker", "acm-agent": "consumer"}


class Stdout(StrEnum):
    """Where the output of a call goes."""

    KEPT = "kept"
    FULL = "/dev/full"
    CLOSED_PIPE = "closed pipe"


@dataclass(frozen=True)
class Call:
    """A call of a program; INT comes at its `interrupted_at`th call of a function, unless it has ended by then."""

    program: str
    words: tuple[str, ...]
    stdout: Stdout = Stdout.KEPT
    interrupted_at: int | None = None


@dataclass(frozen=True)
class Ended:
    """The exit code of a call, negative if a signal has ended it, and what it has written."""

    code: int
    stdout: str
    stderr: str


class ForkedCommands:
    """The process that forks, with its working directory and environment; a context manager."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "ForkedCommands":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def run(self, call: Call) -> Ended:
        """Make a call, and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(call)) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def serve() -> None:
    """Answer calls until stdin ends. In a fork, this returns when the streams and the words are those of its call."""
    for package in PACKAGES.values():
        list(commands_of(import_module(f"{package}.cli.main").app))  # loads the modules of all commands
    answers = os.dup(1)
    while line := os.read(0, 1 << 20):
        request = json.loads(line)
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            child = os.fork()
            if not child:
                os.close(answers)
                become(request, stdout.fileno(), stderr.fileno())
            _, status = os.waitpid(child, 0)
            answer = {"code": os.waitstatus_to_exitcode(status), "stdout": written(stdout), "stderr": written(stderr)}
        os.write(answers, json.dumps(answer).encode() + b"\n")


def written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def become(request: dict[str, Any], stdout: int, stderr: int) -> None:
    """Run the call in this process, and never return."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout if request["stdout"] == Stdout.KEPT else failing(request["stdout"]), 1)
    os.dup2(stderr, 2)
    program = request["program"]
    sys.argv = [program, *request["words"]]
    main = import_module(f"{PACKAGES[program]}.__main__").main
    if request["interrupted_at"] is not None:
        sys.setprofile(Interruption(request["interrupted_at"]))
    main()
    raise AssertionError("main ends the process")


def failing(kind: str) -> int:
    if kind != Stdout.CLOSED_PIPE:
        return os.open(kind, os.O_WRONLY)
    reading, writing = os.pipe()
    os.close(reading)
    return writing


class Interruption:
    """A profile function that sends INT to this process at a certain call of a Python function."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, _frame: object, event: str, _argument: object) -> None:
        if event == "call":
            self._left -= 1
            if not self._left:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    serve()
