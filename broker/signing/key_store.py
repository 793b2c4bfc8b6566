"""The keys that the server signs with: reading and changing the list in a directory, and holding the private keys."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from broker.contract.dsse import SigningKey
from broker.signing.key_directory import FileState, KeyDirectory
from broker.signing.key_list import KeyEntry, KeyList, KeyState, SigningKeyError

__all__ = [
    "SigningKeyStore",
    "SigningKeys",
    "create_signing_keys",
]


OpenDirectory = Callable[[Path], KeyDirectory]
_EMPTY = KeyList(0, True, ())


def create_signing_keys(path: Path, now: datetime, *, open_directory: OpenDirectory = KeyDirectory) -> KeyEntry:
    """Create the directory with one new key; raises SigningKeyError. A directory that has keys is refused."""
    directory = open_directory(path)
    with directory.file_errors():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with directory.locked():
            if directory.is_used():
                raise SigningKeyError(
                    f"{path} is not empty: choose a new directory for the signing keys.", code="directory_not_empty"
                )
            path.chmod(0o700)
            directory.write_list(_EMPTY)  # marks the directory as ours in case the next step is interrupted
            entry = _create_key(directory, now, _EMPTY.next_version(now))
            directory.write_list(KeyList(entry.since, True, (entry,)))
            directory.remove_unused_keys((entry,))
            return entry


class SigningKeyStore:
    """The list of the signing keys in a directory that create_signing_keys made. Reads no private key.

    A change by another process is seen at the next call. All methods raise SigningKeyError when the directory cannot
    be used, and ExposedFileError when others could change the list.
    """

    def __init__(self, path: Path, *, open_directory: OpenDirectory = KeyDirectory) -> None:
        self._directory = open_directory(path)
        self._seen: FileState | None = None
        self._list = _EMPTY
        self._refresh()

    @property
    def version(self) -> int:
        """The version of the list."""
        return self._refresh().version

    @property
    def announced(self) -> bool:
        """Whether this version was queued for the agents; False if that was interrupted."""
        return self._refresh().announced

    @property
    def entries(self) -> tuple[KeyEntry, ...]:
        """All keys, oldest first."""
        return self._refresh().keys

    @property
    def update(self) -> UpdateSigningKeys:
        """The parameters of the command that distributes the list: the keys to trust, and the list's version."""
        keys = self._refresh()
        return UpdateSigningKeys(keys.version, tuple(entry.public for entry in keys.active))

    def rotate(self, now: datetime, *, above: int = 0) -> KeyEntry:
        """Add a new key, which signs beside the others from now on. At most MAX_KEYS may be active.

        The new version of the list is greater than `above`.
        """
        with self._changing() as keys:
            keys.check_room()
            entry = _create_key(self._directory, now, keys.next_version(now, above))
            self._replace(keys.with_key(entry))
        return entry

    def revoke(
        self, key_id: str, now: datetime, *, above: int = 0, check: Callable[[int], None] = lambda _: None
    ) -> KeyEntry:
        """Revoke a key and delete its private key. Revoking it again changes nothing.

        `check` is called with the version of the list that an agent must have to verify messages without this key,
        and may raise. It runs under the lock, so that no other process revokes the remaining key meanwhile. For `above`
        see `rotate`. Raises SigningKeyError, too, if the key is unknown or the last active one.
        """
        with self._changing() as keys:
            entry = keys.find(key_id)
            if entry.state is KeyState.REVOKED:
                self._directory.remove_unused_keys(keys.active)
                return entry
            check(min(other.since for other in keys.active_besides(entry)))
            changed = keys.with_revoked(entry, now, keys.next_version(now, above))
            self._replace(changed)
        return changed.find(key_id)

    def mark_announced(self, version: int) -> None:
        """Record that this version of the list was queued for the agents."""
        with self._changing() as keys:
            if keys.version == version:
                self._directory.write_list(replace(keys, announced=True))

    @contextmanager
    def _changing(self) -> Iterator[KeyList]:
        with self._directory.locked():
            yield self._directory.read_list()

    def _replace(self, changed: KeyList) -> None:
        # design.md: "The list of keys is changed first, then distributed."
        self._directory.write_list(changed)
        self._directory.remove_unused_keys(changed.active)

    def _refresh(self) -> KeyList:
        while (state := self._directory.state()) != self._seen:
            keys = self._directory.read_list()
            if self._load(keys, state):
                self._list, self._seen = keys, state
        return self._list

    def _load(self, keys: KeyList, state: FileState) -> bool:
        """Read what belongs to a new list; return False if the list was replaced meanwhile."""
        return True


class SigningKeys(SigningKeyStore):
    """A SigningKeyStore with the private keys."""

    _signing: tuple[SigningKey, ...] = ()

    @property
    def signing(self) -> Sequence[SigningKey]:
        """The private keys. Each one signs, so that an agent that trusts any of them can verify."""
        self._refresh()
        return self._signing

    def _load(self, keys: KeyList, state: FileState) -> bool:
        try:
            self._signing = tuple(self._directory.read_key(entry) for entry in keys.active)
        except FileNotFoundError as error:
            if self._directory.state() != state:
                return False  # the key was revoked meanwhile
            raise SigningKeyError(
                f"{error.filename} is missing: restore it from a backup, or create another key with `acm keys rotate` "
                "and revoke this one with `acm keys revoke`. Nothing is signed until then.",
                code="missing_signing_key",
            ) from error
        except OSError as error:
            raise SigningKeyError(
                f"{error.filename} cannot be read: {error.strerror}. Nothing is signed until it can be. Give it to the "
                f"user that runs `acm server`: chown --reference={self._directory.path} {error.filename}",
                code="unreadable_signing_key",
            ) from error
        return True


def _create_key(directory: KeyDirectory, now: datetime, version: int) -> KeyEntry:
    key = SigningKey(Ed25519PrivateKey.generate())
    directory.write_key(key)
    return KeyEntry(key.public.id, KeyState.ACTIVE, key.public.pem, now, version)
