"""The signing keys that the API shows."""

from pathlib import Path

from broker.app.config import ServerConfig
from broker.app.factories import open_database
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger
from broker.signing.key_store import create_signing_keys
from tests.support.api import assert_problem, running_api, with_agents
from tests.support.fakes.clock import TurnedClock


def test_public_keys_are_shown_and_private_ones_are_not(tmp_path: Path, clock: TurnedClock) -> None:
    keys = tmp_path / "signing"
    entry = create_signing_keys(keys, clock.now())
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        ledger = with_agents(Ledger(database, now=clock.now))
        with running_api(ledger, clock, config=ServerConfig(signing_keys=str(keys))) as api:
            answer = api.http.get("/v1/signing-keys", headers=api.as_(Role.ADMIN))
    shown = answer.json()
    assert [(it["id"], it["state"], it["public"]) for it in shown["keys"]] == [(entry.id, "active", entry.public)]
    assert (shown["announced"], shown["agents"], shown["confirmed"], shown["not_confirmed"]) == (True, 0, 0, [])
    assert "PRIVATE" not in answer.text


def test_api_that_cannot_read_the_list_says_so(tmp_path: Path, clock: TurnedClock) -> None:
    with (
        open_database(f"sqlite:///{tmp_path}/ledger.db") as database,
        running_api(with_agents(Ledger(database, now=clock.now)), clock) as api,
    ):
        answer = api.http.get("/v1/signing-keys", headers=api.as_(Role.ADMIN))
    assert_problem(answer, 501, "not_available_here")
