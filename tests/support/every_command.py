"""A call of every command of acm and acm-agent that is not a service, in a directory that has what each needs."""

import json
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from broker.app.factories import open_ledger
from broker.cli import SERVICES as ACM_SERVICES
from broker.cli.main import app as acm_app
from broker.contract.messages import Origin, PendingReversal, Status
from broker.ledger.enqueue import CommandRequest
from consumer.cli import SERVICES as AGENT_SERVICES
from consumer.cli.main import app as agent_app
from consumer.store.opening import open_store
from tests.support.cli import acm, commands_of
from tests.support.enrolled import Registrar
from tests.support.forked import Call
from tests.support.makers import NOW, command, result
from tests.support.recorded import record_feedback, record_status

__all__ = ["COMMANDS", "STATE", "Site", "make_site"]

STATE = "zażółć"  # a name that not every locale can show
NEEDS = {
    "acm send": "web-01 restart-agent --wait 0.01",
    "acm show": "{command}",
    "acm explain": "{command}",
    "acm cancel": "{command}",
    "acm retry": "{ended}",
    "acm operation show": "{operation} --wait 0.01",
    "acm operation cancel": "{operation}",
    "acm agents show": "web-01",
    "acm agents forget": "web-02",
    "acm group add": "edge web-01",
    "acm group remove": "edge web-02",
    "acm group show": "edge",
    "acm group configure": "edge a.toml",
    "acm blob put": "a.toml",
    "acm blob rm": "{blob}",
    "acm completion": "bash",
    "acm prune": "--older-than 90d",
    "acm ledger backup": "backup.db --force",
    "acm ledger restore": "missing.db",
    "acm audit verify": "web-01 --wait 0.01",
    "acm audit accept": "web-01 --wait 0.01",
    "acm package build": "ca --version 1",
    "acm package manifest": "ca --version 1",
    "acm package verify": "missing.tar.gz",
    "acm token create": "web-03",
    "acm token revoke": "{token}",
    "acm api certificate create": "carol --role viewer --out .",
    "acm api certificate revoke": "missing",
    "acm api token create": "alice --role viewer",
    "acm api token revoke": "{access_token}",
    "acm enrolment revoke": "web-02",
    "acm ca revoke": "web-02",
    "acm ca init": "--dir ca2",
    "acm ca server-certificate": "localhost --out .",
    "acm ca client-certificate": "--out .",
    "acm keys init": "--keys keys2",
    "acm keys revoke": "missing",
    "acm broker config": "--out broker",
    "acm down": "--directory nothing",
    "acm-agent install": "missing.tar.gz --root root --public-key RWx",
    "acm-agent enroll": f"--server https://127.0.0.1:1 --agent web-01 --token @missing --state {STATE}",
    "acm-agent self-test": "",
    "acm-agent completion": "bash",
}
"""The arguments of the commands that need some; those of acm-agent need a state directory otherwise."""

COMMANDS = [f"acm {name}" for name, _ in commands_of(acm_app) if name not in (*ACM_SERVICES, "api")] + [
    f"acm-agent {name}" for name, _ in commands_of(agent_app) if name not in AGENT_SERVICES
]


@dataclass(frozen=True)
class Site:
    """A directory with a ledger, an authority and the state of an enrolled agent; the ids of what is in the ledger."""

    directory: Path
    ids: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ACM_LEDGER": f"sqlite:///{self.directory}/ledger.db",
            "ACM_CA": str(self.directory / "ca"),
            "HOME": str(self.directory),
        }

    def calls(self) -> dict[str, Call]:
        """Return a call of each command that is not a service, by the command's name."""
        return {name: self._call(name, self._arguments(name)) for name in COMMANDS}

    def calls_with(self, argument: str) -> dict[str, Call]:
        """Return such calls with this in the place of each argument and each value of an option."""
        given = {name: [it if it.startswith("-") else argument for it in self._arguments(name)] for name in COMMANDS}
        return {name: self._call(name, words or [argument]) for name, words in given.items()}

    def _arguments(self, name: str) -> list[str]:
        needed = NEEDS.get(name, f"--state {STATE}" if name.startswith("acm-agent ") else "")
        return needed.format(**self.ids).split()

    def _call(self, name: str, arguments: list[str]) -> Call:
        program, *words = name.split()
        return Call(program, (*words, *arguments))


def make_site(directory: Path) -> Site:
    """Fill an empty directory, and return it."""
    (directory / "a.toml").write_text("n = 1\n")
    url = f"sqlite:///{directory}/ledger.db"
    registrar = Registrar(directory / "ca", url)
    for agent in ("web-01", "web-02"):
        registrar.enroll(agent, directory / (STATE if agent == "web-01" else agent), "mqtts://127.0.0.1:1")
    with closing(open_store(directory / STATE, now=lambda: datetime.now(UTC))) as store:
        store.store_command(command("a"), NOW)
    reversal = PendingReversal("block", ("192.0.2.7",), "c", "waiting", datetime.now(UTC))
    with open_ledger(url) as ledger:
        for agent in ("web-01", "web-02"):
            status = Status(agent, True, "1", "i", "b", "g", pending_reversals=(reversal,), pending_reversal_count=1)
            record_status(ledger, status)
        request = CommandRequest("restart-agent", {}, Origin("me", "test"))
        sent, ended = (ledger.add_command("web-01", request).id for _ in range(2))
        ledger.abandon(ended)
        record_feedback(ledger, "web-01", [result("unknown")])
        operation = ledger.add_operation(["web-01", "web-02"], "all", request).id
        ledger.groups.add("edge", ["web-01"])
        blob = ledger.blobs.put(directory / "a.toml").sha256
    ids = {"command": sent, "ended": ended, "operation": operation, "blob": blob}
    for name, words in (("token", "token create web-01"), ("access_token", "api token create bob --role viewer")):
        ids[name] = json.loads(acm(url, *words.split(), "--json", ACM_CA=str(directory / "ca")).stdout)["id"]
    return Site(directory, ids)
