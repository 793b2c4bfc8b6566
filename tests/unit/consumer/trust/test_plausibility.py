"""Epochs and versions that are too far ahead."""

from datetime import timedelta

from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from broker.contract.messages import SequenceNumber
from consumer.trust.plausibility import check_epoch, check_version
from consumer.trust.refusal import Refusal
from tests.support.makers import NOW

YEAR_MS = 365 * 86_400_000
DAY_MS = 86_400_000
SIGNED_MS = int(NOW.timestamp() * 1000)


def code(refusal: Refusal | None) -> str | None:
    return refusal.code if refusal else None


def test_epoch_may_lead_by_a_year_or_by_a_step() -> None:
    assert check_epoch(SequenceNumber(SIGNED_MS + YEAR_MS, 1), 0, NOW) is None
    assert code(check_epoch(SequenceNumber(SIGNED_MS + YEAR_MS + 1, 1), 0, NOW)) == "epoch_too_far"
    known = SIGNED_MS + 2 * YEAR_MS
    assert check_epoch(SequenceNumber(known + 1_000_000, 1), known, NOW) is None
    assert code(check_epoch(SequenceNumber(known + 1_000_001, 1), known, NOW)) == "epoch_too_far"


def test_version_of_the_keys_may_lead_the_signature_by_a_day() -> None:
    assert check_version(UpdateSigningKeys(SIGNED_MS + DAY_MS, ("pem",)), NOW) is None
    assert code(check_version(UpdateSigningKeys(SIGNED_MS + DAY_MS + 1, ("pem",)), NOW)) == "version_too_far"
    assert check_version(UpdateSigningKeys(SIGNED_MS, ("pem",)), NOW + timedelta(days=400)) is None
