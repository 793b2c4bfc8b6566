"""What every command store guarantees; runs against the store on disk and its twin in memory."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.contract.journal import chain_faults, command_sha256
from broker.contract.messages import SequenceNumber
from broker.contract.states import Outcome, State
from consumer.errors import StoreError
from consumer.ports import CommandStore, TimeSample, Tombstone
from consumer.store.command_store import DiskCommandStore
from consumer.store.opening import open_store
from tests.support.errors import raises_code
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.journals import Entries, entries_of, journal_of_any
from tests.support.makers import NOW, command, stored_result
from tests.support.stored import all_commands, tidy

Reopen = Callable[[], CommandStore]
Journal = Callable[[], Entries]


@pytest.fixture(params=["disk", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Open the store as the next process finds it."""
    in_memory = MemoryCommandStore()
    opened: list[DiskCommandStore] = []

    def open_again() -> CommandStore:
        if request.param == "memory":
            return in_memory
        if opened:
            opened.pop().close()
        opened.append(open_store(tmp_path / "state", now=lambda: NOW))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def journal(reopen: Reopen, tmp_path: Path) -> Journal:
    """Return the journal's entries; checks that they are one chain that ends at the store's `audit_head`."""

    def entries() -> Entries:
        store = reopen()
        journal = journal_of_any(store, tmp_path / "state")
        assert list(chain_faults(journal.anchor, journal.head, journal.pages)) == []
        assert store.audit_head == journal.head
        return entries_of(journal)

    return entries


def test_commands_keep_their_order_of_arrival_after_reopening(reopen: Reopen) -> None:
    store = reopen()
    for number, name in enumerate("bca", 1):
        store.store_command(command(name, number), NOW)
    store = reopen()
    assert [stored.command.id for stored in store.get_next_commands(9)] == ["b", "c", "a"]
    assert store.last_sequence == SequenceNumber(7, 3)


def test_trace_of_a_command_is_kept_until_it_is_deleted(reopen: Reopen) -> None:
    reopen().store_command(command("a"), NOW, ("key",), "00-trace")
    reopen().store_command(command("b"), NOW, ("key",))
    first, second = reopen().get_next_commands(9)
    assert (first.trace, second.trace) == ("00-trace", None)
    begun = reopen().mark_processing(first, NOW, "i1")
    assert [it.trace for it in (begun, *reopen().in_processing())] == ["00-trace"] * 2
    done = reopen().mark_completed(begun, stored_result("a"))
    assert [it.trace for it in (done, *reopen().with_results())] == ["00-trace"] * 2


def test_command_goes_through_all_states(reopen: Reopen) -> None:
    store = reopen()
    store.mark_processing(store.store_command(command("a"), NOW), NOW, "me")
    store = reopen()
    (processing,) = store.in_processing()
    assert (processing.begun_by, processing.started_at, processing.state) == ("me", NOW, State.PROCESSING)
    store.mark_completed(processing, stored_result("a"))
    store = reopen()
    assert (store.pending_count(), store.done_count()) == (0, 1)
    store.delete_completed_commands(["a"], NOW + timedelta(days=1))
    assert store.find_tombstone("a") is not None
    store = reopen()
    assert all_commands(store) == []
    tombstone = store.find_tombstone("a")
    assert tombstone == Tombstone("a", "d", Outcome.SUCCESS)
    tidy(store, NOW)
    assert store.find_tombstone("a") == tombstone
    tidy(store, NOW + timedelta(days=2))
    assert store.find_tombstone("a") is None


def test_result_is_never_replaced_and_open_command_never_deleted(reopen: Reopen) -> None:
    store = reopen()
    stored = store.store_command(command("a"), NOW)
    with raises_code(StoreError, "not_completed"):
        store.delete_completed_commands(["a"], NOW)
    store.mark_completed(stored, stored_result("a"))
    with raises_code(StoreError, "already_completed"):
        store.mark_completed(stored, stored_result("a"))


def test_transaction_that_raises_leaves_nothing(reopen: Reopen) -> None:
    store = reopen()
    store.store_command(command("a", 1), NOW)

    def store_and_fail() -> None:
        with store.transaction():
            store.store_command(command("b", 2), NOW)
            assert store.find("b") is not None
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own
        store_and_fail()
    for look in (lambda: store, reopen):
        seen = look()
        assert [stored.command.id for stored in all_commands(seen)] == ["a"]
        assert seen.last_sequence == SequenceNumber(7, 1)


def test_cancels_and_ids_are_stored(reopen: Reopen) -> None:
    store = reopen()
    store.remember_cancel("x", NOW + timedelta(days=1))
    store.store_command(command("mqtt-5-abc-1"), NOW)
    store = reopen()
    assert store.is_cancelled("x")
    assert (store.find_id("mqtt-5-abc-"), store.find_id("mqtt-6-")) == ("mqtt-5-abc-1", None)


def test_signers_of_a_command_are_stored(reopen: Reopen) -> None:
    store = reopen()
    stored = store.store_command(command("a"), NOW, ("k1", "k2"))
    store.store_command(command("b"), NOW)
    assert [each.signed_by for each in all_commands(reopen())] == [("k1", "k2"), ()]
    begun = reopen().mark_processing(stored, NOW, "me")
    assert begun.signed_by == ("k1", "k2")


def test_starts_are_counted(reopen: Reopen) -> None:
    assert reopen().starts == 0
    reopen().count_start()
    reopen().count_start()
    assert reopen().starts == 2


def test_time_sample_is_stored_with_its_transaction(reopen: Reopen) -> None:
    store = reopen()
    assert store.time_sample is None
    heard = TimeSample(NOW, NOW - timedelta(days=1))
    store.save_time_sample(heard)

    def keep_and_fail() -> None:
        with store.transaction():
            store.save_time_sample(TimeSample(NOW + timedelta(days=1), NOW))
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own
        keep_and_fail()
    assert store.time_sample == heard
    assert reopen().time_sample == heard


def test_sequence_advances_without_a_command(reopen: Reopen) -> None:
    reopen().advance_sequence(SequenceNumber(7, 4))
    assert reopen().last_sequence == SequenceNumber(7, 4)
    assert all_commands(reopen()) == []


def test_only_pending_commands_begin_and_only_live_ones_complete(reopen: Reopen) -> None:
    store = reopen()
    stored = store.store_command(command("a"), NOW)
    store.mark_processing(stored, NOW, "me")
    with raises_code(StoreError, "not_pending"):
        store.mark_processing(stored, NOW, "me")
    store.mark_completed(stored, stored_result("a"))
    store.delete_completed_commands(["a"], NOW)
    with raises_code(StoreError, "already_completed"):
        store.mark_completed(stored, stored_result("a"))


def test_marks_and_deletions_are_rolled_back_with_their_transaction(reopen: Reopen) -> None:
    store = reopen()
    for name in "abc":
        store.store_command(command(name), NOW)
    a, b, c = store.get_next_commands(3)
    store.mark_completed(a, stored_result("a"))

    def change_and_fail() -> None:
        with store.transaction():
            store.delete_completed_commands(["a"], NOW)
            store.mark_processing(b, NOW, "me")
            store.mark_completed(c, stored_result("c"))
            store.remember_cancel("b", NOW)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own
        change_and_fail()
    for look in (lambda: store, reopen):
        seen = look()
        states = [(stored.command.id, stored.state) for stored in all_commands(seen)]
        assert states == [("a", State.DONE), ("b", State.PENDING), ("c", State.PENDING)]
        assert not seen.is_cancelled("b")
        assert seen.find_tombstone("a") is None


def test_results_keep_the_order_of_arrival(reopen: Reopen) -> None:
    store = reopen()
    for name in "abc":
        store.store_command(command(name), NOW)
    for stored in reversed(list(store.get_next_commands(3))):
        store.mark_completed(stored, stored_result(stored.command.id))
    assert [stored.command.id for stored in reopen().with_results()] == ["a", "b", "c"]
    assert list(reopen().get_next_commands(1)) == []


def test_new_command_does_not_inherit_the_state_of_a_deleted_one(reopen: Reopen) -> None:
    store = reopen()
    begun = store.mark_processing(store.store_command(command("a"), NOW), NOW, "me")
    store.mark_completed(begun, stored_result("a"))
    store.delete_completed_commands(["a"], NOW)
    reopen().store_command(command("b"), NOW)
    assert [stored.state for stored in all_commands(reopen())] == [State.PENDING]


def test_cancel_ends_with_its_command(reopen: Reopen) -> None:
    store = reopen()
    stored = store.store_command(command("a"), NOW)
    store.remember_cancel("a", NOW + timedelta(days=1))
    store.mark_completed(stored, stored_result("a"))
    assert not reopen().is_cancelled("a")


def test_expired_cancels_are_dropped(reopen: Reopen) -> None:
    store = reopen()
    store.remember_cancel("x", NOW)
    store.remember_cancel("y", NOW + timedelta(days=1))
    tidy(store, NOW)
    assert (reopen().is_cancelled("x"), reopen().is_cancelled("y")) == (False, True)


def test_check_leaves_nothing_visible(reopen: Reopen) -> None:
    store = reopen()
    store.check()
    store.store_command(command("a", 1), NOW)
    store.check()
    assert [stored.command.id for stored in all_commands(reopen())] == ["a"]


def events_of(entries: Entries) -> list[tuple[str, list[str]]]:
    events = ("accepted", "begun", "resumed", "reported", "deleted")
    return [
        (event, [item if isinstance(item, str) else item["id"] for item in entry[event]])
        for entry in entries
        for event in events
        if event in entry
    ]


def test_journal_records_each_change_once(reopen: Reopen, journal: Journal) -> None:
    store = reopen()
    stored = store.mark_processing(store.store_command(command("a", 1), NOW), NOW, "i1")
    store.mark_resumed(stored, "i2")
    store.mark_completed(stored, stored_result("a"))
    store.delete_completed_commands(["a"], NOW)
    entries = journal()
    assert [entry["number"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert entries[0]["opened"] == {"store_generation": store.store_generation}
    assert events_of(entries) == [(event, ["a"]) for event in ("accepted", "begun", "resumed", "reported", "deleted")]
    assert entries[1]["accepted"] == [
        {
            "id": "a",
            "type": "restart-agent",
            "sha256": command_sha256(command("a")),
            "sequence": {"epoch": 7, "number": 1},
        }
    ]
    assert [entry.get("incarnation") for entry in entries] == [None, None, "i1", "i2", None, None]
    assert entries[4]["reported"] == [{"id": "a", "digest": "d", "outcome": "success"}]


def test_changes_of_one_commit_are_one_journal_entry(reopen: Reopen, journal: Journal) -> None:
    store = reopen()
    with store.transaction():
        for name in "ab":
            store.store_command(command(name), NOW)
        for stored in store.get_next_commands(2):
            store.mark_processing(stored, NOW, "i1")
    (entry,) = journal()[1:]
    assert events_of([entry]) == [("accepted", ["a", "b"]), ("begun", ["a", "b"])]


def test_journal_entry_always_fits_a_message(reopen: Reopen, journal: Journal) -> None:
    store = reopen()
    name = "\U0001f600" * 120
    with store.transaction():
        for number in range(200):
            store.store_command(command(f"{name}{number}", command_type=name), NOW)
    entries = journal()
    assert [len(entry.get("accepted", ())) for entry in entries] == [0, 64, 64, 64, 8]


def test_rolled_back_change_is_not_in_the_journal(reopen: Reopen, journal: Journal) -> None:
    store = reopen()
    store.store_command(command("a"), NOW)

    def store_and_fail() -> None:
        with store.transaction():
            store.store_command(command("b"), NOW)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own
        store_and_fail()
    store.store_command(command("c"), NOW)
    assert events_of(journal()) == [("accepted", ["a"]), ("accepted", ["c"])]


def test_only_a_command_in_processing_resumes(reopen: Reopen) -> None:
    store = reopen()
    stored = store.store_command(command("a"), NOW)
    with raises_code(StoreError, "not_in_processing"):
        store.mark_resumed(stored, "i2")
