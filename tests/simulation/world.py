"""Server, broker and agent in one thread on a simulated clock, with every fault that the invariants must survive."""

import copy
import itertools
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.app.factories import open_database
from broker.audit.comparison import compare
from broker.audit.findings import LedgerSide
from broker.contract.codec import encode
from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from broker.contract.dsse import SigningKey, VerifyingKey
from broker.contract.messages import Command, JsonObject, Origin, SequenceNumber
from broker.contract.topics import Channel, Topics
from broker.ledger.commands import LedgerRow
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from broker.server.inbox import FairInbox
from broker.server.server import Server
from broker.signing.signer import Signer
from consumer.comms.client import AgentCommsClient
from consumer.engine.core import AgentCore, AgentDependencies, HandlerRuntime
from consumer.engine.readiness import Readiness
from consumer.engine.round_trip import RoundTrip
from consumer.engine.status import StatusBuilder
from consumer.engine.watch import AgentWatch
from consumer.handler import Context, Handler, Interruption, Result
from consumer.handlers.built_in import added_handlers
from consumer.ports import CommandStore
from consumer.services import NoService
from consumer.settings import AgentConfig
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import NoTrust
from tests.support.enrolled import enrolled_by
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.departure import NoDeparture
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.fakes.wire import FakeBroker, FakeConnection
from tests.support.journals import entries_of, journal_of_any
from tests.support.stored import all_commands
from tests.support.unmatched_results import unmatched_results

AGENT = "web-01"
TOPICS = Topics()
ORIGIN = Origin("simulation", "test")


class Killed(BaseException):
    """kill -9 while a handler runs."""


class ManualSpawn:
    """Runs a handler when the test calls `run`."""

    def __init__(self) -> None:
        self._work: Callable[[], None] | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        self._work = work

    def run(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()


@dataclass(frozen=True)
class Effect:
    """No parameters."""


@dataclass
class _LateClock:
    clock: TurnedClock
    behind: timedelta

    def now(self) -> datetime:
        return self.clock.now() - self.behind

    def monotonic(self) -> float:
        return self.clock.monotonic()


@dataclass
class _Keys:
    """The keys that the agent trusts; records updates of them."""

    keys: tuple[VerifyingKey, ...] = ()
    enrolment_id: str = "e1"
    valid_until = NoTrust.valid_until
    version: int | None = None
    key_ids: tuple[str, ...] = ()
    updates: list[UpdateSigningKeys] = field(default_factory=list)

    def update(self, said: UpdateSigningKeys) -> None:
        self.updates.append(said)


class World:
    """One server that signs, and one agent that accepts only signed frames. An impossible action has no effect.

    The agent's clock is `agent_behind` the server's. `ledger`, `key` and `enrolment_id` continue an earlier world.
    """

    def __init__(
        self,
        store: CommandStore,
        lose: Callable[[CommandStore], CommandStore],
        agent_behind: timedelta = timedelta(),
        state: Path | None = None,
        *,
        ledger: Ledger | None = None,
        key: SigningKey | None = None,
        enrolment_id: str = "e1",
        watch: AgentWatch | None = None,
    ) -> None:
        self.clock = TurnedClock()
        self.agent_clock = _LateClock(self.clock, agent_behind)
        self.server_is_ahead = timedelta()
        self._trust = _Keys(enrolment_id=enrolment_id)
        self._watch = watch or AgentWatch()
        self.change_keys(key)
        self._signer = Signer(
            "server",
            lambda: (self._key,),
            enrolled_by(enrolment_id),
            now=lambda: self.clock.now() + self.server_is_ahead,
            monotonic=self.clock.monotonic,
        )
        self.broker = FakeBroker()
        self.store = store
        self._lose = lose
        self._state = state
        self._ledger_is_behind = timedelta()
        self.ledger = ledger or Ledger(
            open_database("sqlite://"), now=lambda: self.clock.now() - self._ledger_is_behind
        )
        self.effects: list[str] = []
        self.sent: list[Command] = []
        self.results: dict[str, object] = {}
        self._incarnations = itertools.count(1)
        self._backup: bytes | None = None
        self._snapshot: CommandStore | None = None
        self.was_restored = False
        self.was_rolled_back = False
        self.store_was_lost = False
        self.may_be_lost: set[str] = set()
        self.forgotten: set[str] = set()
        self._handlers_left: int | None = None
        self.connect_server()
        self.start_agent()

    def change_keys(self, key: SigningKey | None = None) -> None:
        """Make the server sign with another key, and the agent trust only that one."""
        self._key = key or SigningKey(Ed25519PrivateKey.generate())
        self._trust.keys = (self._key.public,)

    # -- processes

    def connect_server(self) -> None:
        self._server_connection = self.broker.connect("server", Server.subscriptions(TOPICS))
        self.server = Server(self.ledger, self._server_connection, TOPICS, self._signer, self.clock.monotonic)
        self._inbox = FairInbox(self._server_connection, TOPICS, self.clock.monotonic)
        self.server.connected()

    def start_agent(self) -> None:
        incarnation = f"i{next(self._incarnations)}"
        config = AgentConfig(agent=AGENT, broker="mqtt://127.0.0.1", state="unused")
        handlers = added_handlers(
            [
                Handler("once", Interruption.REPORT, Effect, self._take_effect),
                Handler("again", Interruption.RERUN, Effect, self._take_effect),
            ]
        )
        status = StatusBuilder(
            config, self.store, self.agent_clock, incarnation=incarnation, supported_types=("again", "once")
        )
        self._last_will = status.last_wills()
        self._spawn = ManualSpawn()
        connection = self._new_connection()
        self._comms = AgentCommsClient(connection, AGENT, TOPICS, self.clock.monotonic)
        around = AgentDependencies(
            self.store,
            self._comms,
            self.agent_clock,
            TrustedClock(self.agent_clock, self.store.time_sample),
            self._trust,
            NoDeparture(),
            Readiness(
                connection.readiness_problem,
                RoundTrip(AGENT, self.store.store_generation, incarnation, self.agent_clock),
            ),
            watch=self._watch,
        )
        runtime = HandlerRuntime(NoService(), self._spawn)
        self.core = AgentCore(config, around, runtime, status, handlers, incarnation=incarnation)
        self.core.recover()
        self.core.connected()

    def _new_connection(self) -> FakeConnection:
        subscriptions = AgentCommsClient.subscriptions(AGENT, TOPICS)
        will = TOPICS.of(AGENT, Channel.STATUS), self._last_will()
        self._connection = self.broker.connect(AGENT, subscriptions, will)
        return self._connection

    def _take_effect(self, command: Command, parameters: Effect, context: Context) -> Result:
        if self._handlers_left == 0:
            raise Killed
        self.effects.append(command.id)
        if self._handlers_left is not None:
            self._handlers_left -= 1
        return Result("Done.")

    # -- actions and faults

    def send(self, command_type: str, expires_in_s: float | None = None, parameters: JsonObject | None = None) -> None:
        sent = self.ledger.add_command(
            AGENT, CommandRequest(command_type, parameters or {}, ORIGIN, expires_in_s=expires_in_s)
        )
        self.sent.append(sent)
        known = next((row.status.store_generation for row in self.ledger.agents() if row.status), None)
        if self.store_was_lost and known != self.store.store_generation:
            self.may_be_lost.add(sent.id)  # the server does not know yet that the store was lost

    def cancel(self, which: int) -> None:
        if self.sent:
            self.ledger.request_cancel(self.sent[which % len(self.sent)].id)

    def step_server(self) -> None:
        self._inbox.fetch(0.0)
        while self._inbox.waiting:
            self.server.receive(self._inbox.next_batch())
            self._inbox.acknowledge_batch()
        self.server.settle(connected=True)
        self.server.step()
        for row in self.ledger.commands():
            if row.result is not None and row.result["incarnation"] != "server":
                # A restored ledger gets the result of a deleted command again, without its message and data.
                what = tuple(row.result.get(member) for member in ("digest", "outcome", "code"))
                assert self.results.setdefault(row.command.id, what) == what, "a result was replaced"

    def step_agent(self) -> None:
        self.core.step(self._comms.receive(0.0))

    def run_handlers(self) -> None:
        self._spawn.run()

    def kill_agent(self) -> None:
        self._connection.cut()
        self.start_agent()

    def lose_store(self) -> None:
        """Kill the agent and lose its store, but not the rest of the state directory. See `restore_ledger`."""
        if self.was_restored or self.was_rolled_back:
            return
        self.store_was_lost = True
        self.may_be_lost |= {command.id for command in self.sent}
        self.store = self._lose(self.store)
        self.kill_agent()

    def take_snapshot_of_agent(self) -> None:
        if isinstance(self.store, MemoryCommandStore):
            self._snapshot = copy.deepcopy(self.store)

    def roll_agent_back(self) -> None:
        """Kill the agent and put back its store of the last snapshot; commands of the time in between run again."""
        if self._snapshot is None or self.was_restored or self.store_was_lost:
            return
        self.was_rolled_back = True
        self.store = copy.deepcopy(self._snapshot)
        self.kill_agent()

    def kill_agent_in_handler(self, after: int) -> None:
        """Kill the agent in the handler after `after` others, if it gets that far."""
        self._handlers_left = after
        try:
            self._spawn.run()
        except Killed:
            self.kill_agent()
        finally:
            self._handlers_left = None

    def lose_one(self, of: str, place: int) -> None:
        self.broker.lose_one({"agent": AGENT, "server": "server"}[of], place)

    def repeat_one(self, of: str, place: int) -> None:
        self.broker.repeat_one({"agent": AGENT, "server": "server"}[of], place)

    def replay(self, place: int) -> None:
        """Publish an earlier message to the agent again, as any subscriber of the broker could."""
        earlier = [
            (topic, payload) for topic, payload in self.broker.heard if not topic.endswith(("feedback", "status"))
        ]
        if earlier:
            self.broker.publish(*earlier[place % len(earlier)])

    def forge(self, channel: Channel, frame: bytes) -> None:
        """Publish a frame that the server has not sent."""
        self.broker.publish(TOPICS.of(AGENT, channel), frame)

    def forge_command(self) -> None:
        last = self.store.last_sequence or SequenceNumber(1, 0)
        wanted = replace(last, number=last.number + 1)
        forged = Command("forged", "once", {}, ORIGIN, self.clock.now(), sequence=wanted)
        self.forge(Channel.COMMAND, encode([forged]))

    def lose_connection_of_agent(self) -> None:
        self._connection.cut()
        self._comms = AgentCommsClient(self._new_connection(), AGENT, TOPICS, self.clock.monotonic)
        self.core._parts = replace(self.core._parts, comms=self._comms)
        self.core.connected()

    def lose_connection_of_server(self) -> None:
        self._server_connection.cut()
        self.connect_server()

    def lose_data_of_broker(self) -> None:
        self.broker.lose_data()
        self.lose_connection_of_agent()
        self.lose_connection_of_server()

    def save_broker(self) -> None:
        self.broker.save()

    def put_broker_back(self, *, server_first: bool) -> None:
        """Kill the broker and start it with what it saved last; the server may connect long before the agent."""
        self._connection.cut(is_broker_dead=True)
        self._server_connection.cut(is_broker_dead=True)
        self.broker.go_back()
        if server_first:
            self.connect_server()
            self.step_server()
            self.lose_connection_of_agent()
        else:
            self.lose_connection_of_agent()
            self.connect_server()

    def swap_retained(self, place: int) -> None:
        """Publish an earlier status again, retained, as bridged brokers do that swap their copies."""
        earlier = [heard for heard in self.broker.heard if heard[0].endswith("status")]
        if earlier:
            self.broker.publish(*earlier[place % len(earlier)], retain=True)

    def repeat_session(self, of: str, count: int) -> None:
        self.broker.repeat_session({"agent": AGENT, "server": "server"}[of], count)

    def set_clock_of_ledger_back(self, seconds: float) -> None:
        self._ledger_is_behind += timedelta(seconds=seconds)

    def flip_row(self, place: int) -> None:
        """Alter a row of a command or a result on the agent's disk, if its store has one."""
        rows = getattr(self.store, "_rows", None)
        keys = [key for kind in ("c/", "r/", "g/", "n/") for key in rows.keys(kind)] if rows is not None else []
        if rows is not None and keys:
            key = keys[place % len(keys)]
            row = bytearray(rows[key])
            row[place % len(row)] ^= 1
            rows[key] = bytes(row)

    def fill_store(self) -> None:
        """Leave no room for another command in the agent's store, if it is in memory, until `settle`."""
        if isinstance(self.store, MemoryCommandStore):
            self.store.full = True

    def back_up_ledger(self) -> None:
        with self._raw_ledger() as raw:
            self._backup = raw.serialize()

    def restore_ledger(self) -> None:
        """Restart the server with the ledger of the last backup, without the commands sent since.

        Not if the agent has lost its store as well, or went back: then no record shows what has run.
        """
        if self._backup is None or self.store_was_lost or self.was_rolled_back:
            return
        self._server_connection.cut()
        # Deserialized into the connection in use, it would leave SQLite's json_each with a freed schema, and crash it.
        with self._raw_ledger() as raw, closing(sqlite3.connect(":memory:")) as backup:
            backup.deserialize(self._backup)
            backup.backup(raw)
        self.was_restored = True
        kept = {row.command.id for row in self.ledger.commands(limit=None)}
        self.forgotten |= {command.id for command in self.sent} - kept
        self.sent = [command for command in self.sent if command.id in kept]
        self.results = {name: result for name, result in self.results.items() if name in kept}
        self.connect_server()

    @contextmanager
    def _raw_ledger(self) -> Iterator[sqlite3.Connection]:
        with closing(self.ledger.database._engine.raw_connection()) as raw:
            yield raw.driver_connection

    # -- final checks

    def settle(self) -> None:
        """Run everything without faults or new connections until no command is open, and what is on its way arrived."""
        if isinstance(self.store, MemoryCommandStore):
            self.store.full = False
        quiet_rounds = 0
        for _ in range(60):
            for _ in range(3):
                self.step_server()
                self.step_agent()
                self.run_handlers()
                self.clock.turn(0.1)
            quiet_rounds += not self._open() and not all_commands(self.store)
            if quiet_rounds == 3:  # in which the agent was asked, has answered, and the answer was recorded
                return
            self.clock.turn(150.0)
        raise AssertionError(f"these have no result: {[row.command.id for row in self._open()]}")

    def _open(self) -> list[LedgerRow]:
        return [row for row in self.ledger.commands() if row.state is not CommandState.COMPLETED]

    def check(self) -> None:
        """Assert the invariants of docs/design.md."""
        rows = {row.command.id: row for row in self.ledger.commands()}
        effects = Counter(self.effects)
        assert rows.keys() == {command.id for command in self.sent}
        if self.was_rolled_back:  # commands run twice then, and in another order; but each has a result
            return
        verdicts = {name: row.verdict or row.result or {} for name, row in rows.items()}
        given_up = {
            name for name, it in verdicts.items() if it["incarnation"] == "server" and it["code"] == "interrupted"
        }
        strays = {stray["command_id"] for stray in unmatched_results(self.ledger)}
        strays -= {"forged"} | self.forgotten
        assert self.was_restored or not strays, "a result was not taken as the truth"
        assert self.was_restored or given_up <= self.may_be_lost, "the server gave up what was not lost"
        for command_id, row in rows.items():
            assert row.result is not None
            ran, code = effects[command_id], row.result.get("code")
            assert code in (None, "expired", "cancelled", "interrupted"), f"nothing here explains {code}"
            if row.command.type == "once":
                assert ran <= 1, "a command that is not safe to repeat ran twice"
            if code is None:
                assert ran >= 1, "success was reported for a command that never ran"
            if code in ("expired", "cancelled"):
                assert ran == 0, f"{code} was reported for a command that ran"
        first_runs = [name for name in dict.fromkeys(self.effects) if name not in self.forgotten]
        in_order = [command.id for command in self.sent if command.id in effects]
        # The agent may hold a forgotten command with the number of a later one, and then runs the next one first.
        assert self.was_restored or first_runs == in_order, "the commands did not run in their order"
        if not self.was_restored:  # the journal has commands that the ledger does not know
            self._check_journal()

    def _check_journal(self) -> None:
        """Assert that the agent's journal agrees with the ledger, as `acm audit verify` does."""
        journal = journal_of_any(self.store, self._state)
        names = [name for entry in entries_of(journal) for name in entry.get("begun", ())]
        if not names:
            return  # a verified journal always contains the command that requests it
        audits = self.ledger.audits
        known, said = audits.look_up(command.id for command in self.sent), audits.accepted_commands(AGENT, 1000)
        side = LedgerSide(
            AGENT, known, audits.unmatched_results(AGENT), said, self.store.audit_head, None, False, names[0]
        )
        differences = compare(journal, side).differences
        assert not differences, differences[0].message
