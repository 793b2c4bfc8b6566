"""An installation like that of the README's quick start: authority, secured broker, server, enrolled agents."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.app.config import load_config
from broker.app.factories import open_ledger
from broker.contract.codec import to_json
from broker.mqtt.address import TlsFiles
from scripts.demo.processes import failed, free_port, program, tool, wait_for

LISTENER, INTRUDER = "demo-listener", "demo-intruder"
# Added before the rules of `acm broker config`: a client that may read everything, and one that may also publish.
_MORE_RULES = f"user {LISTENER}\ntopic read acm/#\n\nuser {INTRUDER}\ntopic readwrite acm/#\n\n"


@dataclass
class Installation:
    """One server's files; its broker accepts only clients with a certificate of its authority."""

    directory: Path
    port: int = field(default_factory=free_port)
    enrolment_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)

    @property
    def settings(self) -> Path:
        return self.directory / "broker" / "server.toml"

    @property
    def broker(self) -> str:
        return f"mqtts://localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.enrolment_port}"

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.api_port}/"

    @property
    def signing_keys(self) -> Path:
        return self.directory / "ca" / "signing"

    @property
    def server(self) -> list[str]:
        return ["-m", "broker", "server", "--config", str(self.settings)]

    @property
    def server_log(self) -> Path:
        return self.directory / "server.log"

    def acm(self, *arguments: str) -> Any:
        return tool("broker", *arguments, "--config", str(self.settings))

    def agents(self) -> list[dict[str, Any]]:
        """Return the last statuses of all agents; read directly, since starting acm is too slow for polling."""
        with open_ledger(load_config(self.settings, {}).ledger) as ledger:
            return [to_json(row.status) for row in ledger.agents() if row.status]

    def is_online(self, agent: str) -> bool:
        return any(row["agent"] == agent and row["online"] for row in self.agents())

    def set_up(self) -> None:
        """Write the files, and certificates for the demonstration's two additional clients."""
        self.directory.mkdir(exist_ok=True)
        authority, broker = self.directory / "ca", self.directory / "broker"
        environment = {"ACM_CONFIG": ""}  # do not use the settings of another installation
        tool("broker", "ca", "init", "--dir", str(authority), **environment)
        ledger = f"sqlite:///{self.directory}/ledger.db"
        options = ("--ca", str(authority), "--ledger", ledger, "--out", str(broker), "--port", str(self.port))
        tool("broker", "broker", "config", *options, **environment)
        for name in (LISTENER, INTRUDER):
            self.acm("ca", "client-certificate", "--name", name, "--out", str(self.directory))
        rules = broker / "acl"
        rules.write_text(_MORE_RULES + rules.read_text())
        # A browser does not know the authority, so the page is served without TLS, on loopback, as `acm up` does.
        kept = [line for line in self.settings.read_text().splitlines() if not line.startswith("api_")]
        listens = [f'enroll_listen = "127.0.0.1:{self.enrolment_port}"', f'api_listen = "127.0.0.1:{self.api_port}"']
        self.settings.write_text("\n".join([*kept, *listens, ""]))

    def identity(self, name: str) -> TlsFiles:
        """Return the files of LISTENER or INTRUDER."""
        return TlsFiles(
            self.directory / "broker" / "ca.crt", self.directory / f"{name}.crt", self.directory / f"{name}.key"
        )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the broker and the enrolment server, without the server."""
        log = self.directory / "broker.log"
        with ExitStack() as stack:
            argv = ["-m", "broker", "broker", "run", "--dir", str(self.settings.parent)]
            stack.enter_context(program(argv, log))
            stack.enter_context(self.enrolling(self.enrolment_port))
            wait_for(lambda: "Mosquitto listens" in log.read_text(), "the broker")
            yield

    @contextmanager
    def enrolling(self, port: int, *arguments: str) -> Iterator[str]:
        """Run an enrolment server; return its URL."""
        log = self.directory / f"enroll-server-{port}.log"
        argv = ["-m", "broker", "enroll-server", "--config", str(self.settings), "--listen", f"127.0.0.1:{port}"]
        with program([*argv, *arguments], log):
            wait_for(lambda: "enrolment_server_started" in log.read_text(), "the enrolment server")
            yield f"https://localhost:{port}"

    def new_token(self, agent: str) -> str:
        return str(self.acm("token", "create", agent)["token"])

    def enroll(self, agent: str, state: Path) -> None:
        """Enroll an agent with `acm-agent enroll`, with the token on stdin."""
        options = ["--server", self.url, "--token", "-", "--agent", agent, "--state", str(state)]
        argv = [sys.executable, "-m", "consumer", "enroll", *options]
        done = subprocess.run(argv, input=self.new_token(agent), capture_output=True, text=True, timeout=90)
        if done.returncode:
            raise failed(f"{agent} was not enrolled: {done.stderr}")
