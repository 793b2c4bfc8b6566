"""Real processes: the server, agents and the broker, each started by the test and stopped by its process id."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from broker.app.factories import open_ledger
from broker.cli.documents import document_of
from broker.contract.codec import to_json
from broker.contract.messages import JsonObject, Origin
from broker.contract.states import AgentState
from broker.fleet.views import view_of_command
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from consumer.store.reader import read_queue
from tests.support.enrolled import Registrar
from tests.support.postgresql import ledger_url_in
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


class Program:
    """One process of ours with its output in a file."""

    def __init__(self, argv: list[str], log: Path, *, cwd: Path = ROOT, **environment: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Send KILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """Send TERM, then KILL if it does not end."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        return self.process.returncode


class Site:
    """A server, its ledger and agents on one broker. Agents accept unsigned commands, unless the site signs."""

    def __init__(self, broker_url: str, directory: Path) -> None:
        self.broker_url = broker_url
        self.directory = directory
        self.ledger = ledger_url_in(directory)
        self.programs: list[Program] = []
        self.server: Program | None = None
        self.registrar: Registrar | None = None

    def opened_ledger(self) -> AbstractContextManager[Ledger]:
        """Open the ledger for a block, because acm takes half a second to start."""
        return open_ledger(self.ledger)

    def _start(self, name: str, argv: list[str], **environment: str) -> Program:
        unsigned = {} if self.registrar else {"ACM_ACCEPT_UNSIGNED": "true"}
        program = Program(argv, self.directory / f"{name}.log", **{**unsigned, **environment})
        self.programs.append(program)
        return program

    def start_server(self, module: str = "broker", **environment: str) -> Program:
        with self.opened_ledger():
            pass  # it exists now: commands that only read create none, and the server needs a moment to start
        argv = [sys.executable, "-m", module, "server", "--broker", self.broker_url, "--ledger", self.ledger]
        self.server = self._start("server", argv, ACM_CA=str(self.directory / "ca"), **environment)
        return self.server

    def enroll(self, agent: str) -> str:
        """Enroll an agent; only a server that was started after `sign` commands it. Return the enrolment's id."""
        return self.sign().enroll(agent, self.state(agent), self.broker_url)

    def sign(self) -> Registrar:
        """Make servers that are started later sign."""
        self.registrar = self.registrar or Registrar(self.directory / "ca", self.ledger)
        return self.registrar

    def start_enrolled_agent(
        self, agent: str, *arguments: str, module: str = "consumer", **environment: str
    ) -> Program:
        argv = [sys.executable, "-m", module, "run", "--state", str(self.state(agent)), *arguments]
        return self._start(agent, argv, **environment)

    def state(self, agent: str) -> Path:
        return self.directory / "state" / agent

    def start_agent(self, agent: str, *arguments: str, module: str = "consumer", **environment: str) -> Program:
        argv = [sys.executable, "-m", module, "run", "--agent", agent, "--broker", self.broker_url]
        return self._start(agent, [*argv, "--state", str(self.state(agent)), *arguments], **environment)

    def start_crashing_agent(self, agent: str, step: str, *arguments: str) -> Program:
        """Start an agent that kills itself with -9 when a handler has reached this step."""
        argv = [sys.executable, "-m", "tests.acceptance.crashing_agent", "run", "--agent", agent]
        argv += ["--broker", self.broker_url, "--state", str(self.state(agent)), *arguments]
        return self._start(agent, argv, ACM_TEST_CRASH_AT=step)

    def acm(self, *arguments: str, check: int | None = 0) -> Any:
        """Run acm with --json and return the document; None checks no exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "broker", *arguments, "--json"],
            cwd=ROOT,
            env={**os.environ, "ACM_LEDGER": self.ledger},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert check is None or done.returncode == check, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def acm_text(self, *arguments: str) -> str:
        """Run acm without --json on a terminal of 160 columns, and return its output."""
        done = subprocess.run(
            [sys.executable, "-m", "broker", *arguments],
            cwd=ROOT,
            env={**os.environ, "ACM_LEDGER": self.ledger, "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def send(self, agent: str, command_type: str, *arguments: str) -> str:
        return str(self.sent(agent, command_type, *arguments)["id"])

    def sent(self, *arguments: str, check: int = 0) -> Any:
        """Run acm send for one agent, and return the command that it shows."""
        (command,) = self.acm("send", *arguments, check=check)["commands"]
        return command

    def enqueue(self, agent: str, command_type: str, parameters: JsonObject, timeout_s: float | None = None) -> str:
        """Add a command as `acm send` does, without starting a process."""
        with self.opened_ledger() as ledger:
            origin = Origin("test", "acceptance")
            return ledger.add_command(agent, CommandRequest(command_type, parameters, origin, timeout_s=timeout_s)).id

    def show(self, command_id: str) -> Any:
        """Return the JSON of `acm show`."""
        with self.opened_ledger() as ledger:
            return document_of(view_of_command(ledger.get(command_id)))

    def result(self, command_id: str, timeout_s: float = 40.0) -> Any:
        """Wait for the final result of a command."""
        shown = wait_for(
            lambda: (row := self.show(command_id)) and row["state"] == "completed" and row,
            f"the result of {command_id}",
            timeout_s,
        )
        return shown["result"]

    def queue(self, agent: str) -> list[str]:
        """Return the states of the agent's commands, in order, as `acm-agent queue` reads them."""
        return [stored.state for stored in read_queue(self.state(agent))]

    def wait_online(self, agent: str) -> Any:
        """Wait for the agent, and return its status."""

        def online() -> Any:
            with self.opened_ledger() as ledger:
                row = ledger.agent(agent)
                return row.state is AgentState.ONLINE and row.status and to_json(row.status)

        return wait_for(online, f"{agent} to be online")

    def stop(self) -> None:
        for program in reversed(self.programs):
            program.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def both_ledgers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test's site with its ledger in each database; a module uses it by `usefixtures`.

    With ACM_TEST_LEDGER=pgbouncer, PostgreSQL is behind the pooler.
    """
    if request.param == "sqlite" or os.environ.get("ACM_TEST_LEDGER") != "pgbouncer":
        monkeypatch.setenv("ACM_TEST_LEDGER", request.param)


@pytest.fixture
def signing_site(broker: Any, tmp_path: Path) -> Iterator[Site]:
    """A site whose server signs."""
    site = Site(broker.url, tmp_path)
    site.sign()
    site.start_server()
    try:
        yield site
    finally:
        site.stop()


@pytest.fixture
def site(broker: Any, tmp_path: Path) -> Iterator[Site]:
    site = Site(broker.url, tmp_path)
    site.start_server()
    try:
        yield site
    finally:
        site.stop()
