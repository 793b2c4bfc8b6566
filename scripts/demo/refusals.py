"""Refused messages: by the broker for a client with an agent's certificate, and by agents if the broker lets them pass.

The intruder's certificate may publish everything, like the server's own account: it stands for a compromised broker.
"""

from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.reasoncodes import ReasonCode
from rich.panel import Panel

from broker.contract.codec import encode
from broker.contract.dsse import Scope, SigningKey, payload_type, seal, write_body
from broker.contract.messages import Command, Origin, SequenceNumber
from broker.contract.topics import Channel
from broker.ledger.ids import new_id
from broker.mqtt.address import TlsFiles
from scripts.demo.installation import INTRUDER
from scripts.demo.processes import console, expect, program, tool, wait_for
from scripts.demo.stage import AGENT, Stage
from scripts.demo.wire import publish, show_hops

OTHER, STOLEN_FROM = "web-02", "edge-03"
_NOT_AUTHORIZED = 0x87


def show_refusals(stage: Stage) -> None:
    """Show four attacks, and that none of them changed anything."""
    _show_stolen_certificate(stage)
    other = ["-m", "consumer", "run", "--state", str(stage.enrolled(OTHER))]
    with program(other, stage.directory / f"{OTHER}.log"):
        stage.online(OTHER)
        captured = stage.send("A command that an intruder at the broker captures", "restart-agent")
        before = _running(stage)
        _show_forgeries(stage)
        _show_replay(stage, captured)
        _show_misdirection(stage, captured)
        expect(_running(stage) == before, "none of this restarted anything")
        console.print(f"\nNone of this restarted anything: {AGENT}'s service and both agents are the same processes.\n")


def _running(stage: Stage) -> dict[str, str]:
    """Return the incarnations of the agents and the service, which a restart would change."""
    agents = {agent: stage.online(agent)["incarnation"] for agent in (AGENT, OTHER)}
    return {**agents, "service": (stage.state / "service.pid").read_text()}


def _show_stolen_certificate(stage: Stage) -> None:
    console.rule("[bold]The certificate of one agent, used to impersonate another or the server[/bold]", align="left")
    directory = stage.enrolled(STOLEN_FROM) / "enrolment" / "current"
    stolen = TlsFiles(directory / "ca.pem", directory / "certificate.pem", directory / "key.pem")
    for topic in (f"acm/{AGENT}/command", f"acm/{AGENT}/feedback"):
        answer = _publish(stage, STOLEN_FROM, stolen, topic, b"{}")
        expect(answer.value == _NOT_AUTHORIZED, "the broker refuses that")
    console.print()


def _show_forgeries(stage: Stage) -> None:
    console.rule(
        "[bold]A forged command that the broker lets pass: unsigned, then with a wrong key[/bold]", align="left"
    )
    console.print(f"{INTRUDER} may publish everything that the server may, like a compromised broker.")
    for seal_it in (_unsigned, _signed_by_another):
        forged = _restart(stage.online())
        _publish_as_intruder(stage, AGENT, seal_it(stage, encode([forged])))
        _expect_refused(stage, AGENT, forged.id)
    console.print()


def _show_replay(stage: Stage, captured: dict[str, Any]) -> None:
    console.rule("[bold]A replayed command: the captured frame, published again[/bold]", align="left")
    command_id = captured["command_id"]
    known = stage.hops.of(command_id, AGENT)
    sent = len(stage.hops.results(command_id, AGENT))
    _publish_as_intruder(stage, AGENT, stage.hops.frame(command_id, AGENT))
    results = wait_for(
        lambda: len(found := stage.hops.results(command_id, AGENT)) > sent and found, "the result to be sent again"
    )
    expect(results[-1]["digest"] == captured["digest"], "the same result is sent again")
    show_hops(stage.hops.of(command_id, AGENT)[len(known) :])
    console.print("Recognized by its id: it was not run, and its one result was sent again.\n")


def _show_misdirection(stage: Stage, captured: dict[str, Any]) -> None:
    console.rule(f"[bold]A misdirected command: the same frame, published to {OTHER}[/bold]", align="left")
    command_id = captured["command_id"]
    _publish_as_intruder(stage, OTHER, stage.hops.frame(command_id, AGENT))
    _expect_refused(stage, OTHER, command_id)


def _restart(status: dict[str, Any]) -> Command:
    """Return a command as the server would make it, with the next sequence number."""
    sequence = SequenceNumber(status["epoch"], status["last_sequence"] + 1)
    return Command(new_id(), "restart-agent", {}, Origin("mallory", "demo"), datetime.now(UTC), sequence=sequence)


def _unsigned(stage: Stage, frame: bytes) -> bytes:
    return frame


def _signed_by_another(stage: Stage, frame: bytes) -> bytes:
    enrolment = tool("consumer", "enrolment", "--state", str(stage.state))["enrolment_id"]
    scope = Scope("acm-server", AGENT, (enrolment,), datetime.now(UTC))
    key = SigningKey(Ed25519PrivateKey.generate())
    return seal(payload_type(Channel.COMMAND), write_body(scope, frame), [key])


def _publish_as_intruder(stage: Stage, agent: str, frame: bytes) -> None:
    answer = _publish(stage, INTRUDER, stage.installation.identity(INTRUDER), f"acm/{agent}/command", frame)
    expect(not answer.is_failure, "the broker lets the intruder's message pass")


def _publish(stage: Stage, name: str, identity: TlsFiles, topic: str, frame: bytes) -> ReasonCode:
    answer = publish(stage.installation.port, identity, topic, frame)
    colour = "green" if answer.is_failure else "yellow"
    console.print(
        f"{name} publishes on {topic}: the broker answers [{colour}]PUBACK 0x{answer.value:02x}, {answer}[/{colour}]."
    )
    return answer


def _expect_refused(stage: Stage, agent: str, command_id: str) -> None:
    (result,) = wait_for(lambda: stage.hops.results(command_id, agent), f"the response of {agent}")
    expect((result["outcome"], result["code"]) == ("error", "rejected"), f"{agent} rejects the command")
    expect(result["data"] == {"refused": "message"}, f"{agent} refuses the message")
    text = f"error (rejected): {result['message']}"
    console.print(Panel(text, title=f"the response of {agent}", border_style="green"))
