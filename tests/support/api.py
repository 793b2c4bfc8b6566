"""An API on a ledger, served by a thread of the test."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Thread
from typing import Any

import httpx

from broker.access.access_tokens import AccessTokenStore
from broker.access.authentication import ForeignTokens
from broker.access.foreign_log_in import ForeignLogIn
from broker.api.app import api_app
from broker.api.rate_limit import DEFAULT_RATE, Rate
from broker.app.api_installation import ConfiguredInstallation
from broker.app.config import ServerConfig
from broker.contract.messages import Status
from broker.fleet.models import Principal, Role
from broker.ledger.ledger import Ledger
from broker.page.app import OperatorsPage
from broker.system.checkup import Check
from broker.web.addresses import listen_at
from broker.web.server import WebLimits, WebServer
from tests.support.fakes.clock import TurnedClock
from tests.support.recorded import record_status

__all__ = ["AGENTS", "NOTHING_ELSE", "RunningApi", "assert_problem", "running_api", "with_agents"]

AGENTS = ("db-01", "web-01", "web-02")
NOTHING_ELSE = ServerConfig(ca="/nonexistent")


@dataclass
class RunningApi:
    """The API of a ledger; `as_` returns the headers of a new principal."""

    url: str
    http: httpx.Client
    ledger: Ledger
    tokens: AccessTokenStore
    clock: TurnedClock
    _headers: dict[tuple[Any, ...], dict[str, str]] = field(default_factory=dict)

    def as_(self, role: Role, *groups: str, name: str | None = None) -> dict[str, str]:
        who = Principal(name or role, role, frozenset(groups) or None)
        if (role, groups, name) not in self._headers:
            _, text = self.tokens.add(who, timedelta(days=1), "test")
            self._headers[role, groups, name] = {"Authorization": f"Bearer {text}"}
        return self._headers[role, groups, name]


def assert_problem(response: Any, status: int, code: str) -> None:
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["detail"].endswith((".", "?"))


def with_agents(ledger: Ledger) -> Ledger:
    """Return the ledger with three agents, of which two are in the group edge."""
    for name in AGENTS:
        record_status(ledger, Status(name, True, "1", "i", "b", "g"))
    ledger.groups.add("edge", ["web-01", "web-02"])
    return ledger


@contextmanager
def running_api(
    ledger: Ledger,
    clock: TurnedClock,
    *,
    config: ServerConfig = NOTHING_ELSE,
    checks: Sequence[Check] = (),
    rate: Rate = DEFAULT_RATE,
    monotonic: Callable[[], float] | None = None,
    foreign: ForeignTokens | None = None,
    log_in: ForeignLogIn | None = None,
    port: int = 0,
) -> Iterator[RunningApi]:
    """Serve the API of a ledger on loopback, from a thread of this process, with the given clocks.

    `config` names the installation, of which there is nothing without it; `checks` are those of its doctor.
    """
    installation = ConfiguredInstallation(config, lambda _: checks)
    clocks = {"now": clock.now, "monotonic": monotonic or clock.monotonic}
    app = api_app(ledger, installation, **clocks, rate=rate, foreign=foreign, log_in=log_in, page=OperatorsPage)
    serving = WebServer(app, None, WebLimits(max_connections_of_address=None), app.state.end_waits)
    with listen_at(("127.0.0.1", port)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = Thread(target=serving.serve, args=(listener,))
        thread.start()
        try:
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
                yield RunningApi(url, http, ledger, AccessTokenStore(ledger.database, now=clock.now), clock)
        finally:
            serving.stop()
            thread.join()
