"""What is refused: by the broker to the holder of an agent's certificate, and by an agent to whom the broker lets pass.

The intruder's certificate may publish everything, as the server's own account may: it stands for a taken-over broker.
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

OTHER, ROBBED = "web-02", "edge-03"
_NOT_AUTHORIZED = 0x87


def show_refusals(stage: Stage) -> None:
    """Show four attacks, and that the agents are as they were after each."""
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
        console.print(f"\nNothing of this restarted anything: {AGENT}'s service and both agents are the same ones.\n")


def _running(stage: Stage) -> dict[str, str]:
    """Say which processes run: what a restart-agent that is obeyed would replace."""
    agents = {agent: stage.online(agent)["incarnation"] for agent in (AGENT, OTHER)}
    return {**agents, "service": (stage.state / "service.pid").read_text()}


def _show_stolen_certificate(stage: Stage) -> None:
    console.rule("[bold]The certificate of one agent, used to speak as another or as the server[/bold]", align="left")
    directory = stage.enrolled(ROBBED) / "enrolment" / "current"
    thief = TlsFiles(directory / "ca.pem", directory / "certificate.pem", directory / "key.pem")
    for topic in (f"acm/{AGENT}/command", f"acm/{AGENT}/feedback"):
        answer = _publish(stage, ROBBED, thief, topic, b"{}")
        expect(answer.value == _NOT_AUTHORIZED, "the broker refuses that")
    console.print()


def _show_forgeries(stage: Stage) -> None:
    console.rule("[bold]A forged command, past the broker: unsigned, then signed by another key[/bold]", align="left")
    console.print(f"{INTRUDER} may publish all that the server may, as a broker that was taken over could.")
    for seal_it, said in ((_unsigned, "has not signed"), (_signed_by_another, "by a key that is trusted here")):
        forged = _restart(stage.online())
        _publish_past_the_broker(stage, AGENT, seal_it(stage, encode([forged])))
        _expect_rejected(stage, AGENT, forged.id, said)
    console.print()


def _show_replay(stage: Stage, captured: dict[str, Any]) -> None:
    console.rule("[bold]A replayed command: the captured frame, published again[/bold]", align="left")
    command_id = captured["command_id"]
    known = stage.hops.of(command_id, AGENT)
    said = len(stage.hops.results(command_id, AGENT))
    _publish_past_the_broker(stage, AGENT, stage.hops.frame(command_id, AGENT))
    results = wait_for(
        lambda: len(found := stage.hops.results(command_id, AGENT)) > said and found, "the result to be said again"
    )
    expect(results[-1]["digest"] == captured["digest"], "the same result is said again")
    show_hops(stage.hops.of(command_id, AGENT)[len(known) :])
    console.print("Known by its id and its number: it was not run, and its one result was said again.\n")


def _show_misdirection(stage: Stage, captured: dict[str, Any]) -> None:
    console.rule(f"[bold]A misdirected command: the same frame, published to {OTHER}[/bold]", align="left")
    command_id = captured["command_id"]
    _publish_past_the_broker(stage, OTHER, stage.hops.frame(command_id, AGENT))
    _expect_rejected(stage, OTHER, command_id, f"signed for the agent '{AGENT}'")


def _restart(status: dict[str, Any]) -> Command:
    """Return a command as the server would make it, down to the very next number."""
    sequence = SequenceNumber(status["epoch"], status["last_sequence"] + 1)
    return Command(new_id(), "restart-agent", {}, Origin("mallory", "demo"), datetime.now(UTC), sequence=sequence)


def _unsigned(stage: Stage, frame: bytes) -> bytes:
    return frame


def _signed_by_another(stage: Stage, frame: bytes) -> bytes:
    enrolment = tool("consumer", "enrolment", "--state", str(stage.state))["enrolment_id"]
    scope = Scope("acm-server", AGENT, (enrolment,), datetime.now(UTC))
    key = SigningKey(Ed25519PrivateKey.generate())
    return seal(payload_type(Channel.COMMAND), write_body(scope, frame), [key])


def _publish_past_the_broker(stage: Stage, agent: str, frame: bytes) -> None:
    answer = _publish(stage, INTRUDER, stage.installation.identity(INTRUDER), f"acm/{agent}/command", frame)
    expect(not answer.is_failure, "the broker lets the intruder's message pass")


def _publish(stage: Stage, name: str, identity: TlsFiles, topic: str, frame: bytes) -> ReasonCode:
    answer = publish(stage.installation.port, identity, topic, frame)
    colour = "green" if answer.is_failure else "yellow"
    console.print(
        f"{name} publishes on {topic}: the broker answers [{colour}]PUBACK 0x{answer.value:02x}, {answer}[/{colour}]."
    )
    return answer


def _expect_rejected(stage: Stage, agent: str, command_id: str, said: str) -> None:
    (result,) = wait_for(lambda: stage.hops.results(command_id, agent), f"the answer of {agent}")
    expect((result["outcome"], result["code"]) == ("error", "rejected"), f"{agent} rejects the command")
    expect(said in result["message"], f"{agent} says why: {result['message']}")
    words = f"error (rejected): {result['message']}"
    console.print(Panel(words, title=f"what {agent} answers", border_style="green"))
