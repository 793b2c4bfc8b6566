"""Tokens, enrolments and revocation, in a database with an authority."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.app.factories import open_database
from broker.contract.enrolment_token import EnrolmentToken
from broker.contract.topics import InvalidName
from broker.enrolment.store import (
    EnrolmentRevoked,
    EnrolmentStore,
    IssuedCertificate,
    UnknownEnrolment,
)
from broker.enrolment.tokens import TokenRefused, TokenState, TokenUsed, UnknownToken
from broker.ledger.ledger import Ledger
from broker.pki.authority import CertificateAuthority, create_authority
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from tests.support.enrolling import MONTH, EnrolmentBackend
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock


class Office:
    """An authority and its enrolments on a turned clock."""

    def __init__(self, directory: Path, clock: TurnedClock) -> None:
        self.clock = clock
        self.backend = EnrolmentBackend.create(directory, clock.now)
        self.url, self.authority = self.backend.url, self.backend.authority
        self.tokens, self.enrolments = self.backend.tokens, self.backend.enrolments
        self.token, self.renew = self.backend.token, self.backend.renew
        self.file = RevocationFile(directory / "crl.pem", self.authority, self.enrolments, now=clock.now)

    def enroll(self, token: EnrolmentToken, key: Ed25519PrivateKey, agent: str = "web-01") -> IssuedCertificate:
        return self.backend.enroll(agent, key, token)

    def revoked(self) -> list[int]:
        return [entry.serial_number for entry in x509.load_pem_x509_crl(self.file.path.read_bytes())]


def serial(grant: IssuedCertificate) -> int:
    return x509.load_pem_x509_certificate(grant.certificate.encode()).serial_number


@pytest.fixture
def office(tmp_path: Path, clock: TurnedClock) -> Iterator[Office]:
    office = Office(tmp_path, clock)
    yield office
    office.enrolments.database.close()


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def test_a_token_pays_for_one_enrolment(office: Office, key: Ed25519PrivateKey) -> None:
    grant = office.enroll(office.token(), key)
    assert grant.not_after == office.clock.now() + MONTH
    (token,) = office.tokens.all()
    (enrolment,) = office.enrolments.enrolments()
    assert (token.state, token.enrolment_id, token.key) == (TokenState.USED, grant.enrolment_id, enrolment.key)
    assert (enrolment.id, enrolment.agent, enrolment.serial) == (grant.enrolment_id, "web-01", f"{serial(grant):x}")


def test_an_enrolled_agent_is_known_to_the_ledger_before_it_speaks(office: Office, key: Ed25519PrivateKey) -> None:
    ledger = Ledger(office.enrolments.database, now=office.clock.now)
    assert ledger.agent_names() == []
    for _ in range(2):
        office.enroll(office.token(), key)
    assert [(row.name, row.status) for row in ledger.agents()] == [("web-01", None)]


def test_the_same_token_and_key_get_the_same_certificate_again(office: Office, key: Ed25519PrivateKey) -> None:
    token = office.token()
    assert office.enroll(token, key) == office.enroll(token, key)
    assert len(office.enrolments.enrolments()) == 1


def test_another_key_cannot_use_a_used_token(office: Office, key: Ed25519PrivateKey) -> None:
    token = office.token()
    grant = office.enroll(token, key)
    with raises_code(TokenUsed, "token_used") as caught:
        office.enroll(token, Ed25519PrivateKey.generate())
    assert f"acm enrolment revoke {grant.enrolment_id}" in str(caught.value)
    assert office.enroll(token, key) == grant


def test_of_many_keys_at_once_one_gets_the_enrolment(office: Office) -> None:
    token = office.token()

    def attempt(key: Ed25519PrivateKey) -> bool:
        try:
            office.enroll(token, key)
        except TokenUsed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, [Ed25519PrivateKey.generate() for _ in range(8)]))
    assert sorted(outcomes) == [False] * 7 + [True]
    assert len(office.enrolments.enrolments()) == 1


def test_a_token_is_bound_to_its_agent(office: Office, key: Ed25519PrivateKey) -> None:
    token = office.token("web-01")
    with raises_code(TokenRefused, "token_of_another_agent"):
        office.enroll(token, key, "web-02")
    assert office.enroll(token, key).agent == "web-01"


def test_an_expired_token_enrols_nobody_not_even_who_used_it(office: Office, key: Ed25519PrivateKey) -> None:
    used, unused = office.token(), office.token()
    office.enroll(used, key)
    office.clock.turn(3600)
    for token in (used, unused):
        with raises_code(TokenRefused, "token_expired"):
            office.enroll(token, key)
    assert {row.state for row in office.tokens.all()} == {TokenState.USED, TokenState.EXPIRED}


def test_unknown_and_revoked_tokens_enrol_nobody(office: Office, key: Ed25519PrivateKey) -> None:
    token = office.token()
    office.tokens.revoke(office.tokens.all()[0].id)
    with raises_code(TokenRefused, "token_revoked"):
        office.enroll(token, key)
    with raises_code(TokenRefused, "unknown_token"):
        office.enroll(replace(token, secret=token.secret[::-1]), key)
    assert office.tokens.all()[0].state is TokenState.REVOKED


def test_only_an_unused_token_can_be_revoked(office: Office, key: Ed25519PrivateKey) -> None:
    office.enroll(office.token(), key)
    for token_id in (office.tokens.all()[0].id, "nothing"):
        with raises_code(UnknownToken, "unknown_token_id"):
            office.tokens.revoke(token_id)


def test_the_secret_is_stored_nowhere(office: Office, key: Ed25519PrivateKey) -> None:
    token = office.token()
    office.enroll(token, key)
    office.enrolments.database.close()
    with sa.create_engine(office.url).connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM enrolment_tokens")).all()
        connection.invalidate()
    assert token.secret_hash in str(rows)
    assert token.secret not in str(rows)


def test_a_bad_agent_name_gets_no_token(office: Office) -> None:
    with pytest.raises(InvalidName):
        office.token("Web 01")
    assert office.tokens.all() == []


def test_a_failed_issue_uses_no_token(office: Office, key: Ed25519PrivateKey) -> None:
    token = office.token()

    def fail() -> x509.Certificate:
        raise RuntimeError("no entropy")

    with pytest.raises(RuntimeError):
        office.enrolments.enroll("web-01", token, key.public_key(), fail)
    assert office.tokens.all()[0].state is TokenState.OPEN
    assert office.enrolments.enrolments() == []


def test_a_renewal_belongs_to_the_same_enrolment(office: Office, key: Ed25519PrivateKey) -> None:
    first = office.enroll(office.token(), key)
    office.clock.turn(20 * 86400)
    second = office.renew(first, Ed25519PrivateKey.generate())
    assert second.enrolment_id == first.enrolment_id
    assert second.not_after == first.not_after + timedelta(days=20)
    (enrolment,) = office.enrolments.enrolments()
    assert (enrolment.serial, enrolment.not_after) == (f"{serial(second):x}", second.not_after)
    assert serial(office.renew(first, key)) not in (serial(first), serial(second))


def test_revoking_an_enrolment_revokes_all_its_certificates(office: Office, key: Ed25519PrivateKey) -> None:
    token = office.token()
    first = office.enroll(token, key)
    second = office.renew(first, Ed25519PrivateKey.generate())
    other = office.enroll(office.token(), Ed25519PrivateKey.generate())
    revoked = office.enrolments.revoke(first.enrolment_id, RevocationReason.KEY_COMPROMISE)
    assert [(row.id, row.reason) for row in revoked] == [(first.enrolment_id, RevocationReason.KEY_COMPROMISE)]
    office.file.write()
    assert sorted(office.revoked()) == sorted([serial(first), serial(second)])
    for grant in (first, second):
        with raises_code(EnrolmentRevoked, "enrolment_revoked"):
            office.renew(grant, key)
    with raises_code(EnrolmentRevoked, "enrolment_revoked"):
        office.enroll(token, key)
    assert office.renew(other, key).enrolment_id == other.enrolment_id


def test_revoking_an_agent_takes_its_tokens_too(office: Office, key: Ed25519PrivateKey) -> None:
    grants = [office.enroll(office.token(), Ed25519PrivateKey.generate()) for _ in range(2)]
    office.enroll(office.token("web-02"), key, "web-02")
    unused = office.token()
    revoked = office.enrolments.revoke("web-01", RevocationReason.UNSPECIFIED)
    assert {row.id for row in revoked} == {grant.enrolment_id for grant in grants}
    with raises_code(TokenRefused, "token_revoked"):
        office.enroll(unused, key)
    assert [row.revoked_at for row in office.enrolments.enrolments("web-02")] == [None]
    assert office.enrolments.revoke("web-01", RevocationReason.UNSPECIFIED) == []
    with raises_code(UnknownEnrolment, "unknown_enrolment"):
        office.enrolments.revoke("web-03", RevocationReason.UNSPECIFIED)


def test_a_certificate_of_the_authority_that_is_not_recorded_is_not_renewed(
    office: Office, key: Ed25519PrivateKey
) -> None:
    with raises_code(EnrolmentRevoked, "enrolment_not_recorded"):
        office.enrolments.renew(1, key.public_key(), lambda: pytest.fail("issued"))


def test_the_list_is_written_anew_each_day_and_when_something_was_revoked(
    office: Office, key: Ed25519PrivateKey
) -> None:
    grant = office.enroll(office.token(), key)
    assert office.file.refresh()
    assert not office.file.refresh()
    office.enrolments.revoke("web-01", RevocationReason.SUPERSEDED)
    assert office.file.refresh()
    assert office.revoked() == [serial(grant)]
    assert not office.file.refresh()
    office.clock.turn(86400)
    assert office.file.refresh()


def test_a_certificate_stays_listed_until_a_week_after_its_end(office: Office, key: Ed25519PrivateKey) -> None:
    grant = office.enroll(office.token(), key)
    office.enrolments.revoke("web-01", RevocationReason.SUPERSEDED)
    office.clock.turn(37 * 86400)
    office.file.write()
    assert office.revoked() == [serial(grant)]
    office.clock.turn(1)
    office.file.write()
    assert office.revoked() == []


def test_a_file_that_another_has_written_is_written_anew_unless_it_is_as_good(
    office: Office, key: Ed25519PrivateKey
) -> None:
    grant = office.enroll(office.token(), key)
    office.enrolments.revoke("web-01", RevocationReason.SUPERSEDED)
    office.file.write()
    other = RevocationFile(office.file.path, office.authority, office.enrolments, now=office.clock.now)
    assert not other.refresh()
    for spoil in (
        lambda: office.file.path.unlink(),
        lambda: office.file.path.write_text("no list"),
        lambda: office.authority.write_revocation_list(lambda: [], office.file.path),
    ):
        assert not office.file.refresh()
        spoil()
        assert office.file.refresh()
        assert office.revoked() == [serial(grant)]
    office.clock.turn(3600)
    other.write()
    assert not office.file.refresh()


def test_what_the_list_names_stays_where_the_database_does_not_know_of_it(
    office: Office, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    before_enrolment, before_revocation = tmp_path / "1.db", tmp_path / "2.db"
    shutil.copy(tmp_path / "ledger.db", before_enrolment)
    grant = office.enroll(office.token(), key)
    shutil.copy(tmp_path / "ledger.db", before_revocation)
    (revoked,) = office.enrolments.revoke("web-01", RevocationReason.KEY_COMPROMISE)
    office.file.write()
    for database in (before_enrolment, before_revocation, tmp_path / "new.db"):
        with open_database(f"sqlite:///{database}") as opened:
            enrolments = EnrolmentStore(opened, now=office.clock.now)
            RevocationFile(office.file.path, office.authority, enrolments, now=office.clock.now).write()
        (entry,) = x509.load_pem_x509_crl(office.file.path.read_bytes())
        assert (entry.serial_number, entry.revocation_date_utc) == (serial(grant), revoked.revoked_at)
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.name == "key_compromise"


def test_what_the_database_does_not_know_stays_as_long_as_a_certificate_lives(office: Office) -> None:
    entry = RevokedCertificate(7, office.clock.now(), RevocationReason.UNSPECIFIED)
    office.file.write(entry)
    for days in (372, 1):
        office.clock.turn(days * 86400)
        office.file.write()
        assert office.revoked() == [7]
    office.clock.turn(1)
    office.file.write()
    assert office.revoked() == []


def test_a_list_of_another_authority_is_not_taken_over(office: Office, tmp_path: Path) -> None:
    create_authority(tmp_path / "stranger", "test", office.clock.now())
    stranger = CertificateAuthority(tmp_path / "stranger", now=office.clock.now)
    entry = RevokedCertificate(7, office.clock.now(), RevocationReason.UNSPECIFIED)
    stranger.write_revocation_list(lambda: [entry], office.file.path)
    office.file.write()
    assert office.revoked() == []


def test_a_clock_that_was_ahead_does_not_leave_a_list_of_the_future(office: Office) -> None:
    office.clock.turn(6 * 3600)
    office.file.write()
    office.clock.turn(-6 * 3600)
    assert office.file.refresh()
    assert not office.file.refresh()
    crl = x509.load_pem_x509_crl(office.file.path.read_bytes())
    assert crl.last_update_utc == office.clock.now() - timedelta(days=1)
