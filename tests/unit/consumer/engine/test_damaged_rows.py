"""Commands and results that the disk has altered: reported, never run, and without harm to the others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.contract.codec import encode
from broker.contract.messages import Ack
from broker.contract.topics import Channel
from consumer.store.command_store import DiskCommandStore
from consumer.store.opening import open_store
from tests.simulation.world import AGENT, World
from tests.support.fakes.clock import TurnedClock


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    state = tmp_path / "state"
    opened = World(open_store(state, now=TurnedClock().now), lambda store: store, state=state)
    yield opened
    opened.ledger.database.close()
    disk(opened).close()


def disk(world: World) -> DiskCommandStore:
    assert isinstance(world.store, DiskCommandStore)
    return world.store


def alter(world: World, prefix: str, change: Callable[[bytes], bytes]) -> None:
    """Alter the first row whose key begins like this."""
    rows = disk(world)._rows
    key = rows.keys(prefix)[0]
    rows[key] = change(rows[key])


def results(world: World) -> list[dict[str, object]]:
    rows = {row.command.id: row.result or {} for row in world.ledger.commands()}
    return [rows[sent.id] for sent in world.sent]


def test_damaged_command_ends_without_running_and_the_next_one_runs(world: World) -> None:
    for _ in range(2):
        world.send("once")
    world.step_server()
    world.core.step(world._comms.receive(0.0))  # the first is marked as processing, and is in memory
    world.kill_agent()  # so the first is interrupted
    for _ in range(2):
        world.send("once")
    world.step_server()
    (key,) = disk(world)._rows.keys("g/c/")  # both are in one row
    one, two, end = disk(world)._rows[key].split(b"\n")
    disk(world)._rows[key] = b"\n".join([one, two.replace(b'"once"', b'"onbe"'), end])
    disk(world)._load()  # what was just written is still in memory
    world.settle()
    found = results(world)
    assert [result.get("code") for result in found] == ["interrupted", "interrupted", None, None]
    assert "damaged on its disk. It was not run" in str(found[1]["message"])
    assert world.effects == [sent.id for sent in world.sent[2:]]
    assert world.sent[1].id in str(world.core._status.current(None).last_error)


def reported_once(world: World) -> None:
    """Run one command, whose result the server does not receive."""
    world.send("once")
    world.step_server()
    for _ in range(3):
        world.step_agent()
        world.run_handlers()
    assert disk(world).done_count() == 1
    world.lose_one("server", 0)
    world.lose_one("server", 0)


@pytest.mark.parametrize("restarts", [True, False])
def test_damaged_result_is_sent_as_the_journal_has_it(world: World, restarts: bool) -> None:
    reported_once(world)
    (done,) = disk(world).with_results()
    assert done.result is not None
    alter(world, "r/", lambda row: row.replace(b"Done.", b"Dome."))
    if restarts:
        world.kill_agent()
    world.settle()
    (found,) = results(world)
    assert (found["outcome"], found["digest"]) == ("success", done.result.feedback.digest)
    assert "only the outcome" in str(found["message"])
    world._check_journal()


def test_damaged_result_that_the_journal_has_not_any_more_is_interrupted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported_once(world)
    alter(world, "r/", lambda row: row.replace(b"Done.", b"Dome."))
    monkeypatch.setattr("consumer.store.journal.Journal.find_reported", lambda *_: None)
    world.kill_agent()
    monkeypatch.undo()
    world.settle()
    (found,) = results(world)
    assert (found["outcome"], found["code"]) == ("error", "interrupted")


def test_ack_that_arrives_for_a_damaged_result_deletes_it(world: World) -> None:
    reported_once(world)
    (done,) = disk(world).with_results()
    alter(world, "r/", lambda row: row.replace(b"Done.", b"Dome."))
    world.clock.turn(400.0)
    world.step_agent()  # it is due again, and cannot be read
    assert done.result is not None
    ack = encode([Ack(done.command.id, done.result.feedback.digest or "")])
    world.forge(Channel.ACK, world._signer.sign(AGENT, Channel.ACK, ack) or b"")
    world.step_agent()
    assert disk(world).done_count() == 0
    assert disk(world).find_tombstone(done.command.id) is not None
