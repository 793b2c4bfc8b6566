"""The keys that an enrolled agent trusts."""

from collections.abc import Sequence as Listing

from broker.contract.signing import SignatureError, VerifyingKey, read_public_key
from consumer.enrolment.enrolments import Grant
from consumer.errors import EnrolmentError

__all__ = ["GrantedTrust"]


class GrantedTrust:
    """The consumer.verification.Trust that a grant gives. Raises EnrolmentError when a key in it cannot be used."""

    def __init__(self, grant: Grant) -> None:
        self.enrolment_id = grant.enrolment_id
        try:
            self.keys: Listing[VerifyingKey] = tuple(read_public_key(pem) for pem in grant.signing_keys)
        except SignatureError as error:
            raise EnrolmentError(f"The enrolment {grant.enrolment_id} cannot be used: {error} Enrol again.") from error
