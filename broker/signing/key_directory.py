"""The directory of the signing keys, of mode 0700.

keys.json        the version of the list, and each key's id, state, public key and times
<id>.key         the private key (PKCS#8 in PEM, mode 0600) of each key that signs

All files belong to the owner of the directory, whichever user creates them: the server runs as the owner and must read
them. A change is made under a lock on the directory, and takes effect when the list is replaced: a private key is
written before the list has it, and deleted after the list has it as revoked. The next change deletes what a crash has
left.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from broker.contract.dsse import SigningKey
from broker.contract.private_keys import PrivateKeyError, private_key_from_pem, private_key_to_pem
from broker.signing.key_list import KeyEntry, KeyList, SigningKeyError
from broker.system.files import state_of, write_durably
from broker.system.lock import locked_directory
from broker.system.permissions import refuse_changeable, refuse_readable

__all__ = [
    "FileState",
    "KeyDirectory",
]


FileState = tuple[int, int, int]
_LIST = "keys.json"
_PUBLIC, _SECRET = 0o644, 0o600


class KeyDirectory:
    """Reads and writes the files. Raises SigningKeyError, and ExposedFileError for files that others could change."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def state(self) -> FileState:
        """Return a value that changes whenever the list is replaced."""
        try:
            state = state_of(self.path / _LIST)
        except OSError as error:
            raise self._unreadable(error) from error
        if state is None:
            raise self._missing()
        return state

    def read_list(self) -> KeyList:
        """Return the list, which has at least one key."""
        path = self.path / _LIST
        try:
            refuse_changeable(path, owners=[self.path.stat().st_uid])
            keys = self._decode()
        except FileNotFoundError as error:
            raise self._missing() from error
        except OSError as error:
            raise self._unreadable(error) from error
        if not keys.keys:
            raise self._missing()
        return keys

    def write_list(self, keys: KeyList) -> None:
        """Replace the list; raises OSError."""
        content = msgspec.json.format(msgspec.json.encode(keys))
        write_durably(self.path / _LIST, content, _PUBLIC, as_directory=True)

    def read_key(self, entry: KeyEntry) -> SigningKey:
        """Return the private key of an entry; raises OSError, too."""
        path = self._key_path(entry.id)
        refuse_readable(path, owners=[self.path.stat().st_uid])
        try:
            key = SigningKey(private_key_from_pem(path.read_bytes()))
        except PrivateKeyError as error:
            raise SigningKeyError(
                f"{path} is damaged ({error}): restore the directory from a backup.", code="damaged_signing_key"
            ) from error
        if key.public.pem != entry.public:
            raise SigningKeyError(
                f"{path} is not the key that {_LIST} lists: restore the directory from a backup.",
                code="mismatched_signing_key",
            )
        return key

    def write_key(self, key: SigningKey) -> None:
        """Write a private key; raises OSError."""
        content = private_key_to_pem(key.private)
        write_durably(self._key_path(key.public.id), content, _SECRET, as_directory=True)

    def remove_unused_keys(self, active: Sequence[KeyEntry]) -> None:
        """Delete the private keys that do not sign: revoked ones, and leftovers of interrupted changes."""
        used = {self._key_path(entry.id) for entry in active}
        for path in self.path.glob("*.key"):
            if path not in used:
                path.unlink()

    def is_used(self) -> bool:
        """Return whether the directory has more in it than an interrupted `create_signing_keys` leaves behind."""
        if (self.path / _LIST).exists():
            return bool(self._decode().keys)
        return any(not path.name.startswith(".") for path in self.path.iterdir())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock for a change; an OSError in the block becomes a SigningKeyError."""
        with self.file_errors(), locked_directory(self.path) as handle:
            yield
            os.fsync(handle)  # keys that were deleted stay deleted after a power loss

    @contextmanager
    def file_errors(self) -> Iterator[None]:
        """Turn an OSError in the block into a SigningKeyError."""
        try:
            yield
        except OSError as error:
            raise SigningKeyError(
                f"{self.path} cannot be used: {error.strerror}.", code="unusable_signing_keys"
            ) from error

    def _decode(self) -> KeyList:
        path = self.path / _LIST
        try:
            return msgspec.json.decode(path.read_bytes(), type=KeyList)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SigningKeyError(
                f"{path} is damaged ({error}): restore the directory from a backup.", code="damaged_signing_keys"
            ) from error

    def _key_path(self, key_id: str) -> Path:
        return self.path / f"{key_id}.key"

    def _missing(self) -> SigningKeyError:
        return SigningKeyError(
            f"{self.path} has no signing keys: create them with `acm keys init --keys {self.path}`.",
            code="no_signing_keys",
        )

    def _unreadable(self, error: OSError) -> SigningKeyError:
        return SigningKeyError(f"{self.path / _LIST} cannot be read: {error.strerror}.", code="unreadable_signing_keys")
