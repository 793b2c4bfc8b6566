"""A server, an agent and a broker as real processes, and whether each command had its one result and effect."""

import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
from broker.ledger.outcomes import SERVER
from tests.acceptance.conftest import Program, Site
from tests.faults.tally import Budget, Tally
from tests.support.brokers import LocalBroker
from tests.support.waiting import wait_for

__all__ = ["AGENT", "SETTLE_S", "FaultySite", "faulty_site"]


AGENT = "a1"
SETTLE_S = 60.0
_POLL_S = 0.2
_ABOUT_CONNECTIONS = re.compile(r"\b(mqtt_connect(?:ed|ion_failed|ion_lost)|server_started|agent_started)\b")


class FaultySite:
    """Commands of it are `note-once`: each appends its id to one file, and must never run twice.

    `server` and `agent` are the modules that are run, `broker` is the one that faulty_site started.
    """

    broker: LocalBroker

    def __init__(
        self,
        site: Site,
        environment: dict[str, str],
        *,
        server: str = "broker",
        agent: str = "tests.acceptance.slow_agent",
    ) -> None:
        self.site = site
        self._environment = environment
        self._modules = (server, agent)
        self._notes = site.directory / "notes"
        self._sent: list[str] = []
        self.server, self.agent = self.start_server(), self.start_agent()

    def start_server(self) -> Program:
        """Start `acm server`; the one before must have ended."""
        self.server = self.site.start_server(module=self._modules[0], **self._environment)
        return self.server

    def start_agent(self) -> Program:
        """Start the agent; the one before must have ended."""
        self.agent = self.site.start_agent(AGENT, module=self._modules[1], **self._environment)
        return self.agent

    def send(self, count: int) -> None:
        """Add commands to the ledger."""
        with self.site.opened_ledger() as ledger:
            for number in range(count):
                parameters = {"path": str(self._notes), "hold_s": 0.05 * (number % 2)}
                request = CommandRequest("note-once", parameters, Origin("faults", "faults"))
                self._sent.append(ledger.add_command(AGENT, request).id)

    def stands(self, seconds: float) -> None:
        """Wait until server and agent are connected, and then for so long, so that their connections have worked."""
        wait_for(lambda: all(_is_connected(it.log) for it in (self.server, self.agent)), "both connections", 300)
        time.sleep(seconds)

    def ends_within(self, program: Program, budget: Budget) -> None:
        """Kill the program with -9 after a random moment."""
        time.sleep(budget.random.uniform(0.0, 1.0))
        program.kill()

    def waits_for_results(self) -> list[str]:
        """Return the commands that have no result after a minute, although programs that ended are started again."""
        deadline = time.monotonic() + SETTLE_S
        while (waiting := self._open()) and time.monotonic() < deadline:
            for program, start in ((self.server, self.start_server), (self.agent, self.start_agent)):
                if program.process.poll() is not None:
                    start()
            time.sleep(_POLL_S)
        return waiting

    def settle(self, tally: Tally) -> None:
        """Wait until each command has its result, and count them and their effects."""
        waiting = self.waits_for_results()
        tally.violations += [f"{command_id} had no result after {SETTLE_S:g} s" for command_id in waiting]
        effects = Counter(self._notes.read_text().split() if self._notes.exists() else [])
        with self.site.opened_ledger() as ledger:
            rows = {row.command.id: row for row in ledger.commands(limit=None)}
        for command_id in self._sent:
            result = rows[command_id].result or {}
            outcome, ran = str(result.get("outcome", "open")), effects.pop(command_id, 0)
            tally.counts[f"commands with {outcome}"] += 1
            if result.get("incarnation") == SERVER:
                tally.violations.append(f"the server abandoned {command_id}: {result['message']}")
            if ran > 1 or (outcome == "success" and ran != 1):
                tally.violations.append(f"{command_id} ran {ran} times; its result is {outcome}")
        tally.violations += [f"{command_id} ran and was never sent" for command_id in effects]

    def _open(self) -> list[str]:
        with self.site.opened_ledger() as ledger:
            done = {row.command.id for row in ledger.commands(limit=None) if row.result is not None}
        return [command_id for command_id in self._sent if command_id not in done]


def _is_connected(log: Path) -> bool:
    """Whether the program was connected when it wrote the last line about that."""
    events = _ABOUT_CONNECTIONS.findall(log.read_text(errors="replace"))
    return events[-1:] == ["mqtt_connected"]


@contextmanager
def faulty_site(*, ledger: str | None = None, **environment: str) -> Iterator[FaultySite]:
    """Run a broker, a server and an agent; `environment` is that of server and agent, `ledger` a URL or a new file."""
    broker = LocalBroker()
    with tempfile.TemporaryDirectory(prefix="acm-faults-") as directory:
        site = Site(broker.url, Path(directory))
        site.ledger = ledger or site.ledger
        try:
            broker.start()
            faulty = FaultySite(site, environment)
            faulty.broker = broker
            yield faulty
        finally:
            site.stop()
            broker.remove()
