"""The list of signing keys: states, versions, and the rules of its changes. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from broker.contract.commands.update_signing_keys import MAX_KEYS
from broker.errors import BrokerError

__all__ = [
    "KeyEntry",
    "KeyList",
    "KeyState",
    "SigningKeyError",
]


class SigningKeyError(BrokerError):
    """The signing keys cannot be created, read or changed as requested."""

    code = "signing_key_error"


class KeyState(StrEnum):
    """An active key signs and is trusted by agents; a revoked one is neither used nor trusted."""

    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True)
class KeyEntry:
    """One key of the list. `public` is in PEM; `since` is the first version of the list that had the key."""

    id: str
    state: KeyState
    public: str
    created_at: datetime
    since: int
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class KeyList:
    """The list as it is stored.

    `version` increases with each change, and agents never go back to a lower one. It is the time of the change in
    milliseconds since 1970, so that a directory that was restored from a backup or created again continues with
    versions that no agent has seen. `announced`: this version was queued for every agent that needs it.
    """

    version: int
    announced: bool
    keys: tuple[KeyEntry, ...]

    @property
    def active(self) -> tuple[KeyEntry, ...]:
        """The keys that sign and are trusted, oldest first."""
        return tuple(entry for entry in self.keys if entry.state is KeyState.ACTIVE)

    def find(self, key_id: str) -> KeyEntry:
        """Return one key; raises SigningKeyError."""
        found = next((entry for entry in self.keys if entry.id == key_id), None)
        if found is None:
            raise SigningKeyError(
                f"There is no signing key {key_id[:80]!r}; `acm keys list` shows all.", code="unknown_signing_key"
            )
        return found

    def active_besides(self, entry: KeyEntry) -> Sequence[KeyEntry]:
        """Return the other active keys; raises SigningKeyError if there are none."""
        left = [one for one in self.active if one is not entry]
        if not left:
            raise SigningKeyError(
                f"{entry.id} is the last active key: create another with `acm keys rotate` first.",
                code="last_signing_key",
            )
        return left

    def check_room(self) -> None:
        """Raise SigningKeyError if the list has MAX_KEYS active keys, the most that an agent accepts."""
        if len(self.active) >= MAX_KEYS:
            raise SigningKeyError(
                f"There are already {MAX_KEYS} active keys, the maximum: revoke one with `acm keys revoke` first.",
                code="too_many_signing_keys",
            )

    def with_key(self, entry: KeyEntry) -> "KeyList":
        """Return the list with a further key, at the version that the key has as `since`."""
        return self.changed(entry.since, (*self.keys, entry))

    def with_revoked(self, entry: KeyEntry, revoked_at: datetime, version: int) -> "KeyList":
        """Return the list of this version in which the key is revoked."""
        revoked = replace(entry, state=KeyState.REVOKED, revoked_at=revoked_at)
        return self.changed(version, tuple(revoked if one is entry else one for one in self.keys))

    def changed(self, version: int, keys: tuple[KeyEntry, ...]) -> "KeyList":
        """Return a later version, not announced yet."""
        return KeyList(version, False, keys)

    def next_version(self, now: datetime, above: int = 0) -> int:
        """Return the version of a change made now; greater than the current one and than `above`."""
        # design.md: "The version of the list is the time of its change"
        return max(self.version + 1, above + 1, int(now.timestamp() * 1000))
