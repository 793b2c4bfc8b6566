"""What the pages show to each principal."""

import re

import pytest

from broker.contract.messages import Origin, Status
from broker.fleet.models import Role
from broker.ledger.enqueue import CommandRequest
from tests.support.api import RunningApi
from tests.support.page import visitor
from tests.support.recorded import record_status

REQUEST = CommandRequest("restart-agent", {}, Origin("alice", "api"))
VIEWED = ("/", "/agents", "/agents/web-01", "/commands")


def names_in(html: str) -> list[str]:
    return re.findall(r'<a href="/agents/([^"]+)">', html.split("<tbody")[-1])


@pytest.mark.parametrize("path", VIEWED)
def test_viewer_sees_the_page(api: RunningApi, path: str) -> None:
    with visitor(api, Role.VIEWER) as alice:
        answer = alice.get(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert answer.headers["Cache-Control"] == "no-store"
        assert not re.search(r"<script(?! type=\"module\" src=)|\son[a-z]+=|style=|javascript:", answer.text)


def test_principal_with_groups_sees_nothing_of_other_agents(each_api: RunningApi) -> None:
    command = each_api.ledger.add_command("db-01", REQUEST)
    with visitor(each_api, Role.OPERATOR, "edge") as eve:
        for path in VIEWED:
            assert "db-01" not in eve.get(path).text
        assert eve.get("/agents/db-01").status_code == 404
        assert eve.get(f"/commands/{command.id}").status_code == 404
        each_api.ledger.groups.add("database", ["db-01", "web-01"])
        assert eve.get("/agents?group=database").text.count("No agent matches") == 1


def test_agents_are_searched_filtered_sorted_and_paged(each_api: RunningApi) -> None:
    with visitor(each_api, Role.VIEWER) as alice:
        for number in range(60):
            record_status(each_api.ledger, Status(f"many-{number:02}", number % 2 == 0, "2", "i", "b", "g"))
        each_api.ledger.add_command("many-31", REQUEST)
        first, second = alice.get("/agents?name=MANY").text, alice.get("/agents?name=many&page=2").text
        assert names_in(first) + names_in(second) == [f"many-{number:02}" for number in range(60)]
        assert "50 of 60 agents" in first
        assert "60 of 60 agents" in second
        assert names_in(alice.get("/agents?state=offline&name=many-1").text) == [
            f"many-1{it}" for it in (1, 3, 5, 7, 9)
        ]
        assert names_in(alice.get("/agents?group=edge&order=desc").text) == ["web-02", "web-01"]
        assert names_in(alice.get("/agents?version=1").text) == ["db-01", "web-01", "web-02"]
        assert names_in(alice.get("/agents?sort=open&order=desc").text)[0] == "many-31"
        assert names_in(alice.get("/agents?name=%25").text) == []
        assert alice.get("/agents?state=no").status_code == 400
        assert alice.get("/agents?page=999").status_code == 200


def test_unserved_ledger_knows_of_no_agent_that_is_online(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER) as alice:
        assert "No server runs on this ledger" in alice.get("/").text
        assert names_in(alice.get("/agents?state=unknown").text) == ["db-01", "web-01", "web-02"]
        assert "No agent matches" in alice.get("/agents?state=online").text


def test_fleet_is_counted_by_group_and_version(each_api: RunningApi) -> None:
    record_status(each_api.ledger, Status("web-02", False, "2", "i2", "b", "g"))
    with visitor(each_api, Role.VIEWER) as alice:
        text = re.sub(r"\s+", " ", alice.get("/").text)
    assert 'href="/agents?group=edge">edge</a></td> <td role="cell" data-label="Agents" class="number">2</td>' in text
    assert '"1 of 2 online"' in text
    assert 'href="/agents?version=1">1</a></td> <td role="cell" data-label="Agents" class="number">2</td>' in text


def test_text_of_others_is_shown_as_text(api: RunningApi) -> None:
    hostile = "<script>alert(1)</script>\N{RIGHT-TO-LEFT OVERRIDE}"
    record_status(api.ledger, Status("web-01", True, hostile, "i", "b", "g", last_error=hostile))
    with visitor(api, Role.VIEWER) as alice:
        for path in VIEWED:
            text = alice.get(path).text
            assert "<script>" not in text
            assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text


def test_command_shows_its_timeline_and_why_it_waits(api: RunningApi) -> None:
    command = api.ledger.add_command("web-01", REQUEST)
    with visitor(api, Role.VIEWER) as alice:
        text = alice.get(f"/commands/{command.id}").text
        assert "No server runs" in text.split("Why it waits")[1]
        assert text.count("<li class=") == 9
        assert command.id in alice.get("/commands?agent=web-01&state=queued").text
        assert "No command matches" in alice.get("/commands?outcome=error").text


@pytest.mark.parametrize("path", ["/agents/no", "/commands/no", "/agents/a/b", "/static/x/../y"])
def test_nothing_is_found_where_nothing_is(api: RunningApi, path: str) -> None:
    with visitor(api, Role.VIEWER) as alice:
        answer = alice.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")


def test_rate_of_the_api_holds_for_the_page(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER) as alice:
        statuses = {alice.get("/commands").status_code for _ in range(201)}
    assert statuses == {200, 429}


def test_position_of_no_event_is_no_fault(api: RunningApi) -> None:
    headers = {"Last-Event-ID": "9" * 5000}
    with visitor(api, Role.VIEWER) as alice, alice.http.stream("GET", "/live", headers=headers) as answer:
        assert answer.status_code == 410
