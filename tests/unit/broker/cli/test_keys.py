"""acm keys, on a real directory and a real ledger."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.app.factories import open_database
from broker.cli.keys import AgentsLeftBehind, app
from broker.contract.messages import Status
from broker.ledger.ledger import Ledger
from broker.signing.key_list import KeyEntry, KeyState, SigningKeyError
from broker.signing.key_store import SigningKeyStore
from tests.support.enrolled import Registrar, now
from tests.support.errors import raises_code
from tests.support.recorded import record_status


class Fleet:
    """Three enrolled agents, and `acm keys` for their server."""

    def __init__(self, directory: Path) -> None:
        self.registrar = Registrar(directory / "ca", f"sqlite:///{directory}/ledger.db")
        self.keys = self.registrar.keys
        self.ledger = Ledger(open_database(self.registrar.ledger), now=now)
        for agent in ("web-01", "web-02", "web-03"):
            self.registrar.enroll(agent, directory / agent, "mqtt://127.0.0.1")
            self.report(agent, self.keys.version)

    def report(self, agent: str, version: int) -> None:
        record_status(self.ledger, Status(agent, True, "1", "i1", "b1", "g1", signing_keys_version=version))

    def state_of(self, key_id: str) -> KeyState:
        return next(entry.state for entry in self.keys.entries if entry.id == key_id)

    def acm_keys(self, *words: str) -> str:
        environment = {"ACM_LEDGER": self.registrar.ledger, "ACM_CA": str(self.registrar.directory), "COLUMNS": "160"}
        done = CliRunner().invoke(app, words, env=environment)
        if done.exception is not None:
            raise done.exception
        return done.stdout if "--json" in words else done.output

    def acm_keys_json(self, *words: str) -> Any:
        return json.loads(self.acm_keys(*words, "--json"))

    def distributed(self) -> list[tuple[str, int]]:
        """Return the agent of each command so far, and the version of the key list in it."""
        rows = self.ledger.commands()
        return sorted((row.agent, row.command.parameters["version"]) for row in rows)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.ledger.database.close()


AGENTS = ("web-01", "web-02", "web-03")


def test_rotation_distributes_the_list_to_all_enrolled_agents_at_once(fleet: Fleet) -> None:
    done = fleet.acm_keys_json("rotate")
    assert [key.public.id for key in fleet.keys.signing][1:] == [done["id"]]
    assert fleet.distributed() == [(agent, done["version"]) for agent in AGENTS]
    assert fleet.ledger.operations.get(done["operation"]).size == done["agents"] == 3
    assert fleet.keys.announced


def test_agent_enrolled_during_a_change_gets_the_new_list(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate = SigningKeyStore.rotate

    def late(book: SigningKeyStore, now: datetime, **options: Any) -> KeyEntry:
        fleet.registrar.enroll("web-04", tmp_path / "web-04", "mqtt://127.0.0.1")
        return rotate(book, now, **options)

    monkeypatch.setattr(SigningKeyStore, "rotate", late)
    done = fleet.acm_keys_json("rotate")
    assert ("web-04", done["version"]) in fleet.distributed()


@pytest.mark.parametrize("change", ["rotate", "revoke"])
def test_changed_list_is_newer_than_that_of_any_agent(fleet: Fleet, change: str) -> None:
    """As after a clock that was ahead when the list was changed, or with an attacker's list on an agent."""
    second = fleet.acm_keys_json("rotate")["id"]
    ahead = int((now() + timedelta(hours=20)).timestamp() * 1000)
    fleet.report("web-02", ahead)
    words = ["rotate"] if change == "rotate" else ["revoke", second, "--leave-agents-behind"]
    changed = fleet.acm_keys_json(*words)
    assert changed["version"] == ahead + 1


def test_list_of_keys_shows_which_agents_have_confirmed_it(fleet: Fleet) -> None:
    new = fleet.acm_keys_json("rotate")
    fleet.report("web-02", new["version"])
    listed = fleet.acm_keys_json("list")
    assert (listed["confirmed"], listed["agents"], listed["not_confirmed"]) == (1, 3, ["web-01", "web-03"])
    assert [key["id"] for key in listed["keys"]] == [entry.id for entry in fleet.keys.entries]
    text = fleet.acm_keys("list")
    assert "2 keys, confirmed by 1 of 3 agents" in text
    assert "Not confirmed by: web-01, web-03." in text
    assert new["id"] in text


def test_key_is_revoked_only_when_every_agent_has_another(fleet: Fleet) -> None:
    (old,) = fleet.keys.entries
    new = fleet.acm_keys_json("rotate")
    fleet.report("web-02", new["version"])
    with raises_code(AgentsLeftBehind, "agents_left_behind") as caught:
        fleet.acm_keys("revoke", old.id)
    assert ": web-01, web-03." in str(caught.value)
    assert "--leave-agents-behind" in str(caught.value)
    assert fleet.state_of(old.id) is KeyState.ACTIVE
    fleet.report("web-01", new["version"])
    fleet.report("web-03", new["version"])
    revoked = fleet.acm_keys_json("revoke", old.id)
    assert [key.public.id for key in fleet.keys.signing] == [new["id"]]
    assert [sent for sent in fleet.distributed() if sent[1] == revoked["version"]] == [
        (agent, revoked["version"]) for agent in AGENTS
    ]


def test_key_that_no_agent_needs_is_revoked_at_once(fleet: Fleet) -> None:
    new = fleet.acm_keys_json("rotate")["id"]
    fleet.acm_keys("revoke", new[:12])
    assert fleet.state_of(new) is KeyState.REVOKED


def test_stolen_key_is_revoked_even_if_agents_are_left_behind(fleet: Fleet) -> None:
    (old,) = fleet.keys.entries
    fleet.acm_keys("rotate")
    assert "sent to 3 agents" in fleet.acm_keys("revoke", old.id, "--leave-agents-behind")
    assert fleet.state_of(old.id) is KeyState.REVOKED


@pytest.mark.parametrize("repeat", [("rotate",), ("revoke", "{old}")])
def test_interrupted_distribution_is_completed_by_the_next_change(fleet: Fleet, repeat: tuple[str, ...]) -> None:
    (old,) = fleet.keys.entries
    fleet.keys.rotate(now())
    fleet.keys.revoke(old.id, now())  # and here acm was killed
    before = fleet.keys.update
    assert "run `acm keys rotate`" in fleet.acm_keys("list")
    fleet.acm_keys(*(word.format(old=old.id) for word in repeat))
    assert fleet.keys.update == before, "no further change"
    assert fleet.distributed() == [(agent, before.version) for agent in AGENTS]
    assert "`acm keys rotate`" not in fleet.acm_keys("list")


def test_rotation_without_enrolled_agents_sends_nothing(tmp_path: Path) -> None:
    registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db")
    environment = {"ACM_LEDGER": registrar.ledger, "ACM_CA": str(registrar.directory)}
    done = CliRunner().invoke(app, ["rotate"], env=environment)
    assert (done.exit_code, "No agent needs the new list." in done.stdout) == (0, True)
    assert registrar.keys.announced


def test_keys_init_creates_a_directory_without_an_authority(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    words = ["init", "--keys", str(path), "--json"]
    done = CliRunner().invoke(app, words)
    assert json.loads(done.stdout)["directory"] == str(path)
    assert {file.name for file in path.iterdir()} == {"keys.json", f"{json.loads(done.stdout)['id']}.key"}
    with raises_code(SigningKeyError, "directory_not_empty") as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert str(path) in str(caught.value)
