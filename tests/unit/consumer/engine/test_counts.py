"""What an agent's counters have after a command's way."""

from dataclasses import replace
from datetime import timedelta

from broker.metrics.values import Buckets
from consumer.engine.counts import AgentCounts
from consumer.ports import State, StoredCommand
from tests.support.makers import NOW, command, encoded, result


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
        "results_sent_total first": 1,
        "results_sent_total again": 2,
    }
