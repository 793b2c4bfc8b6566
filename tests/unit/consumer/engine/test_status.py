"""When the status is published."""

from dataclasses import replace

import pytest

from broker.contract.codec import decode_status, encode_status
from broker.contract.limits import LIMITS
from broker.contract.messages import PendingReversal, RunningProgress
from broker.contract.states import Problem
from broker.contract.topics import Channel
from consumer.engine.status import StatusBuilder
from consumer.settings import AgentConfig
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.makers import NOW, command


@pytest.fixture
def builder(clock: TurnedClock, store: MemoryCommandStore) -> StatusBuilder:
    config = AgentConfig(agent="web-01", broker="mqtt://127.0.0.1", state="unused")
    return StatusBuilder(config, store, clock, incarnation="i1", supported_types=("x",))


def test_status_shows_the_stores_content(builder: StatusBuilder, store: MemoryCommandStore) -> None:
    store.store_command(command("a", 4), NOW)
    status = builder.current("a")
    assert (status.epoch, status.last_sequence, status.queue_depth, status.running_command) == (7, 4, 1, "a")
    assert (status.online, status.store_generation) == (True, store.store_generation)


def test_change_is_published_at_a_limited_rate(
    builder: StatusBuilder, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    first = builder.take_due(None)
    assert first is not None
    assert first.updated_at == clock.now()
    builder.signing_keys_version = 7
    assert builder.take_due(None) is None
    clock.turn(0.2)
    changed = builder.take_due(None)
    assert changed is not None
    assert changed.signing_keys_version == 7


def test_counters_that_move_wait_for_others_to_move(
    builder: StatusBuilder, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    builder.take_due(None)
    clock.turn(10.0)
    store.store_command(command("a"), NOW)
    assert builder.take_due(None) is None
    assert builder.next_due() == clock.monotonic() + 2.0
    clock.turn(1.5)
    store.store_command(command("b"), NOW)
    assert builder.take_due("a") is None
    clock.turn(0.5)
    moved = builder.take_due("b")
    assert moved is not None
    assert (moved.queue_depth, moved.running_command) == (2, "b")
    store.store_command(command("c"), NOW)
    clock.turn(0.2)
    assert builder.take_due("b") is None
    builder.clock_behind_s = 60
    assert builder.take_due("b") is not None, "what the agent is does not wait"


def test_percentage_is_published_every_ten_seconds_and_a_new_phase_soon(
    builder: StatusBuilder, clock: TurnedClock
) -> None:
    builder.take_due("a")
    reports = [("download", 10, False), ("download", 20, True), ("download", 30, False), ("download", 40, False)]
    reports += [("download", 50, True), ("download", 60, False), ("unpack", None, False), ("unpack", None, True)]
    for phase, percent, due in reports:
        builder.progress = RunningProgress(phase, percent)
        clock.turn(2.0 if phase == "unpack" else 5.0)
        taken = builder.take_due("a")
        assert (taken is not None and taken.running_progress == builder.progress) == due, (phase, percent)
    ended = builder.current(None)
    assert (ended.running_command, ended.running_progress) == (None, None)


def test_longer_journal_is_published_with_the_next_change(
    builder: StatusBuilder, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    store.store_command(command("a"), NOW)
    stored = store.mark_processing(next(store.get_next_commands(1)), NOW, "i1")
    first = builder.take_due("a")
    assert first is not None
    store.mark_resumed(stored, "i1")
    clock.turn(299.0)
    assert builder.take_due("a") is None
    clock.turn(1.0)
    later = builder.take_due("a")
    assert later is not None
    assert later.audit_head == store.audit_head != first.audit_head


def test_unchanged_status_is_published_every_five_minutes(builder: StatusBuilder, clock: TurnedClock) -> None:
    builder.take_due(None)
    published_at = clock.monotonic()
    clock.turn(299.0)
    assert builder.take_due(None) is None
    assert builder.next_due() == published_at + 300.0
    clock.turn(1.0)
    assert builder.take_due(None) is not None


def test_change_within_the_rate_limit_is_published_later(
    builder: StatusBuilder, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    assert builder.next_due() == 0.0
    builder.take_due(None)
    assert builder.next_due() == clock.monotonic() + 0.2
    clock.turn(0.2)
    assert builder.take_due(None) is None
    assert builder.next_due() == clock.monotonic() + 299.8
    builder.clock_behind_s = 60
    assert builder.take_due(None) is not None


class RunningClock(TurnedClock):
    """Each look at it takes a moment."""

    def monotonic(self) -> float:
        self.turn(0.001)
        return super().monotonic()


def test_status_is_published_on_a_running_clock(store: MemoryCommandStore) -> None:
    config = AgentConfig(agent="web-01", broker="mqtt://127.0.0.1", state="unused")
    builder = StatusBuilder(config, store, RunningClock(), incarnation="i1", supported_types=("x",))
    assert builder.take_due(None) is not None


def test_status_is_published_at_once_on_a_new_connection(builder: StatusBuilder) -> None:
    builder.take_due(None)
    builder.publish_again()
    assert builder.take_due(None) is not None


def test_each_problem_is_shown_until_it_has_ended(builder: StatusBuilder) -> None:
    builder.problems.report(Problem.MESSAGE, "A message was refused.")
    builder.problems.report(Problem.PLUG_IN, "A plug-in is not used.")
    builder.problems.report(Problem.MESSAGE, "Another one was refused.")
    assert builder.current(None).last_error == "A plug-in is not used. Another one was refused."
    assert builder.current(None).problems == ("plug_in", "message")
    builder.problems.report(Problem.PLUG_IN, None)
    assert builder.current(None).last_error == "Another one was refused."
    builder.problems.report(Problem.MESSAGE, None)
    assert (builder.current(None).last_error, builder.current(None).problems) == (None, None)


def test_largest_status_is_cut_to_what_the_server_accepts(builder: StatusBuilder) -> None:
    builder.problems.report(Problem.PLUG_IN, "e" * 10_000)
    reversal = PendingReversal("block", tuple("\N{SNOWMAN}" * 120 for _ in range(8)), "c1", "waiting", NOW)
    full = replace(
        builder.current(None),
        supported_types=tuple(f"{number:03}" + "t" * 200 for number in range(300)),
        pending_reversals=(reversal,) * 50,
        pending_reversal_count=50,
    )
    frame = encode_status(full)
    assert len(frame) <= LIMITS[Channel.STATUS].frame_bytes
    status = decode_status(frame)
    assert (status.last_error, status.pending_reversal_count) == ("e" * 2047 + "…", 50)
    assert 0 < len(status.pending_reversals) < 50
    assert len(status.supported_types) == 256
    assert len(encode_status(full, 8_000)) <= 8_000


def test_statuses_and_last_wills_are_in_order(
    builder: StatusBuilder, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    store.count_start()
    last_will = builder.last_wills()
    made = [decode_status(last_will())]
    for _ in range(2):
        builder.publish_again()
        published = builder.take_due(None)
        assert published is not None
        made.insert(-1, published)
        made.append(decode_status(last_will()))
    made.insert(-1, builder.offline(None))
    orders = [status.order for status in made if status.order]
    assert len(orders) == 6
    assert orders == sorted(set(orders))
    assert [status.online for status in made] == [True, False, True, False, False, False]


def test_order_continues_with_the_next_start(builder: StatusBuilder, store: MemoryCommandStore) -> None:
    before = builder.offline(None).order
    store.count_start()
    after = builder.offline(None).order
    assert before is not None
    assert after is not None
    assert before < after


def test_request_to_report_is_answered_within_the_limited_rate(builder: StatusBuilder, clock: TurnedClock) -> None:
    builder.take_due(None)
    for _ in range(2):  # the first answer may have been lost
        builder.report("r1")
        assert builder.take_due(None) is None
        assert builder.next_due() <= clock.monotonic() + 0.2
        clock.turn(0.2)
        answer = builder.take_due(None)
        assert answer is not None
        assert answer.answers == "r1"
    clock.turn(0.2)
    assert builder.take_due(None) is None
