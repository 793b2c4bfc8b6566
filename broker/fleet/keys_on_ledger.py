"""The signing keys of an installation, and the agents of its ledger that have confirmed them."""

from collections.abc import Callable
from datetime import datetime

from broker.enrolment.store import EnrolmentStore
from broker.fleet.key_models import SigningKeysView, SigningKeyView
from broker.fleet.key_rollout import rollout_of
from broker.fleet.models import MAX_PAGE
from broker.ledger.ledger import Ledger
from broker.signing.key_store import SigningKeyStore

__all__ = [
    "LedgerSigningKeys",
]


class LedgerSigningKeys:
    """The keys of a `SigningKeyStore` with the enrolled agents of a ledger."""

    def __init__(self, keys: SigningKeyStore, ledger: Ledger, *, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._ledger = ledger
        self._now = now

    def signing_keys(self) -> SigningKeysView:
        """Return the keys. It reads the last status of every agent. Raises LedgerError and SigningKeyError."""
        keys = self._keys
        enrolments = EnrolmentStore(self._ledger.database, now=self._now)
        rollout = rollout_of(self._ledger, enrolments, keys.version, self._now())
        behind = rollout.behind(keys.version)
        agents = len(rollout.versions)
        views = tuple(SigningKeyView(it.id, it.state, it.created_at, it.revoked_at, it.public) for it in keys.entries)
        confirmed, not_confirmed = agents - len(behind), tuple(behind[:MAX_PAGE])
        return SigningKeysView(keys.version, keys.announced, agents, confirmed, not_confirmed, views)
