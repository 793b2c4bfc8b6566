"""Random faults in random order; hypothesis shrinks them to the shortest sequence that breaks an invariant."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.ports import CommandStore
from consumer.store.opening import open_store
from tests.simulation.world import World
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore

Act = tuple[str, Callable[[World], None]]


def act(name: str, *numbers: int | str | float | None, **flags: bool) -> Act:
    return f"{name}{numbers}{flags}", lambda world: getattr(world, name)(*numbers, **flags)


def turn(seconds: float) -> Act:
    return f"turn({seconds})", lambda world: world.clock.turn(seconds)


def both(*acts: Act) -> Act:
    return " ".join(name for name, _ in acts), lambda world: [do(world) for _, do in acts][-1]


STEP_SERVER, STEP_AGENT, RUN = act("step_server"), act("step_agent"), act("run_handlers")
WORK = st.sampled_from(
    [
        both(act("send", "once"), STEP_SERVER),
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
STORIES = st.lists(st.one_of(WORK, WORK, FAULTS), min_size=15, max_size=60)


def live(world: World, story: list[Act]) -> None:
    try:
        for _, do in story:
            do(world)
        world.settle()
        world.check()
    finally:
        world.ledger.database.close()


def lose_in_memory(store: CommandStore) -> CommandStore:
    last = store.last_sequence
    return MemoryCommandStore(closed_epoch=max(store.closed_epoch, last.epoch if last else 0))


@settings(max_examples=250, derandomize=True)
@given(STORIES)
def test_every_command_reaches_one_true_result_despite_faults(story: list[Act]) -> None:
    live(World(MemoryCommandStore(), lose_in_memory), story)


@settings(max_examples=40, derandomize=True)
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
