"""Commands and results that share a row of the store: found, deleted one by one, and damaged one by one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from broker.contract.states import State
from consumer.store.command_store import DiskCommandStore
from consumer.store.opening import open_store
from consumer.store.reader import read_queue
from consumer.store.rows import HEAD, HeadRow
from tests.support.makers import NOW, command, stored_result
from tests.support.stored import all_commands

NAMES = ("a", "b", "c")
LATER = NOW + timedelta(days=365)
COMMANDS, MEMBERS, RESULTS = "g/c/0000000000000001", "n/c/0000000000000001", "g/r/0000000000000001"
Reopen = Callable[[], DiskCommandStore]


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Reopen]:
    """Open the store as the next process finds it; it begins with three commands that arrived in one turn."""
    opened: list[DiskCommandStore] = []

    def open_again() -> DiskCommandStore:
        if opened:
            opened.pop().close()
        opened.append(open_store(tmp_path, now=lambda: NOW))
        return opened[-1]

    store_together(open_again(), NAMES)
    yield open_again
    opened.pop().close()


def store_together(store: DiskCommandStore, names: Sequence[str]) -> None:
    with store.transaction():
        for name in names:
            store.store_command(replace(command(name), parameters={"x": "harmless"}), NOW)


def complete_together(store: DiskCommandStore) -> None:
    with store.transaction():
        for stored in store.get_next_commands(9):
            store.mark_completed(stored, stored_result(stored.command.id))


def grouped(store: DiskCommandStore) -> list[str]:
    return [key for prefix in ("g/", "n/", "c/", "r/") for key in store._rows.keys(prefix)]


def alter(store: DiskCommandStore, key: str, change: Callable[[bytes], bytes]) -> None:
    store._rows[key] = change(store._rows[key])


def states(store: DiskCommandStore) -> list[tuple[str, State]]:
    return [(stored.command.id, stored.state) for stored in all_commands(store)]


def test_commands_of_a_turn_and_their_results_share_rows(reopen: Reopen, tmp_path: Path) -> None:
    store = reopen()
    assert grouped(store) == [COMMANDS, MEMBERS]
    complete_together(store)
    assert grouped(store) == [COMMANDS, RESULTS, MEMBERS, "n/r/0000000000000001"]
    store = reopen()
    assert [stored.result for stored in store.with_results()] == [stored_result(name) for name in NAMES]
    assert read_queue(tmp_path) == all_commands(store)


def test_command_that_arrives_alone_has_a_row_of_its_own(reopen: Reopen) -> None:
    store = reopen()
    store.store_command(command("d"), NOW)
    assert grouped(store) == [COMMANDS, MEMBERS, "c/0000000000000004/d"]
    assert [stored.command.id for stored in reopen().get_next_commands(9)] == ["a", "b", "c", "d"]


def test_what_an_older_release_may_have_to_read_shares_no_row(reopen: Reopen) -> None:
    store = reopen()
    complete_together(store)
    store.delete_completed_commands(list(NAMES), LATER)
    store.stores_together = False
    store_together(store, ("d", "e"))
    complete_together(store)
    assert [key[:2] for key in grouped(store)] == ["c/", "c/", "r/", "r/"]
    assert not msgspec.json.decode(store._rows[HEAD], type=HeadRow).grouped


def test_command_is_found_in_the_turn_in_which_it_arrives(reopen: Reopen) -> None:
    store = reopen()
    with store.transaction():
        store_together(store, ("d", "e"))
        assert [stored.command.id for stored in store.get_next_commands(9)] == ["a", "b", "c", "d", "e"]
        complete_together(store)
    assert [state for _, state in states(reopen())] == [State.DONE] * 5


def test_group_goes_with_its_last_member(reopen: Reopen) -> None:
    complete_together(reopen())
    for number, name in enumerate(("b", "a", "c"), 1):
        store = reopen()
        store.delete_completed_commands([name], LATER)
        assert (store.done_count(), bool(grouped(store))) == (3 - number, number < 3)
        assert [gone for gone in NAMES if store.find_tombstone(gone) is None] == [id for id, _ in states(reopen())]


def test_large_turns_are_several_groups(reopen: Reopen) -> None:
    store = reopen()
    store_together(store, [f"n{number}" for number in range(300)])
    with store.transaction():
        for name in ("big", "bigger"):
            store.store_command(replace(command(name), parameters={"x": "x" * 60_000}), NOW)
    assert len(store._rows.keys("g/c/")) == 1 + 3
    assert len(store._rows.keys("c/")) == 2
    assert len(all_commands(reopen())) == 305


def test_transaction_that_fails_leaves_groups_as_they_were(reopen: Reopen) -> None:
    store = reopen()
    complete_together(store)

    def change_and_fail() -> None:
        with store.transaction():
            store.delete_completed_commands(["a", "b"], LATER)
            store_together(store, ("d", "e"))
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own
        change_and_fail()
    for look in (lambda: store, reopen):
        assert states(look()) == [(name, State.DONE) for name in NAMES]


@pytest.mark.parametrize("change", [(b'"x":"harmless"', b'"x":"harmlesr"'), (b"\t", b"\n")], ids=["content", "line"])
def test_damaged_line_is_damage_of_that_command_alone(reopen: Reopen, change: tuple[bytes, bytes]) -> None:
    def change_b(content: bytes) -> bytes:
        lines = content.split(b"\n")
        return b"\n".join([lines[0], lines[1].replace(*change), *lines[2:]])

    alter(reopen(), COMMANDS, change_b)
    found = list(reopen().get_next_commands(9))
    assert [stored.command.id for stored in found] == list(NAMES)
    assert found[1].damage is not None
    assert found[1].command.parameters == {}
    if change[1] != b"\n":  # else there is a line too many, and none of them counts
        assert [stored.damage for stored in (found[0], found[2])] == [None, None]


@pytest.mark.parametrize("lost", ["content", "members"])
def test_group_without_one_of_its_rows_still_names_its_commands(reopen: Reopen, lost: str) -> None:
    store = reopen()
    store._rows.discard(COMMANDS if lost == "content" else MEMBERS)
    found = list(reopen().get_next_commands(9))
    assert [stored.command.id for stored in found] == list(NAMES)
    assert [stored.damage is None for stored in found] == [False] * 3


def test_deleted_commands_stay_deleted_if_the_row_that_says_so_is_damaged(reopen: Reopen) -> None:
    store = reopen()
    complete_together(store)
    store.delete_completed_commands(["b"], LATER)
    alter(store, MEMBERS, lambda row: row.replace(b"keys", b"keyz"))
    store = reopen()
    assert states(store) == [("a", State.DONE), ("c", State.DONE)]
    assert [stored.result for stored in store.with_results()] == [stored_result("a"), stored_result("c")]
    store.delete_completed_commands(["a", "c"], LATER)
    assert grouped(reopen()) == []


def test_doubt_about_a_command_outlives_a_restart(reopen: Reopen) -> None:
    store = reopen()
    complete_together(store)
    store.delete_completed_commands(["a"], NOW)
    while store.tidy(NOW):  # drops the tombstone
        pass
    store.delete_completed_commands(["b"], LATER)
    alter(store, MEMBERS, lambda row: row.replace(b"keys", b"keyz"))
    reopen().count_start()
    (a,) = reopen().get_next_commands(9)
    assert (a.command.id, a.damage is None) == ("a", False)


def test_results_stay_results_if_the_row_of_their_keys_is_damaged(reopen: Reopen) -> None:
    store = reopen()
    complete_together(store)
    store.delete_completed_commands(["b"], LATER)
    alter(store, "n/r/0000000000000001", lambda row: row.replace(b"keys", b"keyz"))
    store = reopen()
    assert [stored.result for stored in store.with_results()] == [stored_result("a"), stored_result("c")]
    store.delete_completed_commands(["a", "c"], LATER)
    assert grouped(reopen()) == []


def test_damaged_result_of_a_group_is_replaced(reopen: Reopen) -> None:
    store = reopen()
    complete_together(store)
    alter(store, RESULTS, lambda content: content.replace(b"Done.", b"Dome.", 1))
    store = reopen()
    a, b, c = store.with_results()
    assert (a.result, a.damage is None, b.damage, c.damage) == (None, False, None, None)
    store.restore_result(a, stored_result("a"))
    assert [stored.result for stored in reopen().with_results()] == [stored_result(name) for name in NAMES]
    reopen().delete_completed_commands(NAMES, LATER)
    assert grouped(reopen()) == []


@pytest.mark.parametrize("lost", ["line", "content"])
def test_queue_shows_all_commands_beside_a_damaged_result(reopen: Reopen, tmp_path: Path, lost: str) -> None:
    store = reopen()
    complete_together(store)
    if lost == "line":
        alter(store, RESULTS, lambda content: content.replace(b"Done.", b"Dome.", 1))
    else:
        store._rows.discard(RESULTS)
    found = read_queue(tmp_path)
    assert [(stored.command.id, stored.state) for stored in found] == states(store)
    assert [stored.result is None for stored in found] == ([True, False, False] if lost == "line" else [True] * 3)


def test_result_restored_from_a_group_hides_what_the_group_had(reopen: Reopen) -> None:
    store = reopen()
    complete_together(store)
    alter(store, RESULTS, lambda content: content.replace(b"Done.", b"Dome.", 1))
    store = reopen()
    store.restore_result(store.with_results()[0], stored_result("a"))
    alter(store, "n/r/0000000000000001", lambda row: row.replace(b"keys", b"keyz"))
    store = reopen()
    assert [stored.result for stored in store.with_results()] == [stored_result(name) for name in NAMES]
    store.delete_completed_commands(NAMES, LATER)
    assert grouped(reopen()) == []


def test_version_that_knows_no_groups_takes_the_store_for_damaged(reopen: Reopen) -> None:
    """It would not see the commands; its check of the head is that of a head without groups."""
    store = reopen()
    head = msgspec.json.decode(store._rows[HEAD], type=HeadRow)
    assert (head.is_whole(), msgspec.structs.replace(head, grouped=False).is_whole()) == (True, False)
    complete_together(store)
    store.delete_completed_commands(NAMES, LATER)
    head = msgspec.json.decode(store._rows[HEAD], type=HeadRow)
    assert (head.is_whole(), head.grouped) == (True, False)


def test_kill_before_the_commit_leaves_nothing(tmp_path: Path) -> None:
    with closing(open_store(tmp_path / "killed", now=lambda: NOW)) as store:

        def die() -> None:
            with store.transaction():
                store_together(store, NAMES)
                store._live.flush(together=True)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            die()
        assert (grouped(store), all_commands(store)) == ([], [])
