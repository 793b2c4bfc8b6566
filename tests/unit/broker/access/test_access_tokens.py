"""Access tokens in the ledger's database."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from broker.access.access_tokens import AccessTokenStore, UnknownAccessToken
from broker.access.grants import InvalidCredential
from broker.access.tables import ACCESS_TOKENS
from broker.app.factories import open_database
from broker.contract.topics import InvalidName
from broker.errors import CodedError, InvalidArgument
from broker.fleet.models import Principal, Role
from broker.ledger.database import Database
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock

ALICE = Principal("alice", Role.OPERATOR, frozenset({"edge", "core"}))
DAY = timedelta(days=1)


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with open_database(ledger_url) as opened:
        yield opened


@pytest.fixture
def tokens(database: Database, clock: TurnedClock) -> AccessTokenStore:
    return AccessTokenStore(database, now=clock.now)


def test_bearer_of_a_token_is_its_principal(tokens: AccessTokenStore) -> None:
    made, text = tokens.add(ALICE, DAY, "root@host")
    credential = tokens.credential_of(text)
    assert (credential.principal, credential.id) == (ALICE, made.id)
    assert (made.created_by, made.expires_at - made.created_at, made.used_at) == ("root@host", DAY, None)
    everywhere, _ = tokens.add(Principal("bob", Role.ADMIN), DAY, "root@host")
    assert everywhere.principal.groups is None


def test_secret_is_not_stored(tokens: AccessTokenStore, database: Database) -> None:
    _, text = tokens.add(ALICE, DAY, "root@host")
    with database.reading() as connection:
        (row,) = connection.execute(sa.select(ACCESS_TOKENS)).all()
    assert text not in str(row)
    assert text.removeprefix("acm_") not in str(row)


def test_use_is_noted_to_the_minute(tokens: AccessTokenStore, clock: TurnedClock) -> None:
    _, text = tokens.add(ALICE, DAY, "root@host")
    first = clock.now()
    for seconds in (0, 30, 29):
        clock.turn(seconds)
        tokens.credential_of(text)
        assert tokens.all()[0].used_at == first
    clock.turn(1)
    tokens.credential_of(text)
    assert tokens.all()[0].used_at == clock.now()


def test_token_that_is_unknown_revoked_or_expired_is_refused(tokens: AccessTokenStore, clock: TurnedClock) -> None:
    made, text = tokens.add(ALICE, DAY, "root@host")
    _, short = tokens.add(ALICE, timedelta(seconds=5), "root@host")
    tokens.revoke(made.id)
    clock.turn(5)
    for bad, code in ((text, "credential_revoked"), (short, "credential_expired"), (f"{text}x", "unknown_credential")):
        with raises_code(InvalidCredential, code):
            tokens.credential_of(bad)
    for token_id in (made.id, "none"):
        with pytest.raises(UnknownAccessToken):
            tokens.revoke(token_id)


@pytest.mark.parametrize(
    ("principal", "lifetime", "error"),
    [
        (Principal("A B", Role.VIEWER), DAY, InvalidName),
        (Principal("alice", Role.VIEWER, frozenset({"No Group"})), DAY, InvalidName),
        (ALICE, timedelta(days=367), InvalidArgument),
        (ALICE, timedelta(), InvalidArgument),
    ],
)
def test_token_that_cannot_be_is_not_created(
    tokens: AccessTokenStore, principal: Principal, lifetime: timedelta, error: type[CodedError]
) -> None:
    with pytest.raises(error):
        tokens.add(principal, lifetime, "root@host")
    assert tokens.all() == []
