"""State directories with commands and results, and what a start may do to them."""

import os
import signal
import sys
from pathlib import Path

from consumer.store.opening import open_store
from consumer.store.reader import read_queue
from tests.support.makers import NOW, command, stored_result

__all__ = ["AGENT_START", "STORE_START", "held", "make_state", "open_paths", "set_aside"]


_COMMANDS = 5
# Both are given the state directory as their only argument. The first opens the store and commits once.
STORE_START = [
    sys.executable,
    "-c",
    """
import sys
from pathlib import Path
from consumer.errors import ConsumerError
from consumer.store.opening import open_store
from tests.support.makers import NOW
try:
    store = open_store(Path(sys.argv[1]), now=lambda: NOW, agent="a1")
    store.remember_cancel("x", NOW)
    store.close()
except ConsumerError as error:
    print(error)
    sys.exit(4)
""",
]
# The second is a whole agent, whose broker cannot be reached, and which is stopped at once.
AGENT_START = [
    sys.executable,
    "-c",
    """
import sys
from consumer import Agent, AgentConfig
from consumer.errors import ConsumerError
try:
    agent = Agent(AgentConfig(agent="a1", broker="mqtt://127.0.0.1:1", state=sys.argv[1], accept_unsigned=True))
    agent.stop()
    agent.run()
except ConsumerError as error:
    print(error)
    sys.exit(4)
""",
]


def make_state(state: Path, *, killed: bool) -> None:
    """Make a state directory with pending commands and a result that was not acknowledged.

    With `killed`, its agent was ended by kill -9, so that the last commits are in the log of the database alone.
    """
    child = os.fork()
    if child == 0:
        try:
            _fill(state, killed=killed)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    assert len(held(state)) == _COMMANDS


def _fill(state: Path, *, killed: bool) -> None:
    store = open_store(state, now=lambda: NOW, agent="a1")
    for number in range(1, _COMMANDS + 1):
        store.store_command(command(str(number), number), NOW)
    (first,) = store.get_next_commands(1)
    store.mark_completed(store.mark_processing(first, NOW, "me"), stored_result("1"))
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    store.close()
    os._exit(0)


def open_paths(state: Path) -> list[Path]:
    """Return every file that a start may open in this directory."""
    store = state / "commands"
    names = ("lock", "epoch", "store-made", "ballast", "agent-name", ".agent-name.part", "groups.json")
    return [
        state,
        *(state / name for name in names),
        store,
        *(store / f"cache.db{end}" for end in ("", "-wal", "-shm")),
    ]


def held(state: Path) -> list[str]:
    """Return the ids of the commands in the queue."""
    return [stored.command.id for stored in read_queue(state)]


def set_aside(state: Path) -> list[str]:
    """Return the names of the stores that were taken for damaged."""
    return sorted(path.name for path in state.glob("commands.*"))
