"""Rate limits, on a clock that the test turns."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.api.rate_limit import Rate, RateLimit, RateLimited
from broker.app.factories import open_database
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, running_api
from tests.support.fakes.clock import TurnedClock


def taken(limit: RateLimit, name: str, most: int = 100) -> int:
    """Return how many requests of this name are allowed now."""
    for count in range(most):
        try:
            limit.take(name)
        except RateLimited:
            return count
    return most


def test_requests_are_limited_for_each_name_and_again_allowed_with_time(clock: TurnedClock) -> None:
    limit = RateLimit(Rate(burst=5, per_second=2.0), clock.monotonic)
    assert [taken(limit, "alice"), taken(limit, "alice"), taken(limit, "bob")] == [5, 0, 5]
    clock.turn(1.0)
    assert taken(limit, "alice") == 2
    clock.turn(1000.0)
    assert taken(limit, "alice") == 5


def test_refusal_says_when_to_try_again(clock: TurnedClock) -> None:
    limit = RateLimit(Rate(burst=1, per_second=0.25), clock.monotonic)
    limit.take("alice")
    with pytest.raises(RateLimited) as refused:
        limit.take("alice")
    assert refused.value.retry_after_s == 4
    clock.turn(4.0)
    limit.take("alice")


def test_names_that_were_not_seen_for_long_are_forgotten(clock: TurnedClock) -> None:
    limit = RateLimit(Rate(burst=1, per_second=0.001), clock.monotonic)
    for number in range(5000):
        limit.take(f"name-{number}")
    assert len(limit._buckets) <= 4096


@pytest.fixture
def api(tmp_path: Path, clock: TurnedClock) -> Iterator[RunningApi]:
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        ledger = Ledger(database, now=clock.now)
        with running_api(ledger, clock, rate=Rate(burst=3, per_second=1.0)) as running:
            yield running


def test_principal_that_asks_too_often_is_told_to_wait(api: RunningApi) -> None:
    viewer, other = api.as_(Role.VIEWER), api.as_(Role.VIEWER, name="other")
    answers = [api.http.get("/v1/me", headers=viewer) for _ in range(4)]
    assert [it.status_code for it in answers] == [200, 200, 200, 429]
    assert (answers[3].json()["code"], answers[3].headers["Retry-After"]) == ("rate_limited", "1")
    assert api.http.get("/v1/me", headers=other).status_code == 200
    api.clock.turn(1.0)
    assert api.http.get("/v1/me", headers=viewer).status_code == 200


def test_guesses_of_tokens_are_limited_and_valid_tokens_are_not(api: RunningApi) -> None:
    guesses = [api.http.get("/v1/me", headers={"Authorization": f"Bearer acm_{n}"}).status_code for n in range(25)]
    assert (guesses.count(401), guesses.count(429)) == (20, 5)
    assert api.http.get("/v1/me", headers=api.as_(Role.VIEWER)).status_code == 200
