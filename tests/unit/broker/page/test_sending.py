"""What forms send and cancel: with the role for it, once, and to the agents that were shown."""

import re
from html import unescape

from markupsafe import escape

from broker.contract.messages import Origin
from broker.fleet.models import Role
from broker.ledger.enqueue import CommandRequest
from tests.support.api import RunningApi
from tests.support.page import Visitor, visitor

FORM = {"type": "restart-agent", "target": "group", "group": "edge", "p.delay_s": "1", "expires": "10m"}


def hidden_in(html: str) -> list[tuple[str, str]]:
    return re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', html.split("</header>")[1])


def checked(olga: Visitor) -> dict[str, str]:
    """Return the form that confirms what was checked."""
    answer = olga.post("/send/check", FORM | {"csrf": olga.csrf()})
    assert answer.status_code == 200, answer.text
    return dict(hidden_in(answer.text))


def test_checking_sends_nothing(api: RunningApi) -> None:
    with visitor(api, Role.OPERATOR) as olga:
        checked(olga)
    assert api.ledger.commands() == []


def test_text_is_sent_as_it_was_typed(api: RunningApi) -> None:
    text = 'a\u200db\ufeff \u00ad<"c\td'
    form = {"type": "apply-centralized-configuration", "target": "agents", "agents": "web-01", "p.content": text}
    with visitor(api, Role.OPERATOR) as olga:
        answer = olga.post("/send/check", form | {"csrf": olga.csrf()})
        confirming = {unescape(name): unescape(value) for name, value in hidden_in(answer.text)}
        assert f">\n{escape(text)}</textarea>" in olga.post("/send/change", confirming).text
        assert olga.post("/send", confirming).status_code == 303
    assert [it.command.parameters for it in api.ledger.commands()] == [{"content": text}]


def test_form_that_is_sent_twice_sends_one_operation(api: RunningApi) -> None:
    with visitor(api, Role.OPERATOR) as olga:
        form = checked(olga)
        first, second = olga.post("/send", form), olga.post("/send", form)
    assert (first.status_code, first.headers["Location"]) == (303, second.headers["Location"])
    assert sorted(it.agent for it in api.ledger.commands()) == ["web-01", "web-02"]
    assert {it.command.origin for it in api.ledger.commands()} == {Origin("operator", "api")}


def test_agents_that_were_not_shown_are_shown_before(api: RunningApi) -> None:
    with visitor(api, Role.OPERATOR) as olga:
        form = checked(olga)
        api.ledger.groups.add("edge", ["db-01"])
        assert "The agents have changed meanwhile" in olga.post("/send", form).text
    assert api.ledger.commands() == []


def test_what_cannot_be_sent_is_refused_with_its_reason(api: RunningApi) -> None:
    with visitor(api, Role.OPERATOR) as olga:
        for changed, reason in (
            ({"target": "agents", "agents": "nosuch"}, "nosuch"),
            ({"target": "agents", "agents": " "}, "Name at least one agent"),
            ({"group": ""}, "Choose a group"),
            ({"p.delay_s": "x"}, "This must be a number."),
            ({"p.delay_s": "-1"}, "delay_s"),
            ({"expires": "soon"}, "is not a duration"),
        ):
            answer = olga.post("/send/check", FORM | changed | {"csrf": olga.csrf()})
            assert answer.status_code == 400, changed
            assert reason in answer.text, changed


def test_forms_need_the_role_the_token_and_the_groups(api: RunningApi) -> None:
    command = api.ledger.add_command("db-01", CommandRequest("restart-agent", {}, Origin("alice", "api")))
    cancel = f"/commands/{command.id}/cancel"
    with visitor(api, Role.VIEWER) as vera, visitor(api, Role.OPERATOR, "edge", name="eve") as eve:
        for path in ("/send", "/send/check", cancel):
            assert vera.post(path, FORM | {"csrf": vera.csrf()}).status_code == 403
            assert eve.post(path, FORM).status_code == 403
        assert eve.post(cancel, {"csrf": eve.csrf()}).status_code == 404
    with visitor(api, Role.OPERATOR) as olga:
        assert olga.post(cancel, {"csrf": olga.csrf()}).status_code == 303
    assert api.ledger.get(command.id).result is not None
