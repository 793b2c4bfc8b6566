"""What an agent says that it has not shown yet of its work: it connects, stores, answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from broker.contract.codec import encode
from broker.contract.messages import Command
from broker.contract.topics import Topics
from consumer.comms.client import AgentCommsClient
from consumer.engine.core import AgentCore, AgentDependencies, HandlerRuntime
from consumer.engine.readiness import Readiness
from consumer.engine.status import StatusBuilder
from consumer.handler import Context, Handler, Interruption, Result
from consumer.services import NoService
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import NoTrust
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.departure import NoDeparture
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.fakes.wire import FakeBroker
from tests.support.makers import command, config


@dataclass(frozen=True)
class Nothing:
    """No parameters."""


def test_agent_is_ready_once_it_has_connected_and_committed(clock: TurnedClock, store: MemoryCommandStore) -> None:
    said: list[str | None] = []

    def ask(command: Command, parameters: Nothing, context: Context) -> Result:
        said.append(readiness.problem())
        return Result("Asked.")

    broker, topics, settings = FakeBroker(), Topics(), config(accept_unsigned=True)
    connection = broker.connect("web-01", AgentCommsClient.subscriptions("web-01", topics))
    status = StatusBuilder(settings, store, clock, incarnation="i1", supported_types=("ask",))

    def run(work: Callable[[], None]) -> None:
        work()

    readiness = Readiness(connection.readiness_problem)
    comms = AgentCommsClient(connection, "web-01", topics, clock.monotonic)
    parts = AgentDependencies(store, comms, clock, TrustedClock(clock), NoTrust(), NoDeparture(), readiness)
    handler = Handler("ask", Interruption.RERUN, Nothing, ask)
    runtime = HandlerRuntime(NoService(), run)
    core = AgentCore(settings, parts, runtime, status, {"ask": handler}, incarnation="i1")
    for name in ("a", "b"):
        broker.publish("acm/web-01/command", encode([replace(command(name, command_type="ask"))]))
        core.step(comms.receive(0.0))
        core.step([])
    connection.connected = False
    core.step([])
    assert said[:2] == ["it has stored nothing", None]
