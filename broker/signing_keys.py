"""The keys that the server signs with: a directory of mode 0700 with one file a key, and the list of them.

keys.json        the version of the list, and each key's id, state, public half and times
<id>.key         the private key (PKCS#8 in PEM, mode 0600) of each key that signs
"""

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from broker.contract.signing import SigningKey
from broker.errors import BrokerError
from broker.files import write_durably

__all__ = ["KeyEntry", "KeyState", "SigningKeyError", "SigningKeys", "create_signing_keys"]

_LIST = "keys.json"


class SigningKeyError(BrokerError):
    """The directory of signing keys cannot be made, read or written."""


class KeyState(StrEnum):
    """Whether a key signs, and is trusted, or is neither used nor trusted any more."""

    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True)
class KeyEntry:
    """One key of the list; `public` is in PEM."""

    id: str
    state: KeyState
    public: str
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class _KeyList:
    """The list as it stands in the file. `version` grows with each change, and agents never go back."""

    version: int
    keys: tuple[KeyEntry, ...]


def create_signing_keys(directory: Path, now: datetime) -> None:
    """Make the directory with one new key. Raises SigningKeyError; one that is there already is refused."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise SigningKeyError(f"{directory} is not empty: choose a new directory for the signing keys.")
        directory.chmod(0o700)
        _write(directory, _KeyList(1, (_add_key(directory, now),)))
    except OSError as error:
        raise SigningKeyError(f"{directory} cannot be used: {error.strerror}.") from error


class SigningKeys:
    """The keys in a directory that create_signing_keys made; a change by another process is seen at once.

    All raise SigningKeyError when the directory cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: tuple[int, int] | None = None
        self._list = _KeyList(0, ())
        self._signing: tuple[SigningKey, ...] = ()
        self._refresh()

    @property
    def version(self) -> int:
        """The version of the list of keys."""
        self._refresh()
        return self._list.version

    @property
    def entries(self) -> tuple[KeyEntry, ...]:
        """Every key, the oldest first."""
        self._refresh()
        return self._list.keys

    @property
    def public(self) -> tuple[str, ...]:
        """The public keys in PEM that agents are to trust."""
        return tuple(entry.public for entry in self.entries if entry.state is KeyState.ACTIVE)

    @property
    def signing(self) -> Listing[SigningKey]:
        """The private keys: each signs, so that an agent that knows one of them can verify."""
        self._refresh()
        return self._signing

    def _refresh(self) -> None:
        path = self._directory / _LIST
        try:
            found = path.stat()
            if (found.st_mtime_ns, found.st_ino) == self._seen:
                return
            self._list = msgspec.json.decode(path.read_bytes(), type=_KeyList)
            active = [entry for entry in self._list.keys if entry.state is KeyState.ACTIVE]
            self._signing = tuple(_read_key(self._directory, entry) for entry in active)
            self._seen = found.st_mtime_ns, found.st_ino
        except FileNotFoundError as error:
            raise SigningKeyError(
                f"{self._directory} holds no signing keys: make them with `acm keys init --keys {self._directory}`."
            ) from error
        except OSError as error:
            raise SigningKeyError(f"{path} cannot be read: {error.strerror}.") from error
        except msgspec.DecodeError as error:
            raise SigningKeyError(f"{path} is damaged: {error}; restore the directory from a backup.") from error


def _add_key(directory: Path, now: datetime) -> KeyEntry:
    key = SigningKey(Ed25519PrivateKey.generate())
    content = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_durably(_key_path(directory, key.public.id), content, 0o600)
    return KeyEntry(key.public.id, KeyState.ACTIVE, key.public.pem, now)


def _read_key(directory: Path, entry: KeyEntry) -> SigningKey:
    path = _key_path(directory, entry.id)
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"{path} is damaged: restore the directory from a backup.") from error
    if not isinstance(private, Ed25519PrivateKey) or SigningKey(private).public.pem != entry.public:
        raise SigningKeyError(f"{path} is not the key that {_LIST} names: restore the directory from a backup.")
    return SigningKey(private)


def _key_path(directory: Path, key_id: str) -> Path:
    return directory / f"{key_id}.key"


def _write(directory: Path, keys: _KeyList) -> None:
    write_durably(directory / _LIST, msgspec.json.format(msgspec.json.encode(keys)), 0o644)
