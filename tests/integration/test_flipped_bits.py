"""Single bits that flip on the agent's disk: it starts, runs nothing that was altered, and forgets no command."""

import random
import shutil
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from consumer.active_response.records import ResponseRecords, read_pending
from consumer.configuration.apply_journal import JournalFile
from consumer.configuration.generations import Generations
from consumer.errors import CentralizedConfigurationError, StoreError, UpgradeError
from consumer.store.command_store import DiskCommandStore
from consumer.store.groups import Groups
from consumer.store.opening import open_store
from consumer.upgrade.trial import UpgradeTrial
from tests.support.errors import raises_code
from tests.support.makers import NOW, command, stored_result
from tests.support.stored import all_commands

IDS = [f"{number:08d}-a7c4-7e21-9d35-c0ffee15dead" for number in range(1, 17)]
ALONE, TOGETHER = IDS[:8], IDS[8:]  # in a row of their own; in rows of several commands
PENDING, CANCELLED = [*ALONE[:4], *TOGETHER[:3]], ALONE[1]
DONE, DELETED = [*ALONE[4:6], *TOGETHER[3:6]], [*ALONE[6:], *TOGETHER[6:]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("kept")
    with closing(open_store(state, now=lambda: NOW)) as store:
        for number, command_id in enumerate(ALONE, 1):
            store.store_command(command(command_id, number), NOW)
        with store.transaction():
            for number, command_id in enumerate(TOGETHER, len(ALONE) + 1):
                store.store_command(command(command_id, number), NOW)
        complete(store, ALONE)
        with store.transaction():
            complete(store, TOGETHER)
        store.delete_completed_commands(DELETED, NOW + timedelta(days=365))
        store.remember_cancel(CANCELLED, NOW + timedelta(days=5))
    return state


def complete(store: DiskCommandStore, command_ids: list[str]) -> None:
    for stored in filter(None, map(store.find, command_ids)):
        if stored.command.id not in PENDING:
            store.mark_completed(store.mark_processing(stored, NOW, "me"), stored_result(stored.command.id))


def with_flip(kept: Path, state: Path, at: int, bit: int) -> None:
    shutil.copytree(kept, state)
    database = state / "commands" / "cache.db"
    content = bytearray(database.read_bytes())
    content[at] ^= 1 << bit
    database.write_bytes(content)


def wrongs(store: DiskCommandStore, generation: str) -> list[object]:
    """Return what is neither as it was stored nor said to be damaged."""
    found = {stored.command.id: stored for stored in all_commands(store)}
    wrong: list[object] = list(found.keys() ^ {*PENDING, *DONE})
    expected = [command(command_id, number) for number, command_id in enumerate(IDS, 1)]
    wrong += [
        each for each in found.values() if each.damage is None and each.result is None and each.command not in expected
    ]
    wrong += [] if store.is_cancelled(CANCELLED) else ["the cancel"]
    wrong += [] if store.store_generation == generation else [store.store_generation]
    return wrong


def test_flip_anywhere_in_the_database_alters_no_command_unnoticed(kept: Path, tmp_path: Path) -> None:
    with closing(open_store(kept, now=lambda: NOW)) as store:
        generation = store.store_generation
    content = (kept / "commands" / "cache.db").read_bytes()
    used, chosen = [at for at, byte in enumerate(content) if byte], random.Random(7)
    set_aside = 0
    for number, at in enumerate(chosen.sample(used, 120)):
        state, bit = tmp_path / str(number), chosen.randrange(8)
        with_flip(kept, state, at, bit)
        with closing(open_store(state, now=lambda: NOW)) as store:
            if store.damage is None or "set aside" not in store.damage.message:
                assert wrongs(store, generation) == [], (at, bit)
            else:
                set_aside += 1
        shutil.rmtree(state)
    assert set_aside < 60


def places(kept: Path, text: str) -> list[int]:
    content, found = (kept / "commands" / "cache.db").read_bytes(), []
    at = -1
    while (at := content.find(text.encode(), at + 1)) >= 0:
        found.append(at)
    return found


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize(
    "key",
    [
        f"c/{1:016d}/{IDS[0]}",
        f"r/{DONE[0]}",
        f"g/c/{1:016d}",
        f"n/c/{1:016d}",
        f"g/r/{1:016d}",
        f"n/r/{1:016d}",
        f"t/{1:016d}",
        f"x/{CANCELLED}",
        "m/sentinel",
        "m/store_generation",
        "m/head",
    ],
)
def test_flip_in_a_key_is_repaired(kept: Path, tmp_path: Path, key: str, bit: int) -> None:
    """Each key is in the table and in the index."""
    with closing(open_store(kept, now=lambda: NOW)) as store:
        generation = store.store_generation
    assert len(places(kept, key)) >= 2
    for number, place in enumerate(places(kept, key)):
        state = tmp_path / str(number)
        with_flip(kept, state, place + len(key) - 2, bit)
        with closing(open_store(state, now=lambda: NOW)) as store:
            assert store.damage is None
            assert wrongs(store, generation) == []
            assert [store.find_tombstone(command_id) is not None for command_id in DELETED] == [True] * 4


@pytest.mark.parametrize("bit", [0, 7])
def test_flip_in_the_generation_begins_no_other_one_unnoticed(kept: Path, tmp_path: Path, bit: int) -> None:
    with closing(open_store(kept, now=lambda: NOW)) as store:
        generation = store.store_generation
    for number, place in enumerate(places(kept, generation)):
        state = tmp_path / str(number)
        with_flip(kept, state, place + 5, bit)
        with closing(open_store(state, now=lambda: NOW)) as store:
            if store.damage is not None:
                continue  # of the head row, which has a copy
            assert store.store_generation == generation
            assert sorted(stored.command.id for stored in all_commands(store)) == sorted([*PENDING, *DONE])


def no_text(content: bytes) -> bytes:
    """Return the content with the highest bit of a letter flipped, so that it is not UTF-8."""
    at = content.index(b'"') + 1
    return content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :]


def test_record_that_is_no_text_is_damage_of_that_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(no_text(b'{"name":"a"}'))
    with raises_code(StoreError, "store_error"):
        read_pending(tmp_path)
    assert ResponseRecords(tmp_path).damaged == ["a.damaged"]


def test_files_that_are_no_text_are_unreadable(tmp_path: Path) -> None:
    Groups(tmp_path).set(("edge",))
    (tmp_path / "groups.json").write_bytes(no_text(b'["edge"]'))
    assert Groups(tmp_path).current is None
    with raises_code(UpgradeError, "trial_damaged"):
        UpgradeTrial.decode(no_text(b'{"command_id":"a"}'))
    (tmp_path / "journal").write_bytes(no_text(b'{"command_id":"a"}'))
    with raises_code(CentralizedConfigurationError, "journal_damaged"):
        JournalFile(tmp_path / "journal").read("a")
    generations = Generations(tmp_path)
    generations.directory("000001-a").mkdir(parents=True)
    (tmp_path / "generations" / "000001-a.json").write_bytes(no_text(b'{"name":"a"}'))
    assert generations.record("000001-a") is None
