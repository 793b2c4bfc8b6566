"""What an agent's counters have after a command's way."""

from dataclasses import replace
from datetime import timedelta

from broker.contract.topics import Channel
from broker.metrics.values import Buckets
from consumer.engine.counts import AgentCounts
from consumer.ports import State, StoredCommand
from tests.simulation.world import World
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.fakes.refusals import KeptRefusals
from tests.support.makers import NOW, command, encoded, result
from tests.unit.consumer.engine.test_receiver import delivery, message, receiver


def values(counts: AgentCounts) -> dict[str, object]:
    found = {}
    for family in counts.families():
        for labels, value in family.values.items():
            count = (value.counts[-1][1], value.sum) if isinstance(value, Buckets) else value
            found[" ".join((family.metric.name.removeprefix("acm_agent_"), *labels))] = count
    return found


def test_command_counts_when_it_begins_and_when_it_ends() -> None:
    counts = AgentCounts()
    began = NOW + timedelta(seconds=2)
    stored = StoredCommand("1", command("c"), State.PROCESSING, NOW, began)
    counts.committed([stored], [])
    done = replace(result("c"), started_at=began, finished_at=began + timedelta(seconds=3))
    counts.committed([], [StoredCommand("1", command("c"), State.DONE, NOW, began, result=encoded(done))])
    counts.result_sent(again=False)
    counts.result_sent(again=True)
    counts.result_sent(again=True)
    assert values(counts) == {
        "commands_total restart-agent success": 1,
        "command_wait_seconds": (1, 2.0),
        "command_run_seconds": (1, 3.0),
        "gaps_total": 0,
        "results_sent_total first": 1,
        "results_sent_total again": 2,
    }


def test_gaps_and_refused_messages_are_counted() -> None:
    counts = AgentCounts()
    world = World(MemoryCommandStore(), lambda store: store, watch=counts)
    world.send("again")
    world.step_server()
    world.lose_one("agent", 0)
    world.send("again")
    world.step_server()
    world.step_agent()
    world.clock.turn(0.04)
    world.forge(Channel.COMMAND, b"{")
    world.step_agent()
    found = values(counts)
    assert (found["gaps_total"], found["messages_refused_total not_json"]) == (1, 1)
    world.ledger.database.close()


def test_command_whose_number_is_used_up_is_counted_as_superseded() -> None:
    counts, store = AgentCounts(), MemoryCommandStore()
    takes = receiver(store, KeptRefusals(counts))
    takes.receive([delivery(message(name, 1)) for name in ("a", "x")])
    assert values(counts)["messages_refused_total superseded"] == 1


def test_codes_of_refusals_are_bounded() -> None:
    counts = AgentCounts()
    for number in range(60):
        counts.refused(f"code_{number}")
    assert values(counts)["messages_refused_total other"] == 10
