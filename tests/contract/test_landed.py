"""Files of earlier versions are read unchanged, and their work continues; see landed/*/README.md."""

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.app.factories import open_database
from broker.contract.codec import (
    decode_acks,
    decode_commands,
    decode_controls,
    decode_feedbacks,
    decode_status,
    to_json,
)
from broker.contract.commands import COMMAND_TYPES, InvalidParameters, parse_parameters
from broker.contract.dsse import payload_type, read_body, read_envelope
from broker.contract.journal import chain_faults
from broker.contract.states import State
from broker.contract.topics import Channel, Topics
from broker.enrolment.store import EnrolmentStore
from broker.enrolment.tables import METADATA
from broker.enrolment.tokens import TokenStore
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from broker.pki.authority import CertificateAuthority
from broker.signing.key_store import SigningKeys
from consumer.enrolment.store import EnrolmentDirectory
from consumer.store.command_store import DiskCommandStore
from consumer.store.groups import Groups
from consumer.store.opening import open_store
from tests.simulation.world import World
from tests.support.fakes.clock import TurnedClock
from tests.support.journals import journal_in
from tests.support.postgresql import PostgreSQL
from tests.support.stored import all_commands, tidy
from tests.support.unmatched_results import unmatched_results

LANDED = Path(__file__).parent / "landed"
VERSIONS = sorted(path.name for path in LANDED.iterdir() if path.is_dir())
IN_POSTGRESQL = [f"{version} in PostgreSQL" for version in VERSIONS if (LANDED / version / "ledger.sql").exists()]
AGENT = "web-01"


@dataclass
class Landed:
    """A copy of what one version left, opened."""

    root: Path
    expected: dict[str, Any]
    clock: TurnedClock
    store: DiskCommandStore
    ledger: Ledger
    enrolments: EnrolmentStore

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def enrolment_id(self) -> str:
        current = EnrolmentDirectory(self.state).current()
        assert current is not None
        return current.grant.enrolment_id

    def world(self) -> World:
        """Run server and agent on it, with the key that has signed its commands."""
        (key, *_) = SigningKeys(self.root / "ca" / "signing").signing
        return World(
            self.store, lambda lost: lost, state=self.state, ledger=self.ledger, key=key, enrolment_id=self.enrolment_id
        )


def ledger_in_postgresql(postgresql: PostgreSQL, dump: Path) -> str:
    """Return the URL of a database restored from a dump of a version's ledger."""
    url = postgresql.new_database()
    with postgresql.connect(url) as connection:
        connection.execute(dump.read_bytes())
    return url


@pytest.fixture(params=[*VERSIONS, *IN_POSTGRESQL])
def landed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Landed]:
    root = tmp_path / "landed"
    version = request.param.partition(" ")[0]
    shutil.copytree(LANDED / version, root, symlinks=True)
    for path in (root, *root.rglob("*")):  # git keeps no modes
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
    clock = TurnedClock()
    clock.turn(200.0)
    current = EnrolmentDirectory(root / "state").current()
    assert current is not None
    store = open_store(root / "state", now=clock.now, enrolment_id=current.grant.enrolment_id)
    url = f"sqlite:///{root / 'ledger.db'}"
    if request.param in IN_POSTGRESQL:
        url = ledger_in_postgresql(request.getfixturevalue("postgresql"), root / "ledger.sql")
    with open_database(url) as database:
        expected = json.loads((root / "expected.json").read_bytes())
        ledger, enrolments = Ledger(database, now=clock.now), EnrolmentStore(database, now=clock.now)
        yield Landed(root, expected, clock, store, ledger, enrolments)
    store.close()


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def test_messages_of_an_earlier_version_are_read(landed: Landed) -> None:
    keys = [key.public for key in SigningKeys(landed.root / "ca" / "signing").signing]
    read = {
        Channel.COMMAND: lambda frame: decode_commands(frame, received_at=landed.clock.now(), new_id=lambda: "new"),
        Channel.CONTROL: decode_controls,
        Channel.ACK: decode_acks,
        Channel.FEEDBACK: decode_feedbacks,
        Channel.STATUS: lambda frame: [decode_status(frame)],
    }
    seen = set()
    for topic, payload in json.loads((landed.root / "wire.json").read_bytes()):
        place = Topics().parse(topic)
        assert place is not None
        agent, channel = place
        frame = base64.b64decode(payload)
        envelope = read_envelope(frame)
        if envelope is not None:
            scope, frame = read_body(envelope.verify(payload_type(channel), keys)[0])
            assert (scope.audience, scope.enrolments) == (agent, (landed.enrolment_id,))
        messages = read[channel](frame)
        sent = json.loads(frame)
        assert [to_json(one) for one in messages] == (sent if isinstance(sent, list) else [sent])
        seen.add((channel, envelope is not None))
    assert seen == {
        (Channel.COMMAND, True),
        (Channel.ACK, True),
        (Channel.FEEDBACK, False),
        (Channel.STATUS, False),
    }


def test_store_of_an_earlier_version_is_read_unchanged(landed: Landed) -> None:
    store, expected = landed.store, landed.expected["agent"]
    time = store.time_sample
    assert time is not None
    commands = [
        {
            "command": to_json(one.command),
            "state": one.state,
            "received_at": one.received_at,
            "started_at": one.started_at,
            "begun_by": one.begun_by,
            "result": one.result and to_json(one.result.feedback),
            "signed_by": one.signed_by,
        }
        for one in all_commands(store)
    ]
    tombstones = {name: store.find_tombstone(name) for name in expected["tombstones"]}
    assert store.damage is None
    assert store.store_generation == expected["generation"]
    assert plain([store.last_sequence, store.audit_head]) == [expected["last_sequence"], expected["audit_head"]]
    assert plain([time.server, time.machine]) == expected["time"]
    assert plain(commands) == expected["commands"]
    remembered = {name: vars(it) for name, it in tombstones.items() if it is not None}
    results = {name: result for name, (result, _) in expected["tombstones"].items()}
    assert plain(remembered) == {
        name: {member: result.get(member) for member in ("command_id", "digest", "outcome", "code")}
        for name, result in results.items()
    }
    assert [name for name in expected["cancels"] if store.is_cancelled(name)] == expected["cancels"] != []


def test_results_that_an_earlier_version_kept_become_tombstones(landed: Landed) -> None:
    names = landed.expected["agent"]["tombstones"]
    before = {name: landed.store.find_tombstone(name) for name in names}
    tidy(landed.store, landed.clock.now())
    assert {name: landed.store.find_tombstone(name) for name in names} == before
    assert None not in before.values()
    assert landed.store._index.kept == set()
    assert not any(landed.store._rows.keys(f"r/{name}") for name in names)


def test_store_of_an_earlier_version_has_commands_in_every_state(landed: Landed) -> None:
    states = [one.state for one in all_commands(landed.store)]
    assert states == [State.DONE] * 2 + [State.PROCESSING] * 2 + [State.PENDING] * 3
    assert [one.command.id for one in landed.store.get_next_commands(9)] == [
        one["command"]["id"] for one in landed.expected["agent"]["commands"] if one["state"] == "pending"
    ]


def test_journal_of_an_earlier_version_is_one_chain(landed: Landed) -> None:
    journal = journal_in(landed.state)
    assert [list(page.entries) for page in journal.pages] == landed.expected["agent"]["journal"]
    assert list(chain_faults(journal.anchor, journal.head, journal.pages)) == []


def test_enrolment_and_groups_of_an_earlier_version_are_read(landed: Landed) -> None:
    current = EnrolmentDirectory(landed.state).current()
    assert current is not None
    assert (current.grant.agent, current.grant.broker) == (AGENT, "mqtts://broker.example")
    assert current.tls.key.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert current.grant.enrolment_id in {row[0] for row in landed.expected["ledger"]["enrolments"]}
    assert Groups(landed.state).current == ("edge", "web")


def test_ledger_of_an_earlier_version_is_read_unchanged(landed: Landed) -> None:
    ledger, enrolments = landed.ledger, landed.enrolments
    tokens = TokenStore(enrolments.database, now=landed.clock.now)
    verified = [found for name in (AGENT, "web-02") if (found := ledger.audits.verified(name))]
    found = {
        "commands": [
            {
                "command": to_json(row.command),
                "agent": row.agent,
                "state": row.state,
                "cancel_requested": row.cancel_requested,
                "result": row.result,
                "completed_at": row.completed_at,
            }
            for row in ledger.commands(limit=None)
        ],
        "agents": [[row.name, row.status and to_json(row.status), row.open_commands] for row in ledger.agents()],
        "operations": [[row.id, row.command_type, row.target, row.size] for row in ledger.operations.newest(10)],
        "groups": ledger.groups.all(),
        "blobs": [[row.artifact, row.file_name] for row in ledger.blobs.rows()],
        "unmatched": unmatched_results(ledger),
        "verified": [[it.head, it.accepted] for it in verified],
        "tokens": [[row.agent, row.state, row.expires_at, row.enrolment_id] for row in tokens.all()],
        "enrolments": [
            [row.id, row.agent, row.serial, row.not_after, row.revoked_at, row.reason]
            for row in enrolments.enrolments()
        ],
    }
    expected = landed.expected["ledger"]
    for view in (shown := plain(found), expected):
        view["commands"].sort(key=lambda row: row["command"]["id"])  # those of one operation are of one time
    assert shown == expected
    assert all(found.values())


def test_authority_and_signing_keys_of_an_earlier_version_are_used(landed: Landed) -> None:
    keys = SigningKeys(landed.root / "ca" / "signing")
    entries = [[it.id, it.state, it.public, it.since, it.revoked_at] for it in keys.entries]
    assert plain([keys.version, entries]) == landed.expected["signing_keys"]
    assert {key.public.id for key in keys.signing} == {it.id for it in keys.entries if it.state == "active"}
    authority = CertificateAuthority(landed.root / "ca", now=landed.clock.now)
    revoked = [int(row[2], 16) for row in landed.expected["ledger"]["enrolments"] if row[4]]
    listed = authority.read_revocation_list(landed.root / "ca" / "crl.pem")
    assert listed is not None
    assert [entry.serial for entry in listed.entries] == revoked
    issued = authority.issue(AGENT, Ed25519PrivateKey.generate().public_key(), timedelta(days=1))
    assert issued.not_valid_after_utc > landed.clock.now()


def test_group_name_of_an_earlier_version_is_read_and_then_invalid(landed: Landed) -> None:
    (command,) = (it.command for it in all_commands(landed.store) if it.command.parameters.get("group") == "Edge")
    with pytest.raises(InvalidParameters):
        parse_parameters(command.type, COMMAND_TYPES[command.type].parameters, command.parameters)


def test_commands_of_an_earlier_version_are_completed(landed: Landed) -> None:
    before = {one.command.id: one for one in all_commands(landed.store)}
    world = landed.world()
    for _ in range(40):
        for action in (world.step_server, world.step_agent, world.run_handlers):
            action()
        world.clock.turn(10.0)
    rows = {row.command.id: row for row in landed.ledger.commands(AGENT, limit=None)}
    assert {row.state for row in rows.values()} == {CommandState.COMPLETED}
    assert all_commands(landed.store) == []
    outcomes = {name: ((rows[name].result or {})["outcome"], (rows[name].result or {}).get("code")) for name in before}
    assert [outcomes[name] for name in before] == [
        ("error", "invalid"),  # done before
        ("success", None),
        ("error", "interrupted"),  # in processing, by the rule of its type
        ("success", None),
        ("error", "cancelled"),  # pending, with a remembered cancel
        ("error", "unsupported"),  # pending, of a type that this world's agent does not support
        ("success", None),  # pending
    ]
    assert world.effects == [name for name, one in before.items() if one.command.type == "again"][1:]
    for name, one in before.items():
        assert one.result is None or (rows[name].result or {})["digest"] == one.result.feedback.digest


def test_migrated_tables_are_those_of_a_new_ledger(landed: Landed) -> None:
    with landed.ledger.database.reading() as connection:
        inspector = sa.inspect(connection)
        for table in METADATA.tables.values():
            assert {it["name"] for it in inspector.get_columns(table.name)} == {it.name for it in table.columns}
            found = {it["name"] for it in inspector.get_indexes(table.name) if not it.get("duplicates_constraint")}
            assert found == {index.name for index in table.indexes}
