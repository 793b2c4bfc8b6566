"""Requests for the page are counted with those to the API, under their routes."""

from broker.fleet.models import Role
from tests.support.api import RunningApi
from tests.support.page import visitor
from tests.support.scraped import parsed


def test_request_for_the_page_counts_under_its_route_and_not_its_path(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER, name="vera") as vera:
        for path in ("/", "/agents/web-01", "/agents/no-such", "/agents/a/b", "/static/x/no-such.css", "/logout"):
            vera.get(path)
    answer = api.http.get("/metrics", headers=api.as_(Role.VIEWER))
    samples = parsed(answer.text)["acm_api_requests_total"].samples
    counted = {
        tuple(dict(labels)[it] for it in ("method", "route", "status")): it for (_, labels), it in samples.items()
    }
    assert counted == {
        ("POST", "/login", "303"): 1,
        ("GET", "/", "200"): 1,
        ("GET", "/agents/{name}", "200"): 1,
        ("GET", "/agents/{name}", "404"): 1,
        ("GET", "none", "404"): 1,
        ("GET", "/static/{version}/{name}", "404"): 1,
        ("GET", "/logout", "405"): 1,
    }
