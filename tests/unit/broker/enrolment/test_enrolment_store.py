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
from broker.enrolment.pruning import EnrolmentPruning
from broker.enrolment.store import (
    EnrolmentRevoked,
    EnrolmentStore,
    IssuedCertificate,
    RenewedTooOften,
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


class StoreSetup:
    """An authority and its enrolments on a turned clock."""

    def __init__(self, directory: Path, clock: TurnedClock, url: str | None = None) -> None:
        self.clock = clock
        self.backend = EnrolmentBackend.create(directory, clock.now, url)
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
def setup(tmp_path: Path, clock: TurnedClock, ledger_url: str) -> Iterator[StoreSetup]:
    setup = StoreSetup(tmp_path, clock, ledger_url)
    yield setup
    setup.enrolments.database.close()


@pytest.fixture
def on_file(tmp_path: Path, clock: TurnedClock) -> Iterator[StoreSetup]:
    """As `setup`, with its database in a file that a test copies."""
    setup = StoreSetup(tmp_path, clock)
    yield setup
    setup.enrolments.database.close()


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def test_token_is_exchanged_for_one_enrolment(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    grant = setup.enroll(setup.token(), key)
    assert grant.not_after == setup.clock.now() + MONTH
    (token,) = setup.tokens.all()
    (enrolment,) = setup.enrolments.enrolments()
    assert (token.state, token.enrolment_id, token.key) == (TokenState.USED, grant.enrolment_id, enrolment.key)
    assert (enrolment.id, enrolment.agent, enrolment.serial) == (grant.enrolment_id, "web-01", f"{serial(grant):x}")


def test_enrolled_agent_is_in_the_ledger_before_its_first_status(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    ledger = Ledger(setup.enrolments.database, now=setup.clock.now)
    assert ledger.agent_names() == []
    for _ in range(2):
        setup.enroll(setup.token(), key)
    assert [(row.name, row.status) for row in ledger.agents()] == [("web-01", None)]


def test_same_token_and_key_get_the_same_certificate_again(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    token = setup.token()
    assert setup.enroll(token, key) == setup.enroll(token, key)
    assert len(setup.enrolments.enrolments()) == 1


def test_used_token_is_refused_for_another_key(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    token = setup.token()
    grant = setup.enroll(token, key)
    with raises_code(TokenUsed, "token_used") as caught:
        setup.enroll(token, Ed25519PrivateKey.generate())
    assert f"acm enrolment revoke {grant.enrolment_id}" in str(caught.value)
    assert setup.enroll(token, key) == grant


def test_one_of_many_concurrent_keys_gets_the_enrolment(setup: StoreSetup) -> None:
    token = setup.token()

    def attempt(key: Ed25519PrivateKey) -> bool:
        try:
            setup.enroll(token, key)
        except TokenUsed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, [Ed25519PrivateKey.generate() for _ in range(8)]))
    assert sorted(outcomes) == [False] * 7 + [True]
    assert len(setup.enrolments.enrolments()) == 1


def test_token_is_refused_for_another_agent(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    token = setup.token("web-01")
    with raises_code(TokenRefused, "token_of_another_agent"):
        setup.enroll(token, key, "web-02")
    assert setup.enroll(token, key).agent == "web-01"


def test_expired_token_is_refused_even_for_the_key_that_used_it(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    used, unused = setup.token(), setup.token()
    setup.enroll(used, key)
    setup.clock.turn(3600)
    for token in (used, unused):
        with raises_code(TokenRefused, "token_expired"):
            setup.enroll(token, key)
    assert {row.state for row in setup.tokens.all()} == {TokenState.USED, TokenState.EXPIRED}


def test_unknown_and_revoked_tokens_are_refused(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    token = setup.token()
    setup.tokens.revoke(setup.tokens.all()[0].id)
    with raises_code(TokenRefused, "token_revoked"):
        setup.enroll(token, key)
    with raises_code(TokenRefused, "unknown_token"):
        setup.enroll(replace(token, secret=token.secret[::-1]), key)
    assert setup.tokens.all()[0].state is TokenState.REVOKED


def test_only_unused_token_can_be_revoked(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    setup.enroll(setup.token(), key)
    for token_id in (setup.tokens.all()[0].id, "nothing"):
        with raises_code(UnknownToken, "unknown_token_id"):
            setup.tokens.revoke(token_id)


def test_secret_of_a_token_is_not_stored(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    token = setup.token()
    setup.enroll(token, key)
    setup.enrolments.database.close()
    with sa.create_engine(setup.url).connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM enrolment_tokens")).all()
        connection.invalidate()
    assert token.secret_hash in str(rows)
    assert token.secret not in str(rows)


def test_no_token_is_created_for_a_bad_agent_name(setup: StoreSetup) -> None:
    with pytest.raises(InvalidName):
        setup.token("Web 01")
    assert setup.tokens.all() == []


def test_token_stays_open_when_issuing_fails(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    token = setup.token()

    def fail() -> x509.Certificate:
        raise RuntimeError("no entropy")

    with pytest.raises(RuntimeError):
        setup.enrolments.enroll("web-01", token, key.public_key(), fail)
    assert setup.tokens.all()[0].state is TokenState.OPEN
    assert setup.enrolments.enrolments() == []


def test_renewal_belongs_to_the_same_enrolment(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    first = setup.enroll(setup.token(), key)
    setup.clock.turn(20 * 86400)
    second = setup.renew(first, Ed25519PrivateKey.generate())
    assert second.enrolment_id == first.enrolment_id
    assert second.not_after == first.not_after + timedelta(days=20)
    (enrolment,) = setup.enrolments.enrolments()
    assert (enrolment.serial, enrolment.not_after) == (f"{serial(second):x}", second.not_after)
    assert serial(setup.renew(first, key)) not in (serial(first), serial(second))


def test_revocation_of_an_enrolment_covers_all_its_certificates(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    token = setup.token()
    first = setup.enroll(token, key)
    second = setup.renew(first, Ed25519PrivateKey.generate())
    other = setup.enroll(setup.token(), Ed25519PrivateKey.generate())
    revoked = setup.enrolments.revoke_enrolment(first.enrolment_id, RevocationReason.KEY_COMPROMISE)
    assert (revoked.id, revoked.reason) == (first.enrolment_id, RevocationReason.KEY_COMPROMISE)
    setup.file.write()
    assert sorted(setup.revoked()) == sorted([serial(first), serial(second)])
    for grant in (first, second):
        with raises_code(EnrolmentRevoked, "enrolment_revoked"):
            setup.renew(grant, key)
    with raises_code(EnrolmentRevoked, "enrolment_revoked"):
        setup.enroll(token, key)
    assert setup.renew(other, key).enrolment_id == other.enrolment_id


def test_revocation_of_an_agent_covers_its_unused_tokens(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    grants = [setup.enroll(setup.token(), Ed25519PrivateKey.generate()) for _ in range(2)]
    setup.enroll(setup.token("web-02"), key, "web-02")
    unused = setup.token()
    revoked = setup.enrolments.revoke_agent("web-01", RevocationReason.UNSPECIFIED)
    assert {row.id for row in revoked} == {grant.enrolment_id for grant in grants}
    with raises_code(TokenRefused, "token_revoked"):
        setup.enroll(unused, key)
    assert [row.revoked_at for row in setup.enrolments.enrolments("web-02")] == [None]
    assert setup.enrolments.revoke_agent("web-01", RevocationReason.UNSPECIFIED) == []
    with raises_code(UnknownEnrolment, "unknown_enrolment"):
        setup.enrolments.revoke_agent("web-03", RevocationReason.UNSPECIFIED)


def test_unrecorded_certificate_of_the_authority_is_not_renewed(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    with raises_code(EnrolmentRevoked, "enrolment_not_recorded"):
        setup.enrolments.renew(1, key.public_key(), lambda: pytest.fail("issued"))


def test_crl_is_rewritten_daily_and_after_a_revocation(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    grant = setup.enroll(setup.token(), key)
    assert setup.file.refresh()
    assert not setup.file.refresh()
    setup.enrolments.revoke_agent("web-01", RevocationReason.SUPERSEDED)
    assert setup.file.refresh()
    assert setup.revoked() == [serial(grant)]
    assert not setup.file.refresh()
    setup.clock.turn(86400)
    assert setup.file.refresh()


def test_revoked_certificate_stays_listed_a_week_after_expiry(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    grant = setup.enroll(setup.token(), key)
    setup.enrolments.revoke_agent("web-01", RevocationReason.SUPERSEDED)
    setup.clock.turn(37 * 86400)
    setup.file.write()
    assert setup.revoked() == [serial(grant)]
    setup.clock.turn(1)
    setup.file.write()
    assert setup.revoked() == []


def test_crl_of_another_writer_is_rewritten_unless_it_is_complete(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    grant = setup.enroll(setup.token(), key)
    setup.enrolments.revoke_agent("web-01", RevocationReason.SUPERSEDED)
    setup.file.write()
    other = RevocationFile(setup.file.path, setup.authority, setup.enrolments, now=setup.clock.now)
    assert not other.refresh()
    for spoil in (
        lambda: setup.file.path.unlink(),
        lambda: setup.file.path.write_text("no list"),
        lambda: setup.authority.write_revocation_list(lambda: [], setup.file.path),
    ):
        assert not setup.file.refresh()
        spoil()
        assert setup.file.refresh()
        assert setup.revoked() == [serial(grant)]
    setup.clock.turn(3600)
    other.write()
    assert not setup.file.refresh()


def test_crl_entries_missing_in_the_database_are_kept(
    on_file: StoreSetup, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    setup = on_file
    before_enrolment, before_revocation = tmp_path / "1.db", tmp_path / "2.db"
    shutil.copy(tmp_path / "ledger.db", before_enrolment)
    grant = setup.enroll(setup.token(), key)
    shutil.copy(tmp_path / "ledger.db", before_revocation)
    (revoked,) = setup.enrolments.revoke_agent("web-01", RevocationReason.KEY_COMPROMISE)
    setup.file.write()
    for database in (before_enrolment, before_revocation, tmp_path / "new.db"):
        with open_database(f"sqlite:///{database}") as opened:
            enrolments = EnrolmentStore(opened, now=setup.clock.now)
            RevocationFile(setup.file.path, setup.authority, enrolments, now=setup.clock.now).write()
        (entry,) = x509.load_pem_x509_crl(setup.file.path.read_bytes())
        assert (entry.serial_number, entry.revocation_date_utc) == (serial(grant), revoked.revoked_at)
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.name == "key_compromise"


def test_foreign_crl_entry_is_kept_for_the_longest_certificate_lifetime(setup: StoreSetup) -> None:
    entry = RevokedCertificate(7, setup.clock.now(), RevocationReason.UNSPECIFIED)
    setup.file.write(entry)
    for days in (372, 1):
        setup.clock.turn(days * 86400)
        setup.file.write()
        assert setup.revoked() == [7]
    setup.clock.turn(1)
    setup.file.write()
    assert setup.revoked() == []


def test_crl_of_another_authority_is_not_merged(setup: StoreSetup, tmp_path: Path) -> None:
    create_authority(tmp_path / "stranger", "test", setup.clock.now())
    stranger = CertificateAuthority(tmp_path / "stranger", now=setup.clock.now)
    entry = RevokedCertificate(7, setup.clock.now(), RevocationReason.UNSPECIFIED)
    stranger.write_revocation_list(lambda: [entry], setup.file.path)
    setup.file.write()
    assert setup.revoked() == []


def test_crl_from_the_future_is_rewritten(setup: StoreSetup) -> None:
    setup.clock.turn(6 * 3600)
    setup.file.write()
    setup.clock.turn(-6 * 3600)
    assert setup.file.refresh()
    assert not setup.file.refresh()
    crl = x509.load_pem_x509_crl(setup.file.path.read_bytes())
    assert crl.last_update_utc == setup.clock.now() - timedelta(days=1)


def test_enrolment_has_few_certificates_however_often_it_is_renewed(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    newest = setup.enroll(setup.token(), key)
    for _ in range(3):  # an agent that lost its responses
        newest = setup.renew(newest, key)
    for _ in range(100):
        with raises_code(RenewedTooOften, "renewed_too_often"):
            setup.renew(newest, key)
    assert certificates_of(setup) == 4
    for _ in range(20):
        setup.clock.turn(20 * 86400)
        newest = setup.renew(newest, key)
    assert certificates_of(setup) <= 4
    setup.enrolments.revoke_agent("web-01", RevocationReason.KEY_COMPROMISE)
    setup.file.write()
    assert serial(newest) in setup.revoked()


def certificates_of(setup: StoreSetup) -> int:
    with setup.enrolments.database.reading() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM certificates")) or 0


def test_unknown_token_is_refused_while_another_process_writes(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    unknown = EnrolmentToken("x" * 43, setup.authority.fingerprint)
    with (
        open_database(setup.url) as other,
        other.transaction(),  # holds the only lock for writers
        raises_code(TokenRefused, "unknown_token"),
    ):
        setup.enroll(unknown, key)


def test_expired_tokens_and_certificates_of_ended_enrolments_are_pruned(
    setup: StoreSetup, key: Ed25519PrivateKey
) -> None:
    revoked = setup.enroll(setup.token(), key)
    valid = setup.enroll(setup.token("web-02"), key, "web-02")
    setup.enrolments.revoke_agent("web-01", RevocationReason.UNSPECIFIED)
    setup.clock.turn(50 * 86400.0)
    unused = setup.token()
    now = setup.clock.now()
    pruning = EnrolmentPruning(setup.enrolments.database, now - timedelta(days=1), now)
    assert pruning.run() == {"tokens": 2, "certificates": 0}, "its session may be open"
    setup.backend.sessions.record_end(revoked.enrolment_id)
    assert pruning.counts() == {"tokens": 0, "certificates": 1}
    assert pruning.run() == {"tokens": 0, "certificates": 1}
    assert [row.id for row in setup.enrolments.enrolments()] == [valid.enrolment_id]
    assert setup.enrolments.has_any()
    with pytest.raises(EnrolmentRevoked):
        setup.renew(revoked, key)
    assert setup.enroll(unused, key).agent == "web-01"


def test_enrolled_agent_is_not_forgotten_any_more(setup: StoreSetup, key: Ed25519PrivateKey) -> None:
    setup.enroll(setup.token(), key)
    ledger = Ledger(setup.enrolments.database, now=setup.clock.now)
    ledger.forget("web-01")
    assert ledger.agent_names() == []
    setup.enroll(setup.token(), Ed25519PrivateKey.generate())
    assert ledger.agent_names() == ["web-01"]
