"""Enrolment with another server: a wrong address, which the agent survives, and a move to a new server."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.panel import Panel

from scripts.demo.installation import Installation
from scripts.demo.processes import console, expect, free_port, program, sent, tool, wait_for
from scripts.demo.stage import Stage

AGENT = "web-02"


def show_enrolment(stage: Stage) -> None:
    """Move an agent to a new server with its own authority and broker."""
    state = stage.enrolled(AGENT)
    agent = ["-m", "consumer", "run", "--state", str(state)]
    with _new_server() as new, program(agent, stage.directory / f"{AGENT}.log"):
        wait_for(lambda: stage.installation.is_online(AGENT), f"{AGENT} to be online")
        _show_wrong_address(stage, new)
        _show_move(new, state)


@contextmanager
def _new_server() -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="acm-demo-") as name:
        new = Installation(Path(name))
        new.set_up()
        with new.serving(), program(new.server, new.server_log):
            yield new


def _show_wrong_address(stage: Stage, new: Installation) -> None:
    console.rule(
        "[bold]Enroll with a server whose broker is unreachable: the old enrolment stays[/bold]",
        align="left",
    )
    nowhere = f"mqtts://localhost:{free_port()}"
    with new.enrolling(free_port(), "--broker", nowhere) as wrong:
        _enroll("error", wrong, new.new_token(AGENT), "--timeout", "6s")
    shown = sent(AGENT, "get-agent-configuration", "section=broker", "--wait", "40")
    expect(_broker_of(shown) == stage.installation.broker, "the old server still commands it")
    console.print(f"The old server still commands it; its broker is {_broker_of(shown)}.\n")


def _show_move(new: Installation, state: Path) -> None:
    console.rule("[bold]Move to a new server with its own broker, by certificate[/bold]", align="left")
    _enroll("success", new.url, new.new_token(AGENT))
    wait_for(lambda: new.is_online(AGENT), f"{AGENT} at the new server")
    enrolment = tool("consumer", "enrolment", "--state", str(state))
    console.print(
        f"[dim]$[/dim] acm-agent enrolment: {enrolment['broker']}, certificate until {enrolment['not_after']}"
    )
    key = state / "enrolment" / "current" / "key.pem"
    expect(key.stat().st_mode & 0o777 == 0o600, "no other user can read the agent's key")
    console.print("The key was generated on the agent, with mode 600.")
    shown = new.acm("send", AGENT, "get-agent-configuration", "section=broker", "--wait", "40")["commands"][0]
    expect(_broker_of(shown) == new.broker, "the new server commands it")
    console.print(f"The new server commands it; its broker is {_broker_of(shown)}.\n")


def _enroll(outcome: str, server: str, token: str, *arguments: str) -> None:
    console.print(f"[dim]$[/dim] acm send {AGENT} enroll-agent server={server} token=@token --wait\n")
    with tempfile.NamedTemporaryFile("w", prefix="acm-demo-token-") as file:
        file.write(token)
        file.flush()
        parameters = (f"server={server}", f"token=@{file.name}", *arguments)
        result = sent(AGENT, "enroll-agent", *parameters, "--wait", "40")["result"]
    good = result["outcome"] == "success"
    expect(result["outcome"] == outcome, f"the enrolment ends with {outcome}")
    lines = f"{result['outcome']}: {result['message']}\n[dim]{json.dumps(result.get('data'))}[/dim]"
    console.print(Panel(lines, title="result in the old server's ledger", border_style="green" if good else "yellow"))


def _broker_of(shown: Any) -> str:
    return str(shown["result"]["data"]["configuration"]["broker"])
