"""One trace from the request to the API to the confirmed result, through a real broker, and over a restart."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace

from broker.access.access_tokens import AccessTokenStore
from broker.app.api_server import ApiServer
from broker.app.config import ServerConfig
from broker.app.server import ServerProcess
from broker.contract.messages import Command
from broker.fleet.models import Principal, Role
from broker.mosquitto.process import EmbeddedMosquitto
from consumer.agent import Agent
from consumer.handler import Context, Handler, Interruption, Result
from consumer.settings import AgentConfig, Secret
from consumer.store.reader import read_queue
from consumer.system.programs import run_program
from tests.support.brokers import free_port
from tests.support.threads import on_a_thread
from tests.support.traced import CALLER, CALLER_SPAN, CALLER_TRACE, KeptSpans, chain_of
from tests.support.waiting import wait_for

CHAIN = [
    ("api", "POST /v1/commands"),
    ("api", "create note"),
    ("server", "send note"),
    ("agent", "process note"),
    ("agent", "send result"),
    ("server", "process result"),
]


@dataclass(frozen=True)
class Nothing:
    """No parameters."""


class Traced:
    """API, server and agent in this process, each with a tracer of its own, on a broker of its own."""

    def __init__(self, broker: str, directory: Path) -> None:
        self.kept = KeptSpans()
        self.broker, self.state = broker, directory / "state"
        self.held, self.goes_on = threading.Event(), threading.Event()
        self.config = ServerConfig(
            broker=broker,
            ledger=f"sqlite:///{directory}/ledger.db",
            ca=str(directory / "ca"),
            api_listen=f"127.0.0.1:{free_port()}",
        )
        self.server = ServerProcess(self.config, tracer=self.kept.tracer("server"))
        self.api = ApiServer(self.config, tracer=self.kept.tracer("api"))
        tokens = AccessTokenStore(self.server.ledger.database, now=lambda: datetime.now(UTC))
        _, token = tokens.add(Principal("alice", Role.OPERATOR), timedelta(days=1), "test")
        self.headers = {"Authorization": f"Bearer {token}"}
        self.seen: dict[str, tuple[str, str]] = {}

    def agent(self, *, has_tracer: bool = True) -> Agent:
        config = AgentConfig(agent="web-01", broker=Secret(self.broker), state=str(self.state), accept_unsigned=True)
        handlers = (
            Handler("note", Interruption.RERUN, Nothing, self._note),
            Handler("hold", Interruption.REPORT, Nothing, self._hold),
        )
        return Agent(config, handlers=handlers, tracer=self.kept.tracer("agent") if has_tracer else None)

    def _note(self, command: Command, parameters: Nothing, context: Context) -> Result:
        current = trace.get_current_span().get_span_context()
        printed = run_program(["printenv", "TRACEPARENT"], context.bounds()).output.stdout.strip()
        self.seen[command.id] = (f"{current.span_id:016x}" if current.is_valid else "", printed)
        return Result("Noted.")

    def _hold(self, command: Command, parameters: Nothing, context: Context) -> Result:
        self.held.set()
        self.goes_on.wait(60)
        return Result("Held.")

    def send(self, command_type: str, **headers: str) -> dict[str, Any]:
        body = {"type": command_type, "agents": ["web-01"], "allow_unknown": True, "force": True}
        url = f"http://{self.config.api_listen}/v1/commands"
        answer = httpx.post(url, json=body, headers=self.headers | headers, timeout=60, trust_env=False)
        return dict(answer.json()["command"])

    def shown(self, command_id: str) -> dict[str, Any]:
        url = f"http://{self.config.api_listen}/v1/commands/{command_id}?wait_s=30"
        return dict(httpx.get(url, headers=self.headers, timeout=60, trust_env=False).json())

    def spans_of(self, command_id: str) -> list[dict[str, Any]]:
        """Return the spans of the trace of a command, once its last one is there."""

        def complete() -> list[dict[str, Any]]:
            of_command = [it for it in self.kept.spans if it["attributes"].get("messaging.message.id") == command_id]
            return [it for it in of_command if it["name"] == "process result"]

        (last,) = wait_for(complete, f"the last span of {command_id}")
        return [it for it in self.kept.spans if it["trace"] == last["trace"]]


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    with EmbeddedMosquitto() as broker, ExitStack() as running:
        site = Traced(broker.url, tmp_path)
        running.enter_context(on_a_thread(site.server))
        running.enter_context(on_a_thread(site.api))
        running.callback(site.goes_on.set)
        url = f"http://{site.config.api_listen}/healthz"
        wait_for(lambda: _answers(url), "the API to answer")
        yield site


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_command_is_one_trace_from_the_request_to_the_confirmed_result(traced: Traced) -> None:
    with on_a_thread(traced.agent()):
        sent = traced.send("note", traceparent=CALLER, tracestate="vendor=1")
        assert sent["trace_id"] == CALLER_TRACE
        shown = traced.shown(sent["id"])
        spans = traced.spans_of(sent["id"])
        untraced = traced.send("note", traceparent=CALLER[:-1] + "0")  # its caller records nothing
        assert (untraced["trace_id"], traced.shown(untraced["id"])["outcome"]) == (None, "success")
        broken = traced.send("note", traceparent="00-" + "4" * 9000)  # so it begins a trace of its own
        other = traced.spans_of(broken["id"])
    assert (shown["trace_id"], shown["outcome"]) == (CALLER_TRACE, "success")
    assert chain_of(spans, "process result") == CHAIN
    assert spans[0]["parent"] == CALLER_SPAN
    assert {it["trace"] for it in spans} == {CALLER_TRACE}
    assert sorted(it["name"] for it in spans) == sorted([*(name for _, name in CHAIN), "receive note"])
    by_name = {it["name"]: it for it in spans}
    assert by_name["receive note"]["parent"] == by_name["send note"]["id"]
    run = by_name["process note"]
    assert traced.seen[sent["id"]] == (run["id"], f"00-{CALLER_TRACE}-{run['id']}-01")
    assert traced.seen[untraced["id"]] == ("", "")
    assert chain_of(other, "process result") == CHAIN
    assert other[0]["parent"] is None
    assert not any(it["is_error"] for it in traced.kept.spans)
    assert not any(it["attributes"].get("messaging.message.id") == untraced["id"] for it in traced.kept.spans)


def test_trace_goes_on_after_a_restart_and_without_the_spans_of_an_agent(traced: Traced) -> None:
    with on_a_thread(traced.agent()):
        held = traced.send("hold")
        assert traced.held.wait(60)
        waiting = traced.send("note")
        wait_for(lambda: len(read_queue(traced.state)) == 2, "both commands to be stored")
    with on_a_thread(traced.agent()):
        spans = traced.spans_of(waiting["id"])
        interrupted = traced.spans_of(held["id"])
    with on_a_thread(traced.agent(has_tracer=False)):
        others = traced.spans_of(traced.send("note")["id"])
    assert chain_of(spans, "process result") == CHAIN
    assert {it["trace"] for it in spans} == {waiting["trace_id"]}
    # Its run has ended with the process: the result continues what has sent the command.
    sent = [("api", "POST /v1/commands"), ("api", "create hold"), ("server", "send hold")]
    assert chain_of(interrupted, "process result") == [*sent, CHAIN[-1]]
    (last,) = (it for it in interrupted if it["name"] == "process result")
    assert (last["attributes"]["acm.outcome"], last["attributes"]["acm.code"]) == ("error", "interrupted")
    # What the agent does not continue, the server does, from what the ledger has.
    assert chain_of(others, "process result") == [*CHAIN[:2], CHAIN[-1]]
    assert sorted(it["name"] for it in others) == sorted([*(name for _, name in CHAIN[:3]), "process result"])
