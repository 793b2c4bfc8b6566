"""The directory of signing keys: changes, interrupted changes, and their distribution."""

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from broker.app.factories import open_database
from broker.contract.commands.update_signing_keys import MAX_KEYS, UPDATE_SIGNING_KEYS, UpdateSigningKeys
from broker.contract.dsse import SigningKey
from broker.contract.messages import Origin, Status
from broker.enrolment.store import EnrolmentStore
from broker.errors import ExposedFileError
from broker.fleet.key_rollout import RolloutProgress, distribute, rollout_of
from broker.ledger.ledger import Ledger
from broker.signing.key_directory import KeyDirectory
from broker.signing.key_list import KeyEntry, KeyList, KeyState, SigningKeyError
from broker.signing.key_store import SigningKeys, SigningKeyStore, create_signing_keys
from tests.support.enrolled import Registrar
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW
from tests.support.recorded import record_status


@pytest.fixture
def directory(tmp_path: Path, clock: TurnedClock) -> Path:
    create_signing_keys(tmp_path / "signing", clock.now())
    return tmp_path / "signing"


@pytest.fixture
def keys(directory: Path) -> SigningKeys:
    return SigningKeys(directory)


def private_keys(directory: Path) -> set[str]:
    return {path.stem for path in directory.glob("*.key")}


def signing(keys: SigningKeys) -> list[str]:
    return [key.public.id for key in keys.signing]


def test_rotation_adds_a_key_that_signs_beside_the_others(
    directory: Path, keys: SigningKeys, clock: TurnedClock
) -> None:
    (old,), version = keys.entries, keys.version
    assert keys.announced, "every agent is granted the first key"
    clock.turn(60)
    new = SigningKeyStore(directory).rotate(clock.now())
    assert signing(keys) == [old.id, new.id]
    assert keys.version == version + 60_000 == new.since
    assert keys.update == UpdateSigningKeys(keys.version, (old.public, new.public))
    assert not keys.announced


def test_revoked_key_is_deleted_and_no_longer_signs(directory: Path, keys: SigningKeys, clock: TurnedClock) -> None:
    (old,) = keys.entries
    new = keys.rotate(clock.now())
    before = keys.version
    SigningKeyStore(directory).revoke(old.id, clock.now())
    assert signing(keys) == [new.id]
    assert keys.update == UpdateSigningKeys(keys.version, (new.public,))
    assert keys.version > before
    assert [entry.state for entry in keys.entries] == [KeyState.REVOKED, KeyState.ACTIVE]
    assert private_keys(directory) == {new.id}
    again, version = keys.revoke(old.id, clock.now()), keys.version
    assert (again.state, keys.version) == (KeyState.REVOKED, version)


def test_last_active_key_cannot_be_revoked(keys: SigningKeys, clock: TurnedClock) -> None:
    (only,) = keys.entries
    with raises_code(SigningKeyError, "last_signing_key"):
        keys.revoke(only.id, clock.now())
    with raises_code(SigningKeyError, "unknown_signing_key"):
        keys.revoke("nobody", clock.now())
    assert signing(keys) == [only.id]


def test_number_of_active_keys_is_limited(keys: SigningKeys, clock: TurnedClock) -> None:
    for _ in range(MAX_KEYS - 1):
        keys.rotate(clock.now())
    with raises_code(SigningKeyError, "too_many_signing_keys"):
        keys.rotate(clock.now())
    assert len(keys.signing) == MAX_KEYS


def test_directory_created_again_continues_with_later_versions(
    directory: Path, clock: TurnedClock, tmp_path: Path
) -> None:
    store = SigningKeyStore(directory)
    for _ in range(3):
        store.rotate(clock.now())
    clock.turn(1)
    create_signing_keys(tmp_path / "another", clock.now())
    assert SigningKeyStore(tmp_path / "another").version > store.version


def test_check_gets_the_list_version_that_replaces_a_key(keys: SigningKeys, clock: TurnedClock) -> None:
    (first,) = keys.entries
    second, third = keys.rotate(clock.now()), keys.rotate(clock.now())
    needed: list[int] = []
    keys.revoke(third.id, clock.now(), check=needed.append)
    keys.revoke(first.id, clock.now(), check=needed.append)
    assert needed == [first.since, second.since]


def test_concurrent_revocations_do_not_rely_on_each_others_key(
    directory: Path, keys: SigningKeys, clock: TurnedClock
) -> None:
    """The agents know a and b. Each is dispensable while the other exists, so the second one must check again."""
    a, b, c = keys.entries[0], keys.rotate(clock.now()), keys.rotate(clock.now())
    needed: list[int] = []

    def check(version: int) -> None:
        needed.append(version)
        handle = os.open(directory, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)

    keys.revoke(a.id, clock.now(), check=check)
    SigningKeyStore(directory).revoke(b.id, clock.now(), check=check)
    assert needed == [b.since, c.since]


def test_change_gets_a_version_above_that_of_all_agents(keys: SigningKeys, clock: TurnedClock) -> None:
    (first,), ahead = keys.entries, keys.version + 1_000_000
    second = keys.rotate(clock.now(), above=ahead)
    assert keys.version == second.since == ahead + 1
    keys.revoke(first.id, clock.now(), above=ahead + 7)
    assert keys.version == ahead + 8


def test_files_written_by_root_belong_to_the_owner_of_the_directory(directory: Path, clock: TurnedClock) -> None:
    for path in (directory, *directory.iterdir()):
        os.chown(path, 65534, 65534)
    new = SigningKeyStore(directory).rotate(clock.now())
    SigningKeyStore(directory).mark_announced(SigningKeyStore(directory).version)
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in directory.iterdir()}
    assert set(owners) >= {"keys.json", f"{new.id}.key"}
    assert set(owners.values()) == {(65534, 65534)}


def test_unreadable_key_is_reported_with_the_chown_command(directory: Path) -> None:
    (key,) = directory.glob("*.key")
    key.unlink()
    key.mkdir(mode=0o700)
    with raises_code(SigningKeyError, "unreadable_signing_key") as caught:
        SigningKeys(directory)
    assert f"chown --reference={directory} {key}" in str(caught.value)


class Killed(BaseException):
    """kill -9."""


class DyingDirectory(KeyDirectory):
    """Dies instead of the write after `writes`, or instead of a removal of keys."""

    def __init__(self, path: Path, writes: int) -> None:
        super().__init__(path)
        self._left = iter(range(writes))

    def write_list(self, keys: KeyList) -> None:
        self._count()
        super().write_list(keys)

    def write_key(self, key: SigningKey) -> None:
        self._count()
        super().write_key(key)

    def remove_unused_keys(self, active: Sequence[KeyEntry]) -> None:
        raise Killed

    def _count(self) -> None:
        if next(self._left, None) is None:
            raise Killed


@pytest.mark.parametrize("writes", range(4))
def test_interrupted_init_can_be_repeated(tmp_path: Path, clock: TurnedClock, writes: int) -> None:
    path = tmp_path / "signing"
    with pytest.raises(Killed):
        create_signing_keys(path, clock.now(), open_directory=lambda path: DyingDirectory(path, writes))
    if writes == 3:
        assert len(SigningKeys(path).signing) == 1
        return
    with raises_code(SigningKeyError, "no_signing_keys"):
        SigningKeys(path)
    made = create_signing_keys(path, clock.now())
    assert private_keys(path) == {made.id}


Change = Callable[[SigningKeyStore, TurnedClock], object]
CHANGES: list[tuple[Change, int]] = [
    (lambda store, clock: store.rotate(clock.now()), 2),
    (lambda store, clock: store.revoke(store.entries[0].id, clock.now()), 1),
]


@pytest.mark.parametrize(("change", "writes"), [(change, n) for change, most in CHANGES for n in range(most + 1)])
def test_interrupted_change_is_complete_or_has_no_effect(
    directory: Path, clock: TurnedClock, change: Change, writes: int
) -> None:
    store = SigningKeyStore(directory)
    store.rotate(clock.now())
    store.mark_announced(store.version)
    with pytest.raises(Killed):
        change(SigningKeyStore(directory, open_directory=lambda path: DyingDirectory(path, writes)), clock)
    keys = SigningKeys(directory)
    active = [entry.id for entry in keys.entries if entry.state is KeyState.ACTIVE]
    assert signing(keys) == active
    keys.rotate(clock.now())
    assert private_keys(directory) == set(signing(keys)), "the next change removes what was left over"


class RevokedMeanwhile(KeyDirectory):
    """Revokes a key as soon as the first private key is read."""

    revoke: Callable[[], object]

    def read_key(self, entry: KeyEntry) -> SigningKey:
        revoke, self.revoke = self.revoke, lambda: None
        revoke()
        return super().read_key(entry)


def test_key_that_is_revoked_while_it_is_read_is_left_out(
    directory: Path, keys: SigningKeys, clock: TurnedClock
) -> None:
    (old,) = keys.entries
    new = keys.rotate(clock.now())

    def open_directory(path: Path) -> KeyDirectory:
        opened = RevokedMeanwhile(path)
        opened.revoke = lambda: SigningKeyStore(directory).revoke(old.id, clock.now())
        return opened

    assert signing(SigningKeys(directory, open_directory=open_directory)) == [new.id]


def test_change_waits_for_the_end_of_another(directory: Path, clock: TurnedClock) -> None:
    store, entered = SigningKeyStore(directory), threading.Event()
    (first,), second = store.entries, store.rotate(clock.now())

    def rotate() -> None:
        entered.set()
        SigningKeyStore(directory).rotate(clock.now())

    other = threading.Thread(target=rotate)

    def check(_: int) -> None:
        other.start()
        entered.wait(10)

    store.revoke(first.id, clock.now(), check=check)
    other.join(10)
    assert [entry.state for entry in store.entries] == [KeyState.REVOKED, KeyState.ACTIVE, KeyState.ACTIVE]
    assert store.version == second.since + 2


def test_lost_private_key_can_be_replaced_and_revoked(directory: Path, keys: SigningKeys, clock: TurnedClock) -> None:
    (lost,) = keys.entries
    (directory / f"{lost.id}.key").unlink()
    with raises_code(SigningKeyError, "missing_signing_key") as caught:
        SigningKeys(directory)
    assert f"{lost.id}.key" in str(caught.value)
    new = SigningKeyStore(directory).rotate(clock.now())
    SigningKeyStore(directory).revoke(lost.id, clock.now())
    assert signing(SigningKeys(directory)) == [new.id]


class Fleet:
    """A ledger, its enrolments, and agents that are enrolled in it."""

    def __init__(self, tmp_path: Path) -> None:
        self.registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db", lambda: NOW)
        self.ledger = Ledger(open_database(self.registrar.ledger), now=self.registrar.clock)
        self.enrolments = EnrolmentStore(self.ledger.database, now=self.registrar.clock)
        for agent in ("web-01", "web-02", "web-03"):
            self.registrar.enroll(agent, tmp_path / agent, "mqtt://127.0.0.1")

    def report_version(self, agent: str, version: int | None, *, online: bool = True) -> None:
        record_status(self.ledger, Status(agent, online, "1", "i1", "b1", "g1", signing_keys_version=version))

    def rollout(self, newest: int) -> RolloutProgress:
        return rollout_of(self.ledger, self.enrolments, newest, NOW)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.ledger.database.close()


def test_list_is_sent_to_agents_that_have_not_confirmed_it(fleet: Fleet) -> None:
    fleet.report_version("web-01", 7)
    fleet.report_version("web-02", 6)
    fleet.report_version("stranger", 5)
    rollout = fleet.rollout(7)
    assert rollout.versions == {"web-01": 7, "web-02": 6, "web-03": 0}
    assert rollout.behind(7) == ["web-02", "web-03"]
    operation = distribute(fleet.ledger, rollout, UpdateSigningKeys(7, ("key",)), Origin("me", "test"))
    assert operation is not None
    sent = fleet.ledger.commands(operation_id=operation.id)
    assert sorted(row.agent for row in sent) == ["web-02", "web-03"]
    assert {(row.command.type, row.command.expires_at) for row in sent} == {(UPDATE_SIGNING_KEYS, None)}
    assert sent[0].command.parameters == {"version": 7, "keys": ["key"]}
    assert distribute(fleet.ledger, rollout, UpdateSigningKeys(0, ("key",)), Origin("me", "test")) is None


def test_last_will_does_not_undo_a_confirmation(fleet: Fleet) -> None:
    fleet.report_version("web-01", 7)
    fleet.report_version("web-01", 3, online=False)
    assert fleet.rollout(7).versions["web-01"] == 7


def test_newest_reported_version_ignores_implausible_ones(fleet: Fleet) -> None:
    day = int((NOW + timedelta(days=1)).timestamp() * 1000)
    fleet.report_version("web-01", day)
    fleet.report_version("web-02", 9)
    fleet.report_version("stranger", 10)
    assert fleet.rollout(7).newest_reported == 9
    fleet.report_version("web-03", day - 1)
    assert fleet.rollout(7).newest_reported == day - 1


def test_version_of_a_foreign_list_confirms_nothing(fleet: Fleet) -> None:
    fleet.report_version("web-01", 2**53 - 1)
    assert fleet.rollout(7).behind(7) == ["web-01", "web-02", "web-03"]


def test_exposed_key_files_are_refused(directory: Path) -> None:
    (key,) = directory.glob("*.key")
    key.chmod(0o604)
    with raises_code(ExposedFileError, "readable_by_others"):
        SigningKeys(directory)
    key.chmod(0o600)
    (directory / "keys.json").chmod(0o666)
    with raises_code(ExposedFileError, "writable_by_others"):
        SigningKeyStore(directory)


def test_list_that_is_missing_is_reported_as_no_keys(tmp_path: Path) -> None:
    with raises_code(SigningKeyError, "no_signing_keys"):
        KeyDirectory(tmp_path).read_list()


def test_list_that_cannot_be_read_is_reported_with_its_path(tmp_path: Path, directory: Path) -> None:
    (directory / "keys.json").unlink()
    (directory / "keys.json").mkdir(mode=0o755)
    below_a_file = tmp_path / "file"
    below_a_file.touch()
    for path, use in ((directory, KeyDirectory.read_list), (below_a_file, KeyDirectory.state)):
        with raises_code(SigningKeyError, "unreadable_signing_keys") as caught:
            use(KeyDirectory(path))
        assert str(caught.value).startswith(f"{path / 'keys.json'} ")


def test_change_below_a_directory_that_is_gone_is_refused(tmp_path: Path, clock: TurnedClock) -> None:
    path = tmp_path / "above" / "signing"
    path.parent.mkdir()
    create_signing_keys(path, clock.now())
    store = SigningKeyStore(path)
    shutil.rmtree(path.parent)
    with raises_code(SigningKeyError, "unusable_signing_keys"):
        store.rotate(clock.now())


def test_only_the_current_list_is_marked_as_announced(directory: Path, clock: TurnedClock) -> None:
    store = SigningKeyStore(directory)
    older = store.version
    store.rotate(clock.now())
    store.mark_announced(older)
    assert not SigningKeyStore(directory).announced
