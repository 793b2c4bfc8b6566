"""Single bits that flip in the rows of a ledger: the server serves every other agent, and nothing that was altered."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from broker.app.factories import open_database
from broker.cli.agent_list import AGENTS as AGENT_LIST
from broker.cli.commands import COMMANDS
from broker.cli.documents import document_of
from broker.console.formats import plain_lines
from broker.contract.codec import decode_commands, encode
from broker.contract.messages import Feedback, Origin, Status
from broker.contract.topics import Topics
from broker.errors import LedgerError
from broker.fleet.models import AgentFilter, CommandFilter
from broker.fleet.on_ledger import LedgerFleet
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.server.server import Server
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, inbound_on, result
from tests.unit.broker.server.test_server import RememberingWire

AGENTS = ("web-01", "web-02", "web-03")
TEXT = "a text that must arrive as it is"
PAGE = 4096
_LEAF = 0x0D  # the type of a page with rows (sqlite.org/fileformat2.html, section 1.6)


def status(agent: str, incarnation: str) -> Status:
    return Status(agent, True, "1", incarnation, "b1", "g1")


def receive(server: Server, message: Status | Feedback) -> None:
    channel = "status" if isinstance(message, Status) else "feedback"
    server.receive([inbound_on(f"acm/{message.agent}/{channel}", encode([message]))])


@pytest.fixture(scope="module")
def ids() -> list[str]:
    return []


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> bytes:
    file = tmp_path_factory.mktemp("kept") / "ledger.db"
    with open_database(f"sqlite:///{file}") as database:
        ledger = Ledger(database, now=TurnedClock().now)
        server = Server(ledger, RememberingWire(), Topics())
        for agent in AGENTS * 2:
            receive(server, status(agent, "i1"))
            receive(server, status(agent, "i2"))
            ids.append(ledger.add_command(agent, CommandRequest("restart-agent", {"text": TEXT}, Origin("a", "b"))).id)
        server.step()
        for agent, command_id in zip(AGENTS, ids[:3], strict=True):
            receive(server, replace(result(command_id), agent=agent))
    return file.read_bytes()


def places_in_rows(kept: bytes) -> list[int]:
    """The bytes of pages with rows of agents and commands, not of indexes: a flip there can hide several of them.

    The pages of the schema are damage of the whole file.
    """
    pages = [at for at in range(PAGE, len(kept), PAGE) if kept[at] == _LEAF and b"web-0" in kept[at : at + PAGE]]
    return [at for page in pages for at in range(page, page + PAGE) if kept[at]]


def test_flip_in_a_row_of_the_ledger_stops_nobody_else(tmp_path: Path, kept: bytes, ids: list[str]) -> None:
    chance = random.Random(15)
    places = places_in_rows(kept)
    served = 0
    for number in range(60):
        content = bytearray(kept)
        content[chance.choice(places)] ^= 1 << chance.randrange(8)
        file = tmp_path / f"{number}.db"
        file.write_bytes(content)
        file.chmod(0o600)
        try:
            served += works_on(f"sqlite:///{file}", ids)
        except LedgerError as error:
            if error.code != "ledger_damaged":  # SQLite's own structure, beside the rows
                raise
    assert served > 30


def works_on(url: str, ids: list[str]) -> bool:
    """Whether at least two agents got all of what is open for them, unaltered, and a command of acm shows the rest."""
    with open_database(url) as database:
        wire, ledger = RememberingWire(), Ledger(database, now=TurnedClock().now)
        server = Server(ledger, wire, Topics())
        for agent, command_id in zip(AGENTS, ids[:3], strict=True):
            receive(server, status(agent, "i3"))
            receive(server, replace(result(command_id), agent=agent))
        server.connected()
        server.step()
        arrived = [
            (topic.split("/")[1], it.id, it.parameters)
            for topic, frame in wire.sent
            if topic.endswith("/command")
            for it in decode_commands(frame, received_at=NOW, new_id=lambda: "new")
        ]
        whole = [(agent, command_id, {"text": TEXT}) for agent, command_id in zip(AGENTS, ids[3:], strict=True)]
        assert [it for it in arrived if it[1] in ids[3:] and it not in whole] == []
        assert len({it[1] for it in arrived} & set(ids[3:])) >= 2
        fleet = LedgerFleet(ledger, Origin("me", "test"))
        commands, agents = fleet.commands(CommandFilter()).items, fleet.agents(AgentFilter()).items
        assert [document_of(it) for it in (*commands, *agents)]
        assert plain_lines(COMMANDS.columns, commands, headers=False)
        assert plain_lines(AGENT_LIST.columns, agents, headers=False)
        ledger.damaged_rows()
    return True
