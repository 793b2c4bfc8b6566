"""The server's loop on a ledger, without a broker: each step is timed, and each statement that it sends."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import sqlalchemy as sa

from benchmarks.fleet.frames import Arrived, Identity, Number, commands_in
from benchmarks.measuring.commands import agent_names
from benchmarks.measuring.ledger_rows import NO_OP
from broker.contract.topics import Channel, Topics
from broker.ledger.ledger import Ledger
from broker.ledger.tables import AGENTS, COMMANDS, CommandState
from broker.mqtt.delivery import Delivery
from broker.mqtt.inbound import Inbound
from broker.server.server import Server

__all__ = ["AGENTS_IN_LEDGER", "Times", "loop_times", "query_times", "statement_times"]

AGENTS_IN_LEDGER = 1_000
_REPEATS = 5
_DUE, _BATCH = 500, 250  # about what the server sends in a step, and takes from its inbox
_OF_AGENT = 9  # rows, which an agent has in the smallest ledger, too
Times = dict[str, float]  # milliseconds by name; the shortest, which other programs have disturbed least


class _Wire:
    """A broker that takes everything."""

    backlog = backlog_bytes = 0
    max_packet_bytes = 266_240

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []

    def max_payload_bytes(self, topic: str) -> int:
        return self.max_packet_bytes - len(topic) - 16

    def filled_payload_bytes(self, topic: str) -> int:
        return self.max_payload_bytes(topic)

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: object = None) -> bool:
        self.published.append((topic, payload))
        return True


class _Site:
    """A server with its fleet, whose agents answer when `results` and `statuses` are called."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.wire = _Wire()
        self.server = Server(ledger, self.wire, Topics("acm"))
        self.names = agent_names(AGENTS_IN_LEDGER)
        self._identities = {name: Identity(name, None) for name in self.names}
        self._statuses = 0

    def send(self) -> None:
        """Send what is due, until nothing is."""
        for _ in range(4):
            self.server.step()

    def statuses(self, agents: Sequence[str]) -> list[Inbound]:
        """Return a new status of each of these agents."""
        self._statuses += 1
        numbers = self._numbers(agents)
        return [
            _inbound(name, Channel.STATUS, self._status(name, Number(*numbers.get(name, (0, 0))))) for name in agents
        ]

    def results(self) -> list[Inbound]:
        """Return the results of all commands that were published since the last call."""
        found = []
        for topic, payload in self.wire.published:
            if topic.endswith("/command"):
                name = topic.split("/")[1]
                found += [self._result(name, it) for it in commands_in(payload)]
        self.wire.published.clear()
        return found

    def _result(self, name: str, command: Arrived) -> Inbound:
        return _inbound(name, Channel.FEEDBACK, self._identities[name].result(command))

    def _status(self, name: str, last: Number) -> bytes:
        order = (1, self._statuses)
        return self._identities[name].status(online=True, order=order, last=last, waiting=0, answers=None)

    def _numbers(self, agents: Sequence[str]) -> dict[str, tuple[int, int]]:
        query = sa.select(AGENTS.c.name, AGENTS.c.epoch, AGENTS.c.next_number).where(AGENTS.c.name.in_(agents))
        with self.ledger.database.reading() as connection:
            return {name: (epoch, number - 1) for name, epoch, number in connection.execute(query)}


def _inbound(agent: str, channel: Channel, payload: bytes) -> Inbound:
    topic = f"acm/{agent}/{channel}"
    return Inbound(agent, channel, Delivery(topic, payload, retained=False, duplicate=False, mid=1, connection=1))


def loop_times(ledger: Ledger) -> Times:
    """Return the least milliseconds of each step of the server's loop."""
    site, times = _Site(ledger), _Measured()
    names = site.names
    for first in range(0, len(names), _BATCH):  # the first ones create what is missing
        site.server.receive(site.statuses(names[first : first + _BATCH]))
    for repeat in range(_REPEATS):
        times.take("idle step", site.server.step)
        times.take("a new connection", site.server.connected)
        site.send()
        times.take(f"add_operation for {_DUE} agents", lambda: ledger.add_operation(names[:_DUE], "bench", NO_OP))
        times.take(f"step that sends {_DUE} commands", site.server.step)
        site.send()
        results = site.results()
        times.take("receive one result", lambda: site.server.receive(results[:1]))  # noqa: B023
        times.take(f"receive {_BATCH} results", lambda: site.server.receive(results[1 : _BATCH + 1]))  # noqa: B023
        site.server.receive(results[_BATCH + 1 :])
        times.take("add_command", lambda: ledger.add_command(names[repeat], NO_OP))  # noqa: B023
        site.send()
        site.server.receive(site.results())
        one, many = site.statuses(names[:1]), site.statuses(names[:_BATCH])
        times.take("receive one status", lambda: site.server.receive(one))  # noqa: B023
        times.take(f"receive {_BATCH} statuses", lambda: site.server.receive(many))  # noqa: B023
        times.take("settle", lambda: ledger.settle_expired(may_be_sent=True))
    return times.least()


def query_times(ledger: Ledger) -> Times:
    """Return the least milliseconds of what `acm agents`, `commands` (each filter), `show` and `operation` read."""
    agent = agent_names(1)[0]
    operation = ledger.operations.newest(1)[0].id
    newest = ledger.commands(limit=1)[0].command.id
    calls: dict[str, Callable[[], object]] = {
        "acm agents": ledger.agents,
        "acm commands": lambda: ledger.commands(limit=101),
        "acm commands --agent": lambda: ledger.commands(agent=agent, limit=_OF_AGENT),
        "acm commands --operation": lambda: ledger.commands(operation_id=operation, limit=101),
        "acm show": lambda: ledger.get(newest),
        "acm operation show": lambda: (ledger.operations.get(operation), ledger.operations.progress(operation)),
        "acm operation list": lambda: ledger.operations.newest(101),
    }
    for state in CommandState:
        calls[f"acm commands --state {state}"] = partial(ledger.commands, state=state, limit=101)
        calls[f"acm commands --agent --state {state}"] = partial(ledger.commands, agent, state, limit=_OF_AGENT)
    times = _Measured()
    for _ in range(_REPEATS):
        for name, call in calls.items():
            times.take(name, call)
    return times.least()


class _Measured:
    def __init__(self) -> None:
        self._taken: defaultdict[str, list[float]] = defaultdict(list)

    def take(self, name: str, call: Callable[[], object]) -> None:
        """Time a call."""
        began = perf_counter()
        call()
        self._taken[name].append((perf_counter() - began) * 1000)

    def least(self) -> Times:
        """Return the least in milliseconds."""
        return {name: min(values) for name, values in self._taken.items()}


@contextmanager
def statement_times(ledger: Ledger) -> Iterator[Times]:
    """Yield what has, after the block, the least milliseconds of each statement in it by its text."""
    engine: Any = ledger.database._engine
    taken: defaultdict[str, list[float]] = defaultdict(list)
    least: Times = {}

    def before(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        connection.info["began"] = perf_counter()

    def after(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        taken[_general(statement)].append((perf_counter() - connection.info["began"]) * 1000)

    sa.event.listen(engine, "before_cursor_execute", before)
    sa.event.listen(engine, "after_cursor_execute", after)
    try:
        yield least
    finally:
        sa.event.remove(engine, "before_cursor_execute", before)
        sa.event.remove(engine, "after_cursor_execute", after)
        least |= {text: min(values) for text, values in taken.items()}


def _general(statement: str) -> str:
    """Return a statement in one line, whatever the number of values in its lists."""
    line = " ".join(statement.split())
    return re.sub(r"\((?:\?|%\(\w+\)s(?:::\w+)?)(?:, (?:\?|%\(\w+\)s(?:::\w+)?))*\)", "(…)", line)


def open_some(ledger: Ledger, count: int = 5) -> None:
    """Leave a few commands running, as there are in most ledgers: a state that is rare."""
    for name in agent_names(count):
        ledger.add_command(name, NO_OP)
    ledger.claim_due(count)
    with ledger.database.transaction() as connection:
        sent = COMMANDS.update().where(COMMANDS.c.state == CommandState.SENT)
        connection.execute(sent.values(state=CommandState.RUNNING))
