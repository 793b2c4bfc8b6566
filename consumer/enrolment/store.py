"""The enrolments on the agent's disk, which of them is current, and the last attempt to change it.

enrolment/ keys/<hash of a token>.pem a key that has no certificate yet enrolments/<name>/ key.pem, certificate.pem,
ca.pem, enrolment.json; named after the certificate current -> enrolments/<name> attempt.json the last attempt by a
command, and its state signing-keys.json the last list of signing keys from a command epoch-<hash of an id> the latest
epoch seen under the enrolment with this id
"""

import contextlib
import errno
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog

from broker.contract.private_keys import private_key_to_pem
from broker.mqtt.address import TlsFiles
from broker.system.files import link_durably, set_damaged_aside, sync_directory, write_durably
from broker.system.permissions import refuse_readable
from broker.system.trees import sync_tree
from consumer.enrolment.keys import new_key, read_key
from consumer.errors import EnrolmentError
from consumer.store.state_directory import epoch_name
from consumer.system.leftovers import Leftovers

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "AttemptState",
    "CertifiedGrant",
    "Enrolment",
    "EnrolmentAttempt",
    "EnrolmentDirectory",
    "Grant",
    "StoredSigningKeys",
]


_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Grant:
    """A grant of an enrolment server, as stored in enrolment.json. Nothing in it is secret.

    `token` is the hash of the token's secret, by which a repeated token is recognized.
    """

    agent: str
    enrolment_id: str
    server: str
    broker: str
    topic_prefix: str
    signing_keys: tuple[str, ...]
    granted_at: datetime
    not_after: datetime
    token: str
    signing_keys_version: int = 0

    @property
    def renew_at(self) -> datetime:
        """When two thirds of the certificate's lifetime have passed."""
        return self.granted_at + (self.not_after - self.granted_at) * 2 / 3


@dataclass(frozen=True)
class CertifiedGrant:
    """A validated response of an enrolment server: the grant, and the certificates in PEM.

    `name` is its directory's, derived from the certificate's fingerprint.
    """

    grant: Grant
    name: str
    certificate: str
    ca: str


@dataclass(frozen=True)
class Enrolment:
    """A grant and the directory of its files."""

    directory: Path
    grant: Grant

    @property
    def tls(self) -> TlsFiles:
        """The files for a connection to the broker; raises ExposedFileError if others could read the key.

        Raises EnrolmentError if the key cannot be looked at.
        """
        key = self.directory / "key.pem"
        try:
            if key.exists():
                refuse_readable(key)
        except OSError as error:
            raise EnrolmentError(f"{key} cannot be used: {error.strerror}.", code="directory_unusable") from error
        return TlsFiles(self.directory / "ca.pem", self.directory / "certificate.pem", key)


class AttemptState(StrEnum):
    """The state of an attempt; `committed` and `rolled_back` are final."""

    STAGED = "staged"
    TRIAL = "trial"
    CARRIED = "carried"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class EnrolmentAttempt:
    """A command's attempt to change the enrolment. `reason` is set once it was rolled back."""

    command_id: str
    name: str
    grant: Grant
    state: AttemptState
    reason: str | None = None


@dataclass(frozen=True)
class StoredSigningKeys:
    """A list of signing keys, in PEM, from a command; it is valid for one enrolment."""

    enrolment_id: str
    version: int
    keys: tuple[str, ...]


class EnrolmentDirectory:
    """The directory `enrolment` of one state directory. All methods raise EnrolmentError if the disk fails.

    `damage` names a record that `attempt` could not read, in one sentence.
    """

    def __init__(self, state: Path, leftovers: Leftovers | None = None) -> None:
        self.damage: str | None = None
        self._leftovers = leftovers or Leftovers()
        self._root = state / "enrolment"
        self._all = self._root / "enrolments"
        self._link = self._root / "current"

    def current(self) -> Enrolment | None:
        """Return the agent's current enrolment; None if it is not enrolled."""
        try:
            return self._at(self._all / self._link.readlink().name) if self._link.is_symlink() else None
        except OSError as error:
            raise self._unusable(error) from error

    def key_for(self, token: str) -> "Ed25519PrivateKey":
        """Return the key for this token (its hash), created durably at the first call."""
        path = self._root / "keys" / f"{token}.pem"
        try:
            if path.exists():
                return read_key(path)
            key = new_key()
            self._make(path.parent)
            write_durably(path, private_key_to_pem(key))
        except OSError as error:
            raise self._unusable(error) from error
        return key

    def granted_for(self, token: str, server: str, now: datetime) -> Enrolment | None:
        """Return the unexpired enrolment that this server granted for this token (its hash), or None."""
        try:
            names = [entry.name for entry in self._all.iterdir() if not entry.name.startswith(".")]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        found = [one for name in names if (one := self._undamaged(self._all / name)) is not None]
        same = (one for one in found if (one.grant.token, one.grant.server) == (token, server))
        return next((one for one in same if one.grant.not_after > now), None)

    def _undamaged(self, directory: Path) -> Enrolment | None:
        """Return the enrolment, or None if it is damaged: that must not prevent a new one."""
        try:
            return self._at(directory)
        except EnrolmentError as error:
            if error.code != "enrolment_unreadable":
                raise
            _log.warning("enrolment_damaged", directory=str(directory), reason=str(error))
            return None

    def add(self, granted: CertifiedGrant, key: "Ed25519PrivateKey") -> Enrolment:
        """Store an enrolment without making it current; an existing one with this certificate stays unchanged."""
        final, part = self._all / granted.name, self._all / f".{granted.name}-{uuid.uuid4().hex[:12]}.part"
        files = {
            "key.pem": private_key_to_pem(key),
            "certificate.pem": granted.certificate.encode(),
            "ca.pem": granted.ca.encode(),
            "enrolment.json": msgspec.json.format(msgspec.json.encode(granted.grant)),
        }
        try:
            if final.exists():
                return self._at(final)
            self._make(self._all)
            self._leftovers.remove_all(self._all.glob(".*.part"))  # of attempts that were interrupted
            part.mkdir(mode=0o700)
            for name, content in files.items():
                write_durably(part / name, content)
            sync_tree(part)
            self._begin_epochs(granted.grant.enrolment_id)
            part.rename(final)
            sync_directory(self._all)
        except OSError as error:
            raise self._unusable(error) from error
        return Enrolment(final, granted.grant)

    def _begin_epochs(self, enrolment_id: str) -> None:
        """Record that nothing was signed for a new enrolment yet; a renewal keeps its epochs."""
        path = self._root / epoch_name(enrolment_id)
        if not path.exists():
            write_durably(path, b"0")

    def make_current(self, name: str) -> None:
        """Make this the current enrolment as of the agent's next start."""
        self._at(self._all / name)
        try:
            link_durably(self._link, f"enrolments/{name}")
        except OSError as error:
            raise self._unusable(error) from error

    def replace_authorities(self, name: str, certificates: str) -> None:
        """Let an enrolment trust these authorities (PEM), durably, as of the next connection."""
        path = self._all / name / "ca.pem"
        try:
            if not path.exists():
                raise FileNotFoundError(errno.ENOENT, "a renewal has replaced it")
            write_durably(path, certificates.encode())
        except OSError as error:
            raise self._unusable(error) from error

    def keep_only(self, name: str) -> None:
        """Remove all other enrolments and unused keys; no other process may be enrolling. What stays is named."""
        try:
            for path in self._all.iterdir():
                if path.name != name:
                    self._discard(path)
            self._leftovers.remove(self._root / "keys")
        except OSError as error:
            raise self._unusable(error) from error

    def remove(self, name: str) -> None:
        """Remove an enrolment, unless it is the current one."""
        current = self.current()
        if current is None or current.directory.name != name:
            self._discard(self._all / name)

    def _discard(self, directory: Path) -> None:
        """Remove an enrolment under another name, so that what stays of it is not taken for one."""
        aside = directory.with_name(f".{directory.name}-{uuid.uuid4().hex[:12]}.part")
        try:
            directory.rename(aside)
        except OSError:
            aside = directory
        self._leftovers.remove(aside)

    def attempt(self) -> EnrolmentAttempt | None:
        """Return the last attempt by a command, or None, also for a damaged record, which is set aside.

        It only steers the recovery: without it the agent keeps its current enrolment.
        """
        try:
            return self._read("attempt.json", EnrolmentAttempt, "remove it")
        except EnrolmentError as error:
            if error.code != "enrolment_unreadable":
                raise
            self._set_aside(self._root / "attempt.json", str(error.__cause__))
        return None

    def _set_aside(self, record: Path, reason: str) -> None:
        """Rename a damaged record; one that cannot be renamed stays, and is named again at the next start."""
        place = record
        with contextlib.suppress(OSError):
            place = set_damaged_aside(record)
        self.damage = (
            f"The record of the last enroll-agent was damaged, and is now at {place}: a move that it had decided is "
            f"not made, and the agent keeps its enrolment ({reason})."
        )
        _log.error("enrolment_record_damaged", file=str(place), reason=reason)

    def record(self, attempt: EnrolmentAttempt) -> None:
        """Store the state of an attempt durably."""
        self._write("attempt.json", attempt)

    def stored_signing_keys(self) -> StoredSigningKeys | None:
        """Return the last signing keys from a command, or None."""
        return self._read("signing-keys.json", StoredSigningKeys, "remove it and enroll again")

    def store_signing_keys(self, keys: StoredSigningKeys) -> None:
        """Store the signing keys from a command durably."""
        self._write("signing-keys.json", keys)

    def _read(self, name: str, kind: type[_T], advice: str) -> _T | None:
        path = self._root / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except IsADirectoryError as error:
            raise EnrolmentError(f"{path} is a directory; {advice}.", code="enrolment_unreadable") from error
        except OSError as error:
            raise self._unusable(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EnrolmentError(f"{path} cannot be read: {error}; {advice}.", code="enrolment_unreadable") from error

    def _write(self, name: str, content: EnrolmentAttempt | StoredSigningKeys) -> None:
        try:
            self._make(self._root)
            write_durably(self._root / name, msgspec.json.format(msgspec.json.encode(content)))
        except OSError as error:
            raise self._unusable(error) from error

    def _at(self, directory: Path) -> Enrolment:
        try:
            grant = msgspec.json.decode((directory / "enrolment.json").read_bytes(), type=Grant)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EnrolmentError(
                f"The enrolment in {directory} cannot be read: {error}; remove {self._root} and enroll again.",
                code="enrolment_unreadable",
            ) from error
        except OSError as error:  # of the machine, not of the enrolment, which must be kept
            raise self._unusable(error) from error
        return Enrolment(directory, grant)

    def _make(self, directory: Path) -> None:
        self._root.mkdir(mode=0o700, exist_ok=True)
        if not directory.exists():
            directory.mkdir(mode=0o700)
            sync_directory(directory.parent)

    def _unusable(self, error: OSError) -> EnrolmentError:
        return EnrolmentError(f"{self._root} cannot be used: {error.strerror or error}.", code="directory_unusable")
