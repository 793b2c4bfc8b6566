"""The OpenAPI document says what the API does: schemathesis makes requests from it, valid ones and others."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, Config, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from broker.api.rate_limit import Rate
from broker.app.config import ServerConfig
from broker.app.factories import open_database
from broker.contract.messages import Origin
from broker.fleet.models import Role, SendRequest
from broker.fleet.on_ledger import LedgerFleet
from broker.ledger.ledger import Ledger
from broker.pki.authority import create_authority
from broker.signing.key_store import create_signing_keys
from tests.support.api import RunningApi, running_api, with_agents
from tests.support.audited import answering_audits, honest_journal
from tests.support.fakes.clock import TurnedClock

# Also 413, which schemathesis does not take for a refusal by itself.
REFUSING_STATUSES = ["400", "401", "403", "404", "405", "409", "413", "422", "429"]
REFUSALS = {"checks": {"negative_data_rejection": {"expected-statuses": REFUSING_STATUSES}}}
WITHOUT_CREDENTIAL = {"/healthz", "/readyz"}
UNBOUNDED = Rate(burst=1_000_000, per_second=1e6)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    clock = TurnedClock()
    directory = tmp_path_factory.mktemp("api")
    create_authority(directory / "ca", "test", clock.now())
    create_signing_keys(directory / "ca/signing", clock.now())
    config = ServerConfig(ca=str(directory / "ca"))
    with open_database(f"sqlite:///{directory}/ledger.db") as database:
        ledger = with_agents(Ledger(database, now=clock.now))
        fleet = LedgerFleet(ledger, Origin("alice", "test"))
        fleet.send(SendRequest("restart-agent", agents=("web-01",)))
        fleet.send(SendRequest("restart-agent", all=True))
        answering = answering_audits(f"sqlite:///{directory}/ledger.db", "web-01", honest_journal)
        with answering, running_api(ledger, clock, config=config, rate=UNBOUNDED) as running:
            yield running


@pytest.mark.parametrize("mode", GenerationMode)
def test_api_does_what_its_document_says(api: RunningApi, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"{api.url}/v1/openapi.json", config=Config.from_dict(REFUSALS))
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) > 10
    for operation in operations:
        if operation.path == "/v1/events":
            continue  # an answer without an end; tests/unit/broker/api/test_events.py compares it with its shape
        try_operation(operation, mode, api.as_(Role.ADMIN))


def try_operation(operation: APIOperation, mode: GenerationMode, headers: dict[str, str]) -> None:
    """Make requests of one operation, and compare each answer with the document.

    Without a credential each route answers 401, which the unit tests of the routes show. No document can say which
    agents there are, so valid requests may be refused. /readyz answers 503 while no server runs, as here.
    """
    excluded = [ignored_auth, positive_data_acceptance]
    if operation.path == "/readyz":
        excluded.append(not_a_server_error)

    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    def request(case: Case) -> None:
        case.call_and_validate(headers=headers, excluded_checks=excluded)

    try:
        request()
    except Unsatisfiable:  # nothing about it can be wrong
        assert mode is GenerationMode.NEGATIVE


def test_every_route_and_parameter_is_described(api: RunningApi) -> None:
    paths = api.http.get("/v1/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            assert operation["description"], path
            if path not in WITHOUT_CREDENTIAL:
                assert {"401", "403", "429", "503"} <= operation["responses"].keys(), path
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], (path, parameter["name"])
