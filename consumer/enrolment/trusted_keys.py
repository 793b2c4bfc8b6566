"""The keys that an enrolled agent trusts: those of its enrolment, or of a newer list from its server."""

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
    """The consumer.trust.ports.Trust of a grant. Raises EnrolmentError if a key in it cannot be used."""

    def __init__(self, grant: Grant) -> None:
        self.enrolment_id = grant.enrolment_id
        self.valid_until = grant.not_after
        self.keys: Sequence[VerifyingKey] = _granted(grant)


class EnrolmentTrust:
    """The consumer.trust.ports.TrustedKeys of an enrolled agent.

    The list with the highest version applies, whether it came with the enrolment, a renewal or a command. A list from
    a command is stored for the enrolment that it was signed for; another enrolment begins with the keys of its grant.
    Raises EnrolmentError if the grant's keys, or the stored ones, cannot be used.
    """

    def __init__(self, enrolments: EnrolmentDirectory, enrolment: Enrolment) -> None:
        self._enrolments = enrolments
        self._lock = threading.Lock()
        self._use_grant(enrolment.grant)
        kept = enrolments.stored_signing_keys()
        if kept is not None and kept.enrolment_id == self.enrolment_id and kept.version > self.version:
            self._use(kept.version, _usable(kept.keys, f"The signing-keys.json in {enrolment.directory.parent.parent}"))

    @property
    def key_ids(self) -> Sequence[str]:
        """The ids of the trusted keys."""
        return tuple(key.id for key in self.keys)

    def update(self, keys: UpdateSigningKeys) -> None:
        """Trust these keys, durably; see consumer.trust.ports.TrustedKeys."""
        usable = _read(keys.keys)
        with self._lock:
            if keys.version <= self.version:
                return
            self._enrolments.store_signing_keys(StoredSigningKeys(self.enrolment_id, keys.version, keys.keys))
            self._use(keys.version, usable)
        _log.info("signing_keys_updated", version=keys.version, keys=",".join(self.key_ids))

    def renewed(self, grant: Grant) -> None:
        """Use the keys of a renewal, which is stored already, unless the current ones are newer."""
        with self._lock:
            if grant.enrolment_id != self.enrolment_id or grant.signing_keys_version > self.version:
                self._use_grant(grant)
            self.valid_until = grant.not_after

    def _use_grant(self, grant: Grant) -> None:
        self.enrolment_id = grant.enrolment_id
        self.valid_until = grant.not_after
        self._use(grant.signing_keys_version, _granted(grant))

    def _use(self, version: int, keys: Sequence[VerifyingKey]) -> None:
        self.version = version
        self.keys = keys


def _read(pems: Iterable[str]) -> Sequence[VerifyingKey]:
    return tuple(read_public_key(pem) for pem in pems)


def _granted(grant: Grant) -> Sequence[VerifyingKey]:
    return _usable(grant.signing_keys, f"The enrolment {grant.enrolment_id}")


def _usable(pems: Iterable[str], subject: str) -> Sequence[VerifyingKey]:
    try:
        return _read(pems)
    except SignatureError as error:
        raise EnrolmentError(f"{subject} cannot be used: {error} Enroll again.", code="invalid_signing_keys") from error
