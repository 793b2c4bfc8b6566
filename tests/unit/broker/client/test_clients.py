"""Both clients: they answer what the fleet on the ledger answers, and repeat what got no answer."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from broker.app.config import ServerConfig
from broker.app.factories import open_database
from broker.client.addresses import checked_url
from broker.client.async_client import AsyncClient
from broker.client.calls import ApiProblem, ApiUnreachable
from broker.client.client import Client
from broker.contract.messages import Origin
from broker.contract.states import CommandState, Outcome
from broker.errors import InvalidArgument
from broker.fleet.models import AgentFilter, CommandFilter, Principal, Role, SendRequest
from broker.fleet.on_ledger import LedgerFleet
from broker.fleet.port import Fleet
from broker.fleet.reports_on_ledger import LedgerReports
from broker.ledger.ledger import Ledger
from broker.pki.authority import create_authority
from broker.signing.key_store import create_signing_keys
from tests.support.api import RunningApi, running_api, with_agents
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.http_server import serving_http
from tests.support.makers import result
from tests.support.recorded import record_feedback

ONE = SendRequest("restart-agent", {"delay_s": 1.0}, agents=("web-01",), expires_in_s=60.0)
ALL = SendRequest("restart-agent", all=True)
KINDS = ("sync", "async")


class Blocking:
    """An asynchronous client whose methods wait for their answers, so that one test is for both clients."""

    def __init__(self, client: AsyncClient, run: Callable[[Awaitable[Any]], Any]) -> None:
        self._client, self._run = client, run

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            answer = getattr(self._client, name)(*arguments, **named)
            return self._run(all_of(answer) if isinstance(answer, AsyncIterator) else answer)

        return call


async def all_of(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


@contextmanager
def client_of(kind: str, url: str, token: str, pauses: list[float]) -> Iterator[Any]:
    """Yield a client that remembers its pauses instead of making them."""

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    if kind == "sync":
        with Client(url, token, sleep=pauses.append) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        asynchronous = AsyncClient(url, token, sleep=pause)
        yield Blocking(asynchronous, runner.run)
        runner.run(asynchronous.close())


@pytest.fixture
def api(tmp_path: Path, clock: TurnedClock) -> Iterator[RunningApi]:
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        ledger = with_agents(Ledger(database, now=clock.now))
        with running_api(ledger, clock) as running:
            yield running


@pytest.fixture
def on_ledger(api: RunningApi) -> LedgerFleet:
    return LedgerFleet(api.ledger, Origin("alice", "test"))


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, api: RunningApi) -> Iterator[Any]:
    token = api.as_(Role.OPERATOR, name="alice")["Authorization"].removeprefix("Bearer ")
    with client_of(request.param, api.url, token, []) as opened:
        yield opened


def test_client_answers_what_the_fleet_on_the_ledger_answers(client: Any, on_ledger: LedgerFleet) -> None:
    sent, operation = client.send(ONE).command, client.send(ALL).operation
    assert client.send(SendRequest("restart-agent", group="edge", dry_run=True)).agents == ("web-01", "web-02")
    for ask in (
        lambda fleet: fleet.command(sent.id),
        lambda fleet: fleet.timeline(sent.id),
        lambda fleet: fleet.commands(CommandFilter(), limit=1),
        lambda fleet: fleet.commands(CommandFilter(operation=operation.id, state=CommandState.QUEUED)),
        lambda fleet: fleet.commands(CommandFilter(agent="web-01", since=sent.created_at, type="restart-agent")),
        lambda fleet: fleet.agent("web-01"),
        lambda fleet: fleet.agents(AgentFilter(name="web-*", group="edge"), limit=1),
        lambda fleet: fleet.groups(),
        lambda fleet: fleet.operation(operation.id),
        lambda fleet: fleet.operations(limit=1),
    ):
        assert ask(client) == ask(on_ledger)
    assert client.cancel(sent.id) == on_ledger.command(sent.id)
    assert client.cancel_operation(operation.id).count == 3
    assert client.abandon_operation(operation.id).count == 0


def test_synchronous_client_is_a_fleet(api: RunningApi) -> None:
    token = api.as_(Role.VIEWER)["Authorization"].removeprefix("Bearer ")
    with Client(api.url, token) as client:
        fleet: Fleet = client
        assert [it.name for it in fleet.groups()] == ["edge"]


def test_lists_are_read_to_their_end(client: Any) -> None:
    client.send(ALL)
    assert [it.agent for it in client.each_command(CommandFilter(agent="web-01"))] == ["web-01"]
    assert len(list(client.each_command())) == 3
    assert [it.name for it in client.each_agent()] == ["db-01", "web-01", "web-02"]


def test_client_waits_for_a_result(client: Any, api: RunningApi) -> None:
    sent, operation = client.send(ONE).command, client.send(ALL).operation
    assert client.wait_for_command(sent.id, 0.01).state is CommandState.QUEUED
    assert not client.wait_for_operation(operation.id, 0.01).done
    complete = Thread(target=lambda: record_feedback(api.ledger, "web-01", [result(sent.id)]))
    complete.start()
    done = client.wait_for_command(sent.id, 60)
    complete.join()
    assert (done.state, done.outcome) == (CommandState.COMPLETED, Outcome.SUCCESS)
    client.cancel_operation(operation.id)
    assert client.wait_for_operation(operation.id, 60).done


def test_client_changes_groups(api: RunningApi, on_ledger: LedgerFleet, tmp_path: Path) -> None:
    token = api.as_(Role.ADMIN)["Authorization"].removeprefix("Bearer ")
    for kind in KINDS:
        with client_of(kind, api.url, token, []) as client:
            assert client.add_to_group(kind, ["db-01"]).agents == ("db-01",)
            assert client.add_to_group(kind, ["web-01"]) in on_ledger.groups()
            assert client.remove_from_group(kind, ["db-01"]).agents == ("web-01",)
            (tmp_path / kind).write_text(kind)
            configured = client.configure_group(kind, client.store_blob(tmp_path / kind).sha256)
            assert configured == on_ledger.operation(configured.id).operation
            with raises_code(ApiProblem, "unknown_blob"):
                client.configure_group(kind, "0" * 64)


def test_client_manages_enrolment_and_access(api: RunningApi, tmp_path: Path, clock: TurnedClock) -> None:
    create_authority(tmp_path / "ca", "test", clock.now())
    create_signing_keys(tmp_path / "ca/signing", clock.now())
    with running_api(api.ledger, clock, config=ServerConfig(ca=str(tmp_path / "ca"))) as enrolling:
        token = enrolling.as_(Role.ADMIN)["Authorization"].removeprefix("Bearer ")
        for kind in KINDS:
            with client_of(kind, enrolling.url, token, []) as client:
                made = client.create_enrolment_token("new-01", ttl_s=60)
                assert client.enrolment_tokens(agent="new-01", state="open").items[0].id == made.id
                assert client.revoke_enrolment_token(made.id).state == "revoked"
                assert client.enrolments(agent="new-01", state="valid").items == ()
                with raises_code(ApiProblem, "unknown_enrolment"):
                    client.enrolment("none")
                with raises_code(ApiProblem, "unknown_enrolment"):
                    client.revoke_enrolment("none", reason="superseded")
                client.create_enrolment_token("new-01")
                assert client.revoke_agent("new-01").enrolments == ()
                access = client.create_access_token("carol", "viewer", groups=["edge"])
                assert client.access_tokens(limit=1).items[0].groups == ("edge",)
                assert client.revoke_access_token(access.id).revoked_at is not None
                assert client.operator_certificates().items == ()
                with raises_code(ApiProblem, "unknown_operator_certificate"):
                    client.revoke_operator_certificate("none")
                assert len(client.signing_keys().keys) == 1
                assert client.audit_log(limit=1).items[0].principal == "admin"


def test_client_stores_fetches_and_removes_a_file(client: Any, api: RunningApi, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(3_000_000)
    sent, fetched = tmp_path / "sent.bin", tmp_path / "fetched.bin"
    sent.write_bytes(content)
    counts: list[int] = []
    stored = client.store_blob(sent, counts.append)
    assert (counts[-1], len(counts) > 2, sorted(set(counts)) == counts) == (len(content), True, True)
    assert client.store_blob(sent) == stored
    assert [(it.sha256, it.size, it.file_name) for it in client.blobs().items] == [
        (stored.sha256, len(content), "sent.bin")
    ]
    client.fetch_blob(stored.sha256, fetched)
    assert fetched.read_bytes() == content
    assert client.remove_blob(stored.sha256).url == stored.url
    with raises_code(ApiProblem, "unknown_blob"):
        client.fetch_blob(stored.sha256, fetched)
    assert sorted(it.name for it in tmp_path.iterdir() if "ledger" not in it.name) == ["fetched.bin", "sent.bin"]


def test_file_that_cannot_be_read_or_written_is_an_error(client: Any, tmp_path: Path) -> None:
    with raises_code(InvalidArgument, "unreadable_file"):
        client.store_blob(tmp_path / "none")
    (tmp_path / "some").write_bytes(b"some")
    stored = client.store_blob(tmp_path / "some")
    with raises_code(InvalidArgument, "unwritable_file"):
        client.fetch_blob(stored.sha256, tmp_path / "none/some")


@pytest.mark.parametrize("kind", KINDS)
def test_content_that_is_not_that_of_the_blob_is_not_kept(kind: str, tmp_path: Path) -> None:
    with serving_bytes(b"other") as url, client_of(kind, url, "x", []) as client, pytest.raises(ApiUnreachable):
        client.fetch_blob("0" * 64, tmp_path / "fetched")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def serving_bytes(content: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with serving_http(Handler) as url:
        yield url


def test_client_reads_reports_and_forgets_an_agent(api: RunningApi) -> None:
    reports = LedgerReports(api.ledger)
    token = api.as_(Role.ADMIN)["Authorization"].removeprefix("Bearer ")
    for kind, gone in zip(KINDS, ("web-01", "web-02"), strict=True):
        record_feedback(api.ledger, gone, [result(f"stray-{kind}")])
        with client_of(kind, api.url, token, []) as client:
            assert client.summary() == reports.summary()
            assert client.unmatched(agent=gone) == reports.unmatched(agent=gone)
            assert client.diagnosis().findings == ()
            assert client.audit_state(gone) == reports.audit_state(gone)
            assert client.forget(gone, force=True).interrupted == 0
            with raises_code(ApiProblem, "unknown_agent"):
                client.forget(gone)


def test_client_knows_its_principal(client: Any) -> None:
    assert client.principal() == Principal("alice", Role.OPERATOR)


@pytest.mark.parametrize(
    ("ask", "status", "code"),
    [
        (lambda client: client.command("a b?"), 404, "unknown_command"),
        (lambda client: client.agent("mail-01"), 404, "unknown_agent"),
        (lambda client: client.commands(cursor="x"), 400, "invalid_cursor"),
        (lambda client: client.send(SendRequest("restart-agent")), 400, "ambiguous_target"),
        (lambda client: client.abandon("none"), 404, "unknown_command"),
    ],
)
def test_refusal_is_an_error_with_its_code(client: Any, ask: Any, status: int, code: str) -> None:
    with raises_code(ApiProblem, code) as refused:
        ask(client)
    assert isinstance(refused.value, ApiProblem)
    assert refused.value.status == status


@dataclass
class Failing:
    """A server that answers so many requests with 503, closes so many without an answer, and then has no commands."""

    failures: int = 0
    closings: int = 0
    keys: list[str | None] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[str]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.keys.append(self.headers["Idempotency-Key"])
                self.rfile.read(int(self.headers["Content-Length"]))
                if outer.closings:
                    outer.closings -= 1
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status = 503 if outer.failures else 201
                outer.failures -= status == 503
                problem = b'{"code": "ledger_locked", "detail": "The ledger is locked."}'
                body = problem if status == 503 else b"{}"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        with serving_http(Handler) as url:
            yield url


@pytest.mark.parametrize("kind", KINDS)
def test_request_without_an_answer_is_repeated_with_its_key(kind: str) -> None:
    pauses: list[float] = []
    failing = Failing(failures=2, closings=1)
    with failing.serving() as url, client_of(kind, url, "x", pauses) as client:
        assert client.send(ONE).command is None
        client.send(ONE)
    assert len(failing.keys) == 5
    assert (len(set(failing.keys[:4])), len(set(failing.keys))) == (1, 2)
    assert len(pauses) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_request_that_gets_no_answer_again_and_again_is_an_error(kind: str) -> None:
    failing = Failing(failures=4)
    with failing.serving() as url, client_of(kind, url, "x", []) as client, raises_code(ApiProblem, "ledger_locked"):
        client.send(ONE)
    assert len(failing.keys) == 4
    with client_of(kind, url, "x", []) as client, pytest.raises(ApiUnreachable):
        client.groups()


@pytest.mark.parametrize("kind", KINDS)
def test_answer_that_is_not_of_the_api_is_an_error(kind: str) -> None:
    with Failing().serving() as url, client_of(kind, url, "x", []) as client, pytest.raises(ApiUnreachable):
        client.groups()


@pytest.mark.parametrize("url", ["http://192.0.2.1:8444", "ftp://localhost", "127.0.0.1:8444", "http://example.org"])
def test_url_on_which_the_token_could_be_read_is_refused(url: str) -> None:
    with raises_code(InvalidArgument, "insecure_url"):
        Client(url, "x")


def test_url_of_this_machine_or_with_tls_is_accepted() -> None:
    for url in ("http://127.0.0.1:8444", "http://[::1]:1", "http://localhost", "https://acm.example.org/"):
        assert checked_url(url) == url.rstrip("/")
