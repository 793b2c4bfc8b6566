"""Enrolment, shown with a server of its own: a wrong address that strands nobody, and a move to a new server."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.panel import Panel

from broker.mosquitto import find_mosquitto
from scripts.demo.stage import Stage, console, free_port, program, tool, wait_for

AGENT = "web-02"


class NewServer:
    """Another server: its authority, a Mosquitto that demands certificates, `acm server` and `acm enroll-server`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ledger = f"sqlite:///{directory}/ledger.db"
        self._plain, self._tls, self._https = free_port(), free_port(), free_port()
        self.broker = f"mqtts://127.0.0.1:{self._tls}"
        self.url = f"https://127.0.0.1:{self._https}"

    @contextmanager
    def running(self) -> Iterator["NewServer"]:
        self.acm("ca", "init", "--dir", f"{self.directory}/ca")
        self.acm("ca", "server-certificate", "127.0.0.1", "--dir", f"{self.directory}/ca")
        with ExitStack() as stack:
            stack.enter_context(self._mosquitto())
            plain = f"mqtt://127.0.0.1:{self._plain}"
            server = ["-m", "broker", "server", "--broker", plain, "--ledger", self.ledger]
            stack.enter_context(program(server, self.directory / "server.log"))
            stack.enter_context(self.enrolling(self._https, self.broker))
            yield self

    def acm(self, *arguments: str) -> Any:
        return tool("broker", *arguments)

    def here(self, *arguments: str) -> Any:
        return self.acm(*arguments, "--ledger", self.ledger)

    def new_token(self) -> str:
        return str(self.here("token", "create", AGENT, "--ca", f"{self.directory}/ca")["token"])

    @contextmanager
    def enrolling(self, port: int, broker: str) -> Iterator[str]:
        """Run an enrolment server that tells agents of this broker; return its URL."""
        argv = ["-m", "broker", "enroll-server", "--ca", f"{self.directory}/ca", "--ledger", self.ledger]
        log = self.directory / f"enroll-server-{port}.log"
        with program([*argv, "--listen", f"127.0.0.1:{port}", "--broker", broker], log):
            wait_for(lambda: "enrolment_server_started" in log.read_text(), "the enrolment server")
            yield f"https://127.0.0.1:{port}"

    @contextmanager
    def _mosquitto(self) -> Iterator[None]:
        files = self.directory / "ca"
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text(
            "per_listener_settings true\nset_tcp_nodelay true\nmax_packet_size 266240\n"
            f"listener {self._plain} 127.0.0.1\nallow_anonymous true\n"
            f"listener {self._tls} 127.0.0.1\nallow_anonymous false\nrequire_certificate true\n"
            f"cafile {files}/ca.crt\ncertfile {files}/server.crt\nkeyfile {files}/server.key\n"
            f"crlfile {files}/crl.pem\nuse_identity_as_username true\nuse_username_as_clientid true\n"
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        with (self.directory / "mosquitto.log").open("ab") as log:
            process = subprocess.Popen([find_mosquitto(), "-c", str(configuration)], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


def show_enrolment(stage: Stage, url: str) -> None:
    """Let an agent of the stage's server move to a new one; `url` is the stage's broker."""
    state = stage.directory / AGENT
    agent = ["-m", "consumer", "run", "--agent", AGENT, "--broker", url, "--state", str(state)]
    with (
        tempfile.TemporaryDirectory(prefix="acm-demo-") as name,
        NewServer(Path(name)).running() as new,
        program(agent, stage.directory / f"{AGENT}.log"),
    ):
        wait_for(lambda: _online("agents"), f"{AGENT} to be online")
        _show_wrong_address(new)
        _show_move(new, state)


def _show_wrong_address(new: NewServer) -> None:
    console.rule(
        "[bold]Enrol with a server whose broker cannot be reached: the agent is not stranded[/bold]", align="left"
    )
    nowhere = f"mqtts://127.0.0.1:{free_port()}"
    with new.enrolling(free_port(), nowhere) as wrong:
        _enroll(wrong, new.new_token(), "--timeout", "6s")
    shown = tool("broker", "send", AGENT, "get-agent-configuration", "section=broker", "--wait", "40")
    console.print(f"The old server still commands it; its broker is {_broker_of(shown)}.\n")


def _show_move(new: NewServer, state: Path) -> None:
    console.rule("[bold]Move to a new server with its own broker, by certificate[/bold]", align="left")
    _enroll(new.url, new.new_token())
    wait_for(lambda: _online("agents", "--ledger", new.ledger), f"{AGENT} at the new server")
    enrolment = tool("consumer", "enrolment", "--state", str(state))
    console.print(
        f"[dim]$[/dim] acm-agent enrolment: {enrolment['broker']}, certificate until {enrolment['not_after']}"
    )
    key = state / "enrolment" / "current" / "key.pem"
    console.print(f"The key was made on the agent: mode {key.stat().st_mode & 0o777:o}.")
    shown = new.here("send", AGENT, "get-agent-configuration", "section=broker", "--wait", "40")
    console.print(f"The new server commands it; its broker is {_broker_of(shown)}.\n")


def _enroll(server: str, token: str, *arguments: str) -> None:
    console.print(f"[dim]$[/dim] acm send {AGENT} enroll-agent server={server} token=@token --wait\n")
    with tempfile.NamedTemporaryFile("w", prefix="acm-demo-token-") as file:
        file.write(token)
        file.flush()
        parameters = (f"server={server}", f"token=@{file.name}", *arguments)
        result = tool("broker", "send", AGENT, "enroll-agent", *parameters, "--wait", "40")["result"]
    good = result["outcome"] == "success"
    lines = f"{result['outcome']}: {result['message']}\n[dim]{json.dumps(result['data'])}[/dim]"
    console.print(Panel(lines, title="result in the old server's ledger", border_style="green" if good else "yellow"))


def _online(*arguments: str) -> bool:
    return any(row["agent"] == AGENT and row["online"] for row in tool("broker", *arguments))


def _broker_of(shown: Any) -> str:
    return str(shown["result"]["data"]["configuration"]["broker"])
