"""GET /metrics: who may read it, and what it counts."""

from broker.fleet.models import Role
from tests.support.api import RunningApi, assert_problem
from tests.support.scraped import Scraped, parsed


def read(api: RunningApi) -> dict[str, Scraped]:
    answer = api.http.get("/metrics", headers=api.as_(Role.VIEWER))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.text)


def test_viewer_reads_what_is_in_the_ledger(api: RunningApi) -> None:
    assert read(api)["acm_agents"].value(state="online") == len(api.ledger.agents())


def test_only_a_principal_of_the_whole_fleet_may_read_it(api: RunningApi) -> None:
    assert_problem(api.http.get("/metrics"), 401, "missing_credential")
    assert_problem(api.http.get("/metrics", headers=api.as_(Role.ADMIN, "edge")), 403, "forbidden")


def test_request_counts_under_its_route_and_not_its_path(api: RunningApi) -> None:
    for name in ("web-01", "no-such"):
        api.http.get(f"/v1/agents/{name}", headers=api.as_(Role.VIEWER))
    api.http.get("/no-such-route")
    metrics = read(api)
    requests = metrics["acm_api_requests_total"]
    assert requests.value(method="GET", route="/v1/agents/{name}", status="200") == 1
    assert requests.value(method="GET", route="/v1/agents/{name}", status="404") == 1
    assert requests.value(method="GET", route="none", status="404") == 1
    (counted,) = [
        value
        for (name, labels), value in metrics["acm_api_request_seconds"].samples.items()
        if name.endswith("_count") and ("route", "/v1/agents/{name}") in labels
    ]
    assert counted == 2


def test_words_of_a_client_are_no_methods_and_hide_none(api: RunningApi) -> None:
    for number in range(12):
        api.http.request(f"M{number}", "/v1/me")
    api.http.get("/v1/me", headers=api.as_(Role.VIEWER))
    counted = read(api)["acm_api_requests_total"].samples
    assert {dict(labels)["method"] for _, labels in counted} == {"GET", "other"}
