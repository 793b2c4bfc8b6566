"""What an agent says that it has not shown yet of its work: it connects, stores, answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from broker.contract.codec import decode_feedbacks, encode
from broker.contract.messages import Ack, Command
from broker.contract.topics import Topics
from consumer.comms.client import AgentCommsClient
from consumer.engine.core import AgentCore, AgentDependencies, HandlerRuntime
from consumer.engine.readiness import Readiness
from consumer.engine.round_trip import RoundTrip
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

FEEDBACK = "acm/web-01/feedback"


@dataclass(frozen=True)
class Nothing:
    """No parameters."""


def test_agent_is_ready_once_it_has_connected_committed_and_was_acknowledged(
    clock: TurnedClock, store: MemoryCommandStore
) -> None:
    said: list[str | None] = []

    def ask(command: Command, parameters: Nothing, context: Context) -> Result:
        said.append(readiness.problem())
        return Result("Asked.")

    broker, topics, settings = FakeBroker(), Topics(), config(accept_unsigned=True)
    connection = broker.connect("web-01", AgentCommsClient.subscriptions("web-01", topics))
    status = StatusBuilder(settings, store, clock, incarnation="i1", supported_types=("ask",))

    def run(work: Callable[[], None]) -> None:
        work()

    readiness = Readiness(connection.readiness_problem, RoundTrip("web-01", store.store_generation, "i1", clock))
    comms = AgentCommsClient(connection, "web-01", topics, clock.monotonic)
    parts = AgentDependencies(store, comms, clock, TrustedClock(clock), NoTrust(), NoDeparture(), readiness)
    handler = Handler("ask", Interruption.RERUN, Nothing, ask)
    runtime = HandlerRuntime(NoService(), run)
    core = AgentCore(settings, parts, runtime, status, {"ask": handler}, incarnation="i1")
    for name in ("a", "b", "c"):
        broker.publish("acm/web-01/command", encode([replace(command(name, command_type="ask"))]))
        core.step(comms.receive(0.0))
        core.step([])
        if name == "a":
            results = [
                each for topic, payload in broker.heard if topic == FEEDBACK for each in decode_feedbacks(payload)
            ]
            (sent,) = [each for each in results if each.command_id == "round-trip-i1"]
            assert sent.digest is not None
            broker.publish("acm/web-01/ack", encode([Ack("round-trip-i1", "another")]))
        if name == "b":
            clock.turn(2.0)
            core.step([])
            broker.publish("acm/web-01/ack", encode([Ack("round-trip-i1", sent.digest)]))
            core.step(comms.receive(0.0))
    assert said == ["it has stored nothing", "the server has acknowledged no result", None]
    assert sum(b"round-trip-i1" in payload for topic, payload in broker.heard if topic == FEEDBACK) == 2


def test_unsigned_ack_does_not_count_for_an_agent_that_requires_signatures(
    clock: TurnedClock, store: MemoryCommandStore
) -> None:
    broker, topics, settings = FakeBroker(), Topics(), config(accept_unsigned=False)
    connection = broker.connect("web-01", AgentCommsClient.subscriptions("web-01", topics))
    readiness = Readiness(connection.readiness_problem, RoundTrip("web-01", store.store_generation, "i1", clock))
    comms = AgentCommsClient(connection, "web-01", topics, clock.monotonic)
    parts = AgentDependencies(store, comms, clock, TrustedClock(clock), NoTrust(), NoDeparture(), readiness)
    status = StatusBuilder(settings, store, clock, incarnation="i1", supported_types=())
    core = AgentCore(settings, parts, HandlerRuntime(NoService(), lambda work: work()), status, {}, incarnation="i1")
    core.step([])
    readiness.problem()
    core.step([])
    (sent,) = [each for topic, payload in broker.heard if topic == FEEDBACK for each in decode_feedbacks(payload)]
    assert sent.digest is not None
    broker.publish("acm/web-01/ack", encode([Ack("round-trip-i1", sent.digest)]))
    core.step(comms.receive(0.0))
    assert readiness.problem() == "the server has acknowledged no result"
