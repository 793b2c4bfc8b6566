"""A fleet in a ledger as an operator may find it: agents in all states, commands that wait, run and have ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from broker.access.audit_log import AuditLog
from broker.access.grants import Credential
from broker.app.config import ServerConfig
from broker.app.factories import open_database
from broker.contract.messages import Feedback, JsonObject, Origin, Output, RunningProgress, Status
from broker.contract.states import ErrorCode, FeedbackKind, Outcome
from broker.enrolment.store import EnrolmentStore
from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.enrolment.tokens import TokenStore, mark_used, new_enrolment_token
from broker.fleet.models import Principal, Role
from broker.ledger.database import Database
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ids import new_id
from broker.ledger.ledger import Ledger
from broker.ledger.server_lock import ServerLock
from broker.pki.revocation_list import RevocationReason
from broker.signing.key_store import SigningKeyStore, create_signing_keys
from tests.support.fakes.clock import TurnedClock
from tests.support.recorded import record_feedback, record_status

__all__ = ["StagedFleet", "staged_fleet"]

TYPES = ("get-agent-configuration", "restart-agent", "start-agent", "stop-agent", "upgrade-agent")
ALICE = Origin("alice", "api")
GROUPS = {"edge": 9, "web": 6, "database": 3}
NAMES = (
    *(f"edge-{number:02}" for number in range(1, 10)),
    *(f"web-{number:02}" for number in range(1, 7)),
    *("db-01", "db-02", "db-03", "build-01"),
)
SILENT, UPGRADED, OFFLINE = "web-05", "db-02", ("edge-07", "build-01")
DAY_S = 86400.0
ALICE_TOKEN, ROOT_TOKEN = "0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f", "0190f5b2-7b7a-7cc3-98c4-dc0c0c0739a0"
JOURNAL = "nginx[812]: reload requested\nnginx[812]: configuration file /etc/nginx/nginx.conf test is successful\n"
FAILURE = Output(stderr="Job for sensor.service failed because the control process exited with error code.\n")


@dataclass
class StagedFleet:
    """The ledger, its configuration, the ids of commands by what they show, and the id of an operation."""

    database: Database
    ledger: Ledger
    clock: TurnedClock
    commands: dict[str, str]
    operation: str
    config: ServerConfig

    def say(self, name: str, *, online: bool = True, version: str = "2.4.1", **members: object) -> None:
        """Record a status of an agent."""
        service: JsonObject = {"kind": "systemd", "name": "sensor.service", "state": "running" if online else "unknown"}
        facts = {"service": service, "supported_types": TYPES, "queue_depth": 1, **members}
        record_status(self.ledger, Status(name, online, version, f"{name}-i1", "b", f"{name}-g1", **facts))  # type: ignore[arg-type]

    def add(self, agent: str, command_type: str, **parameters: object) -> str:
        """Add a command of alice."""
        request = CommandRequest(command_type, parameters, ALICE, expires_in_s=DAY_S, timeout_s=120.0)
        return self.ledger.add_command(agent, request).id

    def hear(self, agent: str, command_id: str, kind: FeedbackKind, **members: object) -> None:
        """Record what an agent says of a command."""
        facts = {"status": "running", "message": "", **members}
        feedback = Feedback(kind, agent, f"{agent}-g1", f"{agent}-i1", command_id=command_id, **facts)  # type: ignore[arg-type]
        record_feedback(self.ledger, agent, [feedback])

    def ran(self, agent: str, command_id: str, code: ErrorCode | None = None, output: Output | None = None) -> None:
        """Let a command be sent, stored, run and reported, and time pass meanwhile."""
        self.clock.turn(0.8)
        self.ledger.claim_due(100)
        self.clock.turn(0.4)
        self.hear(agent, command_id, FeedbackKind.ACCEPTED)
        began = self.clock.now()
        self.hear(agent, command_id, FeedbackKind.PROGRESS)
        self.clock.turn(2.6)
        ended = self.clock.now()
        self.clock.turn(0.3)
        outcome = Outcome.SUCCESS if code is None else Outcome.ERROR
        message = "The service was restarted." if code is None else "The service did not start within 30 s."
        facts = {"outcome": outcome, "code": code, "output": output, "started_at": began, "finished_at": ended}
        status = {"status": "completed", "message": message, "digest": f"sha256:{command_id}"}
        self.hear(agent, command_id, FeedbackKind.RESULT, **facts, **status)


@contextmanager
def staged_fleet(directory: Path) -> Iterator[StagedFleet]:
    """Stage the fleet in a ledger in a directory, on which a server runs, for a block."""
    clock = TurnedClock()
    with open_database(f"sqlite:///{directory}/ledger.db") as database:
        lock = ServerLock(database, "acm-server", clock.now)
        lock.acquire()
        lock.note_connection(None)
        config = ServerConfig(ca="/nonexistent", signing_keys=str(directory / "signing"))
        fleet = StagedFleet(database, Ledger(database, now=clock.now), clock, {}, "", config)
        _keys(fleet, directory / "signing")
        _agents(fleet)
        _tokens(fleet)
        _commands(fleet)
        _audit_log(fleet)
        _report(fleet)
        try:
            yield fleet
        finally:
            lock.release()


def _keys(fleet: StagedFleet, directory: Path) -> None:
    create_signing_keys(directory, fleet.clock.now() - timedelta(days=200))
    store = SigningKeyStore(directory)
    first = store.entries[0]
    store.rotate(fleet.clock.now() - timedelta(days=3))
    store.revoke(first.id, fleet.clock.now() - timedelta(days=1))
    store.mark_announced(store.version)


def _agents(fleet: StagedFleet) -> None:
    fleet.say(SILENT)
    fleet.clock.turn(1500)
    for name in NAMES:
        if name != SILENT:
            _say(fleet, name)
        _enroll(fleet, name, days=5 if name == "edge-07" else 7 if name == UPGRADED else 80)
    for group, count in GROUPS.items():
        prefix = {"edge": "edge", "web": "web", "database": "db"}[group]
        fleet.ledger.groups.add(group, [f"{prefix}-{number:02}" for number in range(1, count + 1)])


def _say(fleet: StagedFleet, name: str) -> None:
    keys = SigningKeyStore(Path(fleet.config.signing_keys or "")).version
    online, version = name not in OFFLINE, "2.4.1" if NAMES.index(name) % 4 else "2.3.0"
    fleet.say(name, online=online, version=version, signing_keys_version=keys if online else None)


def _report(fleet: StagedFleet) -> None:
    """Let the agents that are online report again, one after the other."""
    _say_progress(fleet)
    for name in NAMES:
        if name not in (SILENT, UPGRADED, *OFFLINE):
            _say(fleet, name)
            fleet.clock.turn(11)


def _say_progress(fleet: StagedFleet) -> None:
    running, progress = fleet.commands["running"], RunningProgress("download", 40)
    sequence = fleet.ledger.get(running).command.sequence
    assert sequence is not None
    place = {"epoch": sequence.epoch, "last_sequence": sequence.number}
    fleet.say(UPGRADED, running_command=running, running_progress=progress, **place)


def _enroll(fleet: StagedFleet, name: str, *, days: int) -> None:
    now, enrolment = fleet.clock.now(), new_id()
    row = {"id": enrolment, "agent": name, "enrolled_at": (now - timedelta(days=10)).timestamp()}
    facts = {"serial": f"{abs(hash(name)):016x}", "enrolment_id": enrolment, "key": "3f9c2a7d5b1e8064" * 4, "pem": ""}
    times = {"not_before": row["enrolled_at"], "not_after": (now + timedelta(days=days)).timestamp()}
    with fleet.database.transaction() as connection:
        connection.execute(ENROLMENTS.insert().values(**row))
        connection.execute(CERTIFICATES.insert().values(**facts, **times))


def _tokens(fleet: StagedFleet) -> None:
    """Create a token in each state; `build-01` was enrolled with one, and then revoked."""
    tokens = TokenStore(fleet.database, now=fleet.clock.now)
    enrolments = EnrolmentStore(fleet.database, now=fleet.clock.now)
    (enrolment,) = enrolments.enrolments("build-01")
    used = tokens.add("build-01", new_enrolment_token("f"), timedelta(hours=1))
    tokens.add("lab-01", new_enrolment_token("f"), timedelta(minutes=5))
    tokens.revoke(tokens.add("lab-02", new_enrolment_token("f"), timedelta(hours=1)).id)
    with fleet.database.transaction() as connection:
        mark_used(connection, used.id, enrolment.key, enrolment.id, fleet.clock.now())
    fleet.clock.turn(600)
    enrolments.revoke_enrolment(enrolment.id, RevocationReason.KEY_COMPROMISE)
    tokens.add("lab-03", new_enrolment_token("f"), timedelta(hours=24))


def _audit_log(fleet: StagedFleet) -> None:
    """Write what alice has sent, and what root has done, at 60 times."""
    log = AuditLog(fleet.database, now=fleet.clock.now)
    root = Credential(Principal("root", Role.ADMIN), ROOT_TOKEN)
    alice = Credential(Principal("alice", Role.OPERATOR), ALICE_TOKEN)
    asked = [(f"web-0{1 + number % 4}", fleet.commands[f"ended-{number}"]) for number in (0, 3, 6)]
    with fleet.database.transaction() as connection:
        for number in range(60):
            log.add(connection, alice, "send get-agent-configuration", *asked[number % 3])
            fleet.clock.turn(7)
            if number % 10 == 0:
                log.add(connection, root, "create enrolment token", "lab-03", ALICE_TOKEN)
            if number % 10 == 4:
                log.add(connection, alice, "send stop-agent", "group edge", fleet.operation)
        for name in ("waiting", "succeeded"):
            fleet.clock.turn(5)
            log.add(connection, alice, "send restart-agent", "web-01", fleet.commands[name])


def _commands(fleet: StagedFleet) -> None:
    commands, ledger, clock = fleet.commands, fleet.ledger, fleet.clock
    for number in range(8):
        agent = f"web-0{1 + number % 4}"
        commands[f"ended-{number}"] = fleet.add(agent, TYPES[number % 3], **({"delay_s": 0} if number % 3 else {}))
        fleet.ran(agent, commands[f"ended-{number}"], output=Output(stdout=JOURNAL))
        clock.turn(20)
    commands["succeeded"] = fleet.add("web-01", "restart-agent", delay_s=0)
    fleet.ran("web-01", commands["succeeded"], output=Output(stdout=JOURNAL))
    for name, code in (("edge-02", ErrorCode.TIMED_OUT), ("db-01", ErrorCode.FAILED)):
        commands[code] = fleet.add(name, "restart-agent", delay_s=0)
        fleet.ran(name, commands[code], code, FAILURE)
    fleet.operation = ledger.add_operation(
        [f"edge-0{number}" for number in range(1, 8)], "group edge", CommandRequest("stop-agent", {}, ALICE)
    ).id
    ledger.claim_due(100)
    for row in ledger.commands(operation_id=fleet.operation):
        if row.agent < "edge-05":
            fleet.ran(row.agent, row.command.id, ErrorCode.FAILED if row.agent == "edge-03" else None)
    commands["running"] = fleet.add(UPGRADED, "upgrade-agent", package={"url": "blob:" + 64 * "a", "sha256": 64 * "a"})
    clock.turn(1)
    ledger.claim_due(100)
    clock.turn(1)
    fleet.hear(UPGRADED, commands["running"], FeedbackKind.ACCEPTED)
    fleet.hear(UPGRADED, commands["running"], FeedbackKind.PROGRESS)
    _say_progress(fleet)
    commands["waiting"] = fleet.add("edge-07", "restart-agent", delay_s=0)
    ledger.claim_due(100)
    commands["queued"] = ledger.add_command("new-01", CommandRequest("restart-agent", {}, ALICE)).id
    clock.turn(240)
