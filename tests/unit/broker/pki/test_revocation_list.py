"""The content of revocation lists."""

from cryptography import x509

from broker.pki.revocation_list import RevocationReason, RevokedCertificate, revocation_list
from tests.support.certificates import DAY, NOW, extension, new_issuer

ISSUER = new_issuer()


def test_crl_has_serials_dates_and_reasons() -> None:
    revoked = [
        RevokedCertificate(5, NOW, RevocationReason.KEY_COMPROMISE),
        RevokedCertificate(6, NOW, RevocationReason.UNSPECIFIED),
    ]
    crl = x509.load_pem_x509_crl(revocation_list(ISSUER, revoked, 9, NOW, 7 * DAY))
    assert crl.is_signature_valid(ISSUER.key.public_key())
    assert (crl.last_update_utc, crl.next_update_utc) == (NOW - DAY, NOW + 7 * DAY)
    assert extension(crl, x509.CRLNumber).value.crl_number == 9
    first, second = crl
    assert (first.serial_number, first.revocation_date_utc) == (5, NOW)
    assert extension(first, x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert list(second.extensions) == []
