"""The keys that an enrolled agent trusts: those that came with its enrolment, or a newer list that it was told of."""

import threading
from collections.abc import Iterable, Sequence

import structlog

from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from broker.contract.dsse import SignatureError, VerifyingKey, read_public_key
from consumer.enrolment.store import Enrolment, EnrolmentDirectory, Grant, StoredSigningKeys
from consumer.errors import EnrolmentError

__all__ = [
    "EnrolmentTrust",
    "GrantTrust",
]


_log = structlog.get_logger(__name__)


class GrantTrust:
    """The consumer.verification.Trust that a grant gives. Raises EnrolmentError when a key in it cannot be used."""

    def __init__(self, grant: Grant) -> None:
        self.enrolment_id = grant.enrolment_id
        self.good_until = grant.not_after
        self.keys: Sequence[VerifyingKey] = _granted(grant)


class EnrolmentTrust:
    """The consumer.verification.Trust and consumer.ports.KeyKeeper of an enrolled agent.

    The newest list holds, by its version, whether it came with the enrolment, a renewal or a command. What a command
    said is kept on the disk for the enrolment that it came by; another enrolment begins with what it was granted.
    Raises EnrolmentError when the grant's keys, or those on the disk, cannot be used.
    """

    def __init__(self, enrolments: EnrolmentDirectory, enrolment: Enrolment) -> None:
        self._enrolments = enrolments
        self._lock = threading.Lock()
        self._take(enrolment.grant)
        kept = enrolments.stored_signing_keys()
        if kept is not None and kept.enrolment_id == self.enrolment_id and kept.version > self.version:
            self._use(kept.version, _usable(kept.keys, f"What {enrolment.directory.parent.parent} keeps"))

    @property
    def key_ids(self) -> Sequence[str]:
        """The ids of the keys that are trusted."""
        return tuple(key.id for key in self.keys)

    def update(self, said: UpdateSigningKeys) -> None:
        """Trust what a signed command said, from now on and durably; see consumer.ports.KeyKeeper."""
        keys = _read(said.keys)
        with self._lock:
            if said.version <= self.version:
                return
            self._enrolments.store_signing_keys(StoredSigningKeys(self.enrolment_id, said.version, said.keys))
            self._use(said.version, keys)
        _log.info("signing_keys_updated", version=said.version, keys=",".join(self.key_ids))

    def renewed(self, grant: Grant) -> None:
        """Take the keys of a renewal, which is on the disk already, unless those that are known are newer."""
        with self._lock:
            if grant.enrolment_id != self.enrolment_id or grant.signing_keys_version > self.version:
                self._take(grant)
            self.good_until = grant.not_after

    def _take(self, grant: Grant) -> None:
        self.enrolment_id = grant.enrolment_id
        self.good_until = grant.not_after
        self._use(grant.signing_keys_version, _granted(grant))

    def _use(self, version: int, keys: Sequence[VerifyingKey]) -> None:
        self.version = version
        self.keys = keys


def _read(pems: Iterable[str]) -> Sequence[VerifyingKey]:
    return tuple(read_public_key(pem) for pem in pems)


def _granted(grant: Grant) -> Sequence[VerifyingKey]:
    return _usable(grant.signing_keys, f"The enrolment {grant.enrolment_id}")


def _usable(pems: Iterable[str], what: str) -> Sequence[VerifyingKey]:
    try:
        return _read(pems)
    except SignatureError as error:
        raise EnrolmentError(f"{what} cannot be used: {error} Enroll again.") from error
