"""One damaged row of an enrolment stops neither the revocation of others nor the lists. On both databases."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.app.factories import open_database
from broker.enrolment.store import EnrolmentStore
from broker.enrolment.tables import CERTIFICATES, ENROLMENTS, TOKENS
from broker.enrolment.tokens import TokenStore
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevocationReason
from tests.support.damage import overwrite
from tests.support.enrolled import Registrar, now


@pytest.fixture
def registrar(tmp_path: Path, ledger_url: str) -> Registrar:
    registrar = Registrar(tmp_path / "ca", ledger_url)
    for name in ("web-01", "web-02"):
        registrar.enroll(name, tmp_path / name, "mqtt://127.0.0.1")
    return registrar


@pytest.mark.parametrize(
    ("column", "damage"),
    [
        (ENROLMENTS.c.reason, b"unspecifie\xe4"),
        (ENROLMENTS.c.reason, None),
        (ENROLMENTS.c.revoked_at, 1 << 62),
        (CERTIFICATES.c.serial, b"xyz"),
    ],
    ids=str,
)
def test_damaged_row_stops_no_revocation(
    registrar: Registrar, column: sa.Column[object], damage: bytes | int | None
) -> None:
    with open_database(registrar.ledger) as database:
        store = EnrolmentStore(database, now=now)
        serials = {it.agent: (it.id, it.serial) for it in store.enrolments()}
        for name in serials:
            store.revoke_agent(name, RevocationReason.UNSPECIFIED)
        key = serials["web-01"][1 if column.table is CERTIFICATES else 0]
        overwrite(registrar.ledger, column, key, damage)
        file = RevocationFile(registrar.directory / "crl.pem", registrar.authority, store, now=now)
        file.write()
        assert all(file.names(int(serial, 16)) for _, serial in serials.values())
        assert {it.agent for it in store.enrolments()} == {"web-01", "web-02"}


@pytest.mark.parametrize("column", [TOKENS.c.created_at, TOKENS.c.expires_at, TOKENS.c.used_at], ids=str)
def test_damaged_token_is_listed_beside_the_others(registrar: Registrar, column: sa.Column[object]) -> None:
    with open_database(registrar.ledger) as database:
        tokens = TokenStore(database, now=now)
        overwrite(registrar.ledger, column, tokens.all()[0].id, 1 << 62)
        assert len(tokens.all()) == 2


def test_time_that_no_clock_has_written_is_shown_as_the_first(registrar: Registrar) -> None:
    with open_database(registrar.ledger) as database:
        store = EnrolmentStore(database, now=now)
        overwrite(registrar.ledger, ENROLMENTS.c.enrolled_at, store.enrolments("web-01")[0].id, 1 << 62)
        assert store.enrolments("web-01")[0].enrolled_at == datetime.fromtimestamp(0, UTC)
        assert store.enrolments("web-02")[0].enrolled_at > now() - timedelta(hours=1)
