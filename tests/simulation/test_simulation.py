"""Random faults in random order; hypothesis shrinks them to the shortest sequence that breaks an invariant.

The stories are the same in each run, unless ACM_TEST_STORIES asks for so many other ones of each test.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.ports import CommandStore
from consumer.store.opening import open_store
from tests.simulation.world import World
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore


@dataclass(frozen=True, repr=False)
class Act:
    """What is done to the world; `text` is the code that makes it, to repeat a story."""

    text: str
    do: Callable[[World], None]

    def __repr__(self) -> str:
        return self.text


def act(name: str, *numbers: int | str | float | None, **flags: bool) -> Act:
    given = [repr(name), *map(repr, numbers), *(f"{flag}={value}" for flag, value in flags.items())]
    return Act(f"act({', '.join(given)})", lambda world: getattr(world, name)(*numbers, **flags))


def turn(seconds: float) -> Act:
    return Act(f"turn({seconds})", lambda world: world.clock.turn(seconds))


def both(*acts: Act) -> Act:
    def do(world: World) -> None:
        for each in acts:
            each.do(world)

    return Act(f"both({', '.join(map(repr, acts))})", do)


STEP_SERVER, STEP_AGENT, RUN = act("step_server"), act("step_agent"), act("run_handlers")
SEND = both(act("send", "once"), STEP_SERVER)
WORK = st.sampled_from(
    [
        SEND,
        both(act("send", "again"), STEP_SERVER),
        both(act("send", "once", 5.0), STEP_SERVER),
        act("send", "again"),
        STEP_SERVER,
        STEP_AGENT,
        both(STEP_AGENT, RUN),
        both(STEP_AGENT, RUN, STEP_AGENT),
        both(STEP_AGENT, RUN, STEP_AGENT, STEP_SERVER, STEP_AGENT),
        turn(0.1),
        turn(10.0),
        turn(400.0),
    ]
)
LOSE_COMMAND = both(act("send", "once"), STEP_SERVER, act("lose_one", "agent", 0))
LOSE_RESULT = both(STEP_AGENT, RUN, STEP_AGENT, act("lose_one", "server", 0))
ROLL_BACK = both(
    act("take_snapshot_of_agent"),
    both(act("send", "once"), STEP_SERVER, STEP_AGENT),
    both(turn(0.1), STEP_AGENT, STEP_SERVER, act("roll_agent_back")),
)
SET_CLOCK_BACK = both(LOSE_COMMAND, act("set_clock_of_ledger_back", 86400.0))
FAULTS = st.one_of(
    st.sampled_from(
        [
            LOSE_COMMAND,
            LOSE_RESULT,
            act("kill_agent"),
            act("lose_connection_of_agent"),
            act("lose_connection_of_server"),
            act("lose_data_of_broker"),
            act("lose_store"),
            act("forge_command"),
            act("back_up_ledger"),
            act("fill_store"),
            act("restore_ledger"),
            SET_CLOCK_BACK,
            ROLL_BACK,
            act("roll_agent_back"),
            act("save_broker"),
            act("put_broker_back", server_first=True),
            act("put_broker_back", server_first=False),
        ]
    ),
    st.integers(0, 30).map(lambda place: act("swap_retained", place)),
    st.builds(act, st.just("repeat_session"), st.sampled_from(["server", "agent"]), st.integers(1, 40)),
    st.integers(0, 30).map(lambda place: act("replay", place)),
    st.integers(0, 500).map(lambda place: act("flip_row", place)),
    st.integers(0, 500).map(lambda place: both(act("flip_row", place), act("kill_agent"))),
    st.integers(0, 3).map(lambda after: both(STEP_AGENT, act("kill_agent_in_handler", after))),
    st.integers(0, 9).map(lambda which: act("cancel", which)),
    st.builds(
        act, st.sampled_from(["lose_one", "repeat_one"]), st.sampled_from(["server", "agent"]), st.integers(0, 4)
    ),
)
DIES = [both(STEP_AGENT, act("kill_agent_in_handler", after)) for after in range(4)]
# The status of before is newer than what the server knows, and older than a result: no store has gone back.
STATUS_BEFORE_A_RESULT = [
    *(SEND, act("lose_connection_of_agent"), SEND, DIES[3], SEND, SEND, DIES[2], act("lose_data_of_broker")),
    *(act("swap_retained", 0), DIES[0], act("swap_retained", 1), DIES[1], act("lose_store"), act("swap_retained", 6)),
]
RUN_IN_A_LOST_STORE_BEFORE_IT_EXPIRED = [
    *(SEND, SEND, both(act("send", "once", 5.0), STEP_SERVER)),
    *(DIES[0], DIES[0], DIES[1], turn(400.0), act("lose_store")),
]
STORIES = st.lists(st.one_of(WORK, WORK, FAULTS), min_size=15, max_size=60)


def so_many(stories: int) -> settings:
    asked = os.environ.get("ACM_TEST_STORIES")
    return settings(max_examples=int(asked)) if asked else settings(max_examples=stories, derandomize=True)


def live(world: World, story: list[Act]) -> None:
    try:
        for each in story:
            each.do(world)
        world.settle()
        world.check()
    finally:
        world.ledger.database.close()


def lose_in_memory(store: CommandStore) -> CommandStore:
    last = store.last_sequence
    return MemoryCommandStore(closed_epoch=max(store.closed_epoch, last.epoch if last else 0))


@so_many(250)
@given(STORIES)
@example([SEND, SEND, act("lose_store"), SEND])
@example(STATUS_BEFORE_A_RESULT)
@example(RUN_IN_A_LOST_STORE_BEFORE_IT_EXPIRED)
def test_every_command_reaches_one_true_result_despite_faults(story: list[Act]) -> None:
    live(World(MemoryCommandStore(), lose_in_memory), story)


@so_many(40)
@given(STORIES)
def test_every_command_reaches_one_true_result_on_disk(story: list[Act]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"

        def lose(store: CommandStore) -> CommandStore:
            store.close()
            shutil.rmtree(state / "commands")
            return open_store(state, now=TurnedClock().now)

        world = World(open_store(state, now=TurnedClock().now), lose, state=state)
        try:
            live(world, story)
        finally:
            world.store.close()
