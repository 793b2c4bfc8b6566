"""A ledger as that of a large fleet: agents with statuses, groups and certificates, ended and open commands."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from benchmarks.measuring.commands import agent_names
from benchmarks.measuring.ledger_rows import add_completed
from broker.app.factories import open_ledger
from broker.contract.messages import Origin, Status
from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ids import new_id
from broker.ledger.ledger import Ledger
from broker.ledger.server_lock import ServerLock
from broker.ledger.tables import COMMANDS

__all__ = ["staged"]

_PER_TURN = 500
_PER_AGENT = 10  # ended commands, of which a hundredth has failed
_OPEN = 10  # of so many agents, one has an open command
_OFFLINE = 20  # of so many agents, one is offline
_VERSIONS = ("2.3.0", "2.4.0", "2.4.1", "2.4.1", "2.4.1")
_GROUPS = tuple(f"site-{number:02d}" for number in range(1, 21))
_TYPES = ("apply-centralized-configuration", "get-agent-configuration", "restart-agent", "upgrade-agent")
_DAY_S = 86400.0


@contextmanager
def staged(url: str, agents: int) -> Iterator[Ledger]:
    """Fill the empty ledger at a URL; for the block, a server of it seems to run."""
    names = agent_names(agents)
    with open_ledger(url) as ledger:
        _add_agents(ledger, names)
        _add_commands(ledger, names)
        lock = ServerLock(ledger.database, "bench", ledger.now)
        lock.acquire()
        lock.note_connection(None)
        try:
            yield ledger
        finally:
            lock.release()


def _add_agents(ledger: Ledger, names: Sequence[str]) -> None:
    for first in range(0, len(names), _PER_TURN):
        turn = range(first, min(first + _PER_TURN, len(names)))
        ledger.record_turn({names[it]: [_status(names[it], it)] for it in turn})
    for place, group in enumerate(_GROUPS):
        ledger.groups.add(group, names[place :: len(_GROUPS)])
    _enroll(ledger, names)


def _status(name: str, place: int) -> Status:
    service = {"kind": "systemd", "name": "sensor.service", "state": "running", "incarnation": f"{place:032x}"}
    return Status(
        name,
        place % _OFFLINE != 0,
        _VERSIONS[place % len(_VERSIONS)],
        f"i-{name}",
        f"b-{name}",
        f"g-{name}",
        supported_types=_TYPES,
        service=service,
        groups=(_GROUPS[place % len(_GROUPS)],),
        signing_keys_version=3,
        updated_at=datetime.now(UTC),
    )


def _enroll(ledger: Ledger, names: Sequence[str]) -> None:
    now = ledger.now().timestamp()
    ids = [new_id() for _ in names]
    with ledger.database.transaction() as connection:
        connection.execute(
            ENROLMENTS.insert(),
            [{"id": it, "agent": name, "enrolled_at": now} for it, name in zip(ids, names, strict=True)],
        )
        connection.execute(
            CERTIFICATES.insert(),
            [
                {
                    "serial": f"{place:040x}",
                    "enrolment_id": it,
                    "key": f"{place:064x}",
                    "not_before": now,
                    "not_after": now + (20 + place % 70) * _DAY_S,  # a seventh ends within 30 days
                    "pem": "",
                }
                for place, it in enumerate(ids)
            ],
        )


def _add_commands(ledger: Ledger, names: Sequence[str]) -> None:
    add_completed(ledger, names, 1, _PER_AGENT * len(names))
    with ledger.database.transaction() as connection:
        failed = COMMANDS.c.agent.in_(names[:: _PER_AGENT * 10]), COMMANDS.c.number <= _PER_AGENT
        connection.execute(COMMANDS.update().where(*failed).values(outcome="error"))
    ledger.add_operation(names[::_OPEN], "bench", CommandRequest("restart-agent", {}, Origin("bench", "benchmarks")))
