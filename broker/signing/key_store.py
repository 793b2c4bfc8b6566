"""The keys that the server signs with: a directory of mode 0700 with one file a key, and the list of them.

keys.json        the version of the list, and each key's id, state, public half and times
<id>.key         the private key (PKCS#8 in PEM, mode 0600) of each key that signs

All belong to the owner of the directory, whoever makes them: the server runs as that user, and must read them.
A change takes the lock of the directory, and is made when the list is replaced: a private key is written before the
list names it, and removed after the list has named it revoked. What a crash leaves over, the next change removes.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.contract.commands.update_signing_keys import MAX_KEYS, UpdateSigningKeys
from broker.contract.dsse import SigningKey
from broker.errors import BrokerError
from broker.system.files import write_durably
from broker.system.lock import locked
from broker.system.permissions import refuse_changeable, refuse_readable
from broker.system.private_keys import PrivateKeyError, private_key_from_pem, private_key_to_pem

__all__ = [
    "KeyEntry",
    "KeyState",
    "SigningKeyError",
    "SigningKeyStore",
    "SigningKeys",
    "create_signing_keys",
]


_LIST = "keys.json"
_Stamp = tuple[int, int]


class SigningKeyError(BrokerError):
    """The directory of signing keys cannot be made, read or changed as asked."""


class KeyState(StrEnum):
    """Whether a key signs, and is trusted, or is neither used nor trusted any more."""

    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True)
class KeyEntry:
    """One key of the list; `public` is in PEM, `since` the version of the list that was the first to hold it."""

    id: str
    state: KeyState
    public: str
    created_at: datetime
    since: int
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class _KeyList:
    """The list as it stands in the file. `version` grows with each change, and agents never go back.

    It is the time of the change in milliseconds, so that a directory restored from a backup, or made anew, comes to
    versions that no agent has seen. `announced`: the agents are told of this version, as far as they must be.
    """

    version: int
    announced: bool
    keys: tuple[KeyEntry, ...]

    @property
    def active(self) -> tuple[KeyEntry, ...]:
        return tuple(entry for entry in self.keys if entry.state is KeyState.ACTIVE)

    def changed(self, version: int, keys: tuple[KeyEntry, ...]) -> "_KeyList":
        return _KeyList(version, False, keys)

    def next_version(self, now: datetime, above: int = 0) -> int:
        return max(self.version + 1, above + 1, int(now.timestamp() * 1000))


def create_signing_keys(directory: Path, now: datetime) -> KeyEntry:
    """Make the directory with one new key. Raises SigningKeyError; one that is there already is refused."""
    with _file_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(directory):
            if _holds_anything(directory):
                raise SigningKeyError(f"{directory} is not empty: choose a new directory for the signing keys.")
            directory.chmod(0o700)
            empty = _KeyList(0, True, ())
            _write(directory, empty)  # says what this is, should the next step be cut short
            entry = _add_key(directory, now, empty.next_version(now))
            _write(directory, _KeyList(entry.since, True, (entry,)))
            _sweep(directory, (entry,))
            return entry


class SigningKeyStore:
    """The list of the keys in a directory that create_signing_keys made; needs no private key of those there.

    A change by another process is seen at once. All raise SigningKeyError when the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: _Stamp | None = None
        self._list = _KeyList(0, True, ())
        self._refresh()

    @property
    def version(self) -> int:
        """The version of the list of keys."""
        return self._refresh().version

    @property
    def announced(self) -> bool:
        """Whether the agents were told of this version; False where that was cut short."""
        return self._refresh().announced

    @property
    def entries(self) -> tuple[KeyEntry, ...]:
        """Every key, the oldest first."""
        return self._refresh().keys

    @property
    def public(self) -> tuple[str, ...]:
        """The public keys in PEM that agents are to trust."""
        return tuple(entry.public for entry in self._refresh().active)

    @property
    def update(self) -> UpdateSigningKeys:
        """What agents are told: the keys to trust, and the version of the list that says so."""
        held = self._refresh()
        return UpdateSigningKeys(held.version, tuple(entry.public for entry in held.active))

    def entry(self, key_id: str) -> KeyEntry:
        """Return one key of the list; raises SigningKeyError."""
        return _find(self._refresh(), key_id)

    def rotate(self, now: datetime, *, above: int = 0) -> KeyEntry:
        """Add a new key, which signs beside the others from now on. Refuses more than MAX_KEYS active ones.

        The list's version will be more than `above`.
        """
        with self._changing() as held:
            if len(held.active) >= MAX_KEYS:
                raise SigningKeyError(
                    f"There are {MAX_KEYS} active keys, the most there may be: revoke one by `acm keys revoke` first."
                )
            entry = _add_key(self._directory, now, held.next_version(now, above))
            self._replace(held.changed(entry.since, (*held.keys, entry)))
        return entry

    def revoke(
        self, key_id: str, now: datetime, *, above: int = 0, check: Callable[[int], None] = lambda _: None
    ) -> KeyEntry:
        """Let a key never sign again, and remove its private half; nothing changes where that was done before.

        `check` is told the version of the list that an agent must know to verify what is signed without this key, and
        may raise: nobody else changes the list meanwhile, such as by revoking that other key. See `rotate` for `above`.
        Raises SigningKeyError also where it is the last active key, or not there.
        """
        with self._changing() as held:
            entry = _find(held, key_id)
            if entry.state is KeyState.REVOKED:
                _sweep(self._directory, held.active)
                return entry
            check(min(other.since for other in _all_but(held, entry)))
            revoked = replace(entry, state=KeyState.REVOKED, revoked_at=now)
            keys = tuple(revoked if one is entry else one for one in held.keys)
            self._replace(held.changed(held.next_version(now, above), keys))
        return revoked

    def mark_announced(self, version: int) -> None:
        """Remember that the agents are told of this version of the list."""
        with self._changing() as held:
            if held.version == version:
                _write(self._directory, replace(held, announced=True))

    @contextmanager
    def _changing(self) -> Iterator[_KeyList]:
        with _file_errors(self._directory), _locked(self._directory):
            yield _read(self._directory)

    def _replace(self, changed: _KeyList) -> None:
        _write(self._directory, changed)
        _sweep(self._directory, changed.active)

    def _refresh(self) -> _KeyList:
        while (seen := _stamp(self._directory)) != self._seen:
            held = _read(self._directory)
            if self._take(held, seen):
                self._list, self._seen = held, seen
        return self._list

    def _take(self, held: _KeyList, seen: _Stamp | None) -> bool:
        """Take in a list that is new; False if it is not the newest any more."""
        return True


class SigningKeys(SigningKeyStore):
    """A KeyBook that holds the private keys as well."""

    _signing: tuple[SigningKey, ...] = ()

    @property
    def signing(self) -> Sequence[SigningKey]:
        """The private keys: each signs, so that an agent that knows one of them can verify."""
        self._refresh()
        return self._signing

    def _take(self, held: _KeyList, seen: _Stamp | None) -> bool:
        try:
            self._signing = tuple(_read_key(self._directory, entry) for entry in held.active)
        except FileNotFoundError as error:
            if _stamp(self._directory) != seen:
                return False  # it was revoked meanwhile
            raise SigningKeyError(
                f"{error.filename} is missing: restore it from a backup, or make another key by `acm keys rotate` and "
                "revoke this one by `acm keys revoke`; nothing is signed until then."
            ) from error
        except OSError as error:
            raise SigningKeyError(
                f"{error.filename} cannot be read: {error.strerror}; nothing is signed until it can. Give it to the "
                f"user that runs `acm server`: chown --reference={self._directory} {error.filename}"
            ) from error
        return True


def _find(held: _KeyList, key_id: str) -> KeyEntry:
    found = next((entry for entry in held.keys if entry.id == key_id), None)
    if found is None:
        raise SigningKeyError(f"There is no signing key {key_id[:80]!r}; `acm keys list` lists them.")
    return found


def _all_but(held: _KeyList, entry: KeyEntry) -> Sequence[KeyEntry]:
    left = [one for one in held.active if one is not entry]
    if not left:
        raise SigningKeyError(f"{entry.id} is the last active key: make another by `acm keys rotate` first.")
    return left


def _holds_anything(directory: Path) -> bool:
    """Say whether a directory holds more than what an init that was cut short has left."""
    if (directory / _LIST).exists():
        return bool(_decode(directory).keys)
    return any(not path.name.startswith(".") for path in directory.iterdir())


def _stamp(directory: Path) -> _Stamp | None:
    try:
        found = (directory / _LIST).stat()
    except FileNotFoundError as error:
        raise _missing(directory) from error
    except OSError as error:
        raise _unreadable(directory, error) from error
    return found.st_mtime_ns, found.st_ino


def _read(directory: Path) -> _KeyList:
    try:
        refuse_changeable(directory / _LIST, owners=[directory.stat().st_uid])
        held = _decode(directory)
    except FileNotFoundError as error:
        raise _missing(directory) from error
    except OSError as error:
        raise _unreadable(directory, error) from error
    if not held.keys:
        raise _missing(directory)
    return held


def _decode(directory: Path) -> _KeyList:
    path = directory / _LIST
    try:
        return msgspec.json.decode(path.read_bytes(), type=_KeyList)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SigningKeyError(f"{path} is damaged: {error}; restore the directory from a backup.") from error


def _missing(directory: Path) -> SigningKeyError:
    return SigningKeyError(f"{directory} holds no signing keys: make them with `acm keys init --keys {directory}`.")


def _unreadable(directory: Path, error: OSError) -> SigningKeyError:
    return SigningKeyError(f"{directory / _LIST} cannot be read: {error.strerror}.")


def _add_key(directory: Path, now: datetime, version: int) -> KeyEntry:
    key = SigningKey(Ed25519PrivateKey.generate())
    write_durably(_key_path(directory, key.public.id), private_key_to_pem(key.private), 0o600, as_directory=True)
    return KeyEntry(key.public.id, KeyState.ACTIVE, key.public.pem, now, version)


def _read_key(directory: Path, entry: KeyEntry) -> SigningKey:
    path = _key_path(directory, entry.id)
    refuse_readable(path, owners=[directory.stat().st_uid])
    try:
        key = SigningKey(private_key_from_pem(path.read_bytes()))
    except PrivateKeyError as error:
        raise SigningKeyError(f"{path} is damaged: restore the directory from a backup.") from error
    if key.public.pem != entry.public:
        raise SigningKeyError(f"{path} is not the key that {_LIST} names: restore the directory from a backup.")
    return key


def _key_path(directory: Path, key_id: str) -> Path:
    return directory / f"{key_id}.key"


def _write(directory: Path, keys: _KeyList) -> None:
    write_durably(directory / _LIST, msgspec.json.format(msgspec.json.encode(keys)), 0o644, as_directory=True)


def _sweep(directory: Path, active: Sequence[KeyEntry]) -> None:
    """Remove the private keys of what does not sign: revoked, or left over by a change that was cut short."""
    wanted = {_key_path(directory, entry.id) for entry in active}
    for path in directory.glob("*.key"):
        if path not in wanted:
            path.unlink()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with locked(directory, wait=True) as handle:
        yield
        os.fsync(handle)  # keys that were removed stay removed after a power loss


@contextmanager
def _file_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SigningKeyError(f"{directory} cannot be used: {error.strerror}.") from error
