"""`acm up` in a directory of a test, on ports of its own, and the processes that it has."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.brokers import ROOT, free_port
from tests.support.waiting import wait_for

__all__ = ["Machine"]


@dataclass
class Machine:
    """A directory for `acm up`; `end` leaves no process behind."""

    path: Path
    port: int = field(default_factory=free_port)
    enroll_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)
    foreground: list["subprocess.Popen[str]"] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.path / "log" / "up.log"

    @property
    def settings(self) -> Path:
        return self.path / "broker" / "server.toml"

    @property
    def ports(self) -> list[str]:
        """The options of `acm up` that name the ports."""
        ports = {"--port": self.port, "--enroll-port": self.enroll_port, "--api-port": self.api_port}
        return [word for option, port in ports.items() for word in (option, str(port))]

    def argv(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "broker", "up", "--directory", str(self.path), *self.ports, *options]

    def up(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run `acm up` to its end, which is soon with --wait-ready."""
        return self._run(self.argv(*options))

    def acm(self, *words: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        return self._run([sys.executable, "-m", "broker", *words], text)

    def acm_agent(self, *words: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        return self._run([sys.executable, "-m", "consumer", *words], text)

    def down(self) -> "subprocess.CompletedProcess[str]":
        return self.acm("down", "--directory", str(self.path))

    def start(self, *options: str) -> "subprocess.Popen[str]":
        """Start `acm up` in the foreground."""
        running = subprocess.Popen(
            self.argv(*options),
            cwd=ROOT,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.foreground.append(running)
        return running

    def processes(self, word: str = "") -> list[int]:
        """Return the processes that have the directory, and the word, on their command lines."""
        return [pid for pid, words in command_lines() if str(self.path) in words and word in words]

    def wait_started(self, word: str) -> int:
        """Wait for the process with this word on its command line, and return its id."""
        found: list[int] = wait_for(lambda: self.processes(word), f"the process of {word}", 60)
        return found[0]

    def wait_ready(self) -> None:
        wait_for((self.path / "run" / "ready").exists, "all programs to work", 60)

    def wait_gone(self) -> None:
        wait_for(lambda: not self.processes(), "all processes to end")

    def end(self) -> None:
        for running in self.foreground:
            running.kill()
            running.communicate()
        for pid in self.processes(" up --directory"):
            os.kill(pid, 9)
        self.wait_gone()

    def _run(self, argv: list[str], text: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            argv,
            cwd=ROOT,
            env=self._environment(),
            input=text,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}


def command_lines() -> list[tuple[int, str]]:
    """Return the id and the command line of each process that has not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found.append((int(entry.name), words.replace(b"\0", b" ").decode(errors="replace")))
    return found
