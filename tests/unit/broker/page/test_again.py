"""Sending again what has ended, and abandoning what is open: shown before, done once, with the role for it."""

import re

from broker.contract.messages import Origin
from broker.contract.states import CommandState, ErrorCode
from broker.fleet.models import Role
from broker.ledger.enqueue import CommandRequest
from tests.support.api import RunningApi
from tests.support.page import Visitor, visitor

REQUEST = CommandRequest("restart-agent", {"delay_s": 1}, Origin("alice", "api"), expires_in_s=600.0)


def asked(olga: Visitor, path: str) -> dict[str, str]:
    """Return the form that confirms what is to be done."""
    answer = olga.get(path)
    assert answer.status_code == 200, answer.text
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', answer.text.split("</header>")[1]))


def abandoned(api: RunningApi, agent: str = "web-01") -> str:
    """Return the id of a command that has ended in an error."""
    command = api.ledger.add_command(agent, REQUEST)
    api.ledger.abandon(command.id)
    return command.id


def test_command_that_is_retried_twice_is_sent_once(api: RunningApi) -> None:
    ended = abandoned(api)
    with visitor(api, Role.OPERATOR) as olga:
        form = asked(olga, f"/commands/{ended}/retry")
        assert len(api.ledger.commands()) == 1
        first, second = olga.post(f"/commands/{ended}/retry", form), olga.post(f"/commands/{ended}/retry", form)
    assert first.headers["Location"] == second.headers["Location"]
    (sent,) = [it for it in api.ledger.commands() if it.command.id != ended]
    assert first.headers["Location"] == f"/commands/{sent.command.id}"
    assert (sent.command.parameters, sent.command.origin) == ({"delay_s": 1}, Origin("operator", "api"))


def test_failed_commands_of_an_operation_are_retried(api: RunningApi) -> None:
    operation = api.ledger.add_operation(["web-01", "web-02"], "group edge", REQUEST).id
    failed = next(it for it in api.ledger.commands(operation_id=operation) if it.agent == "web-02")
    path = f"/operations/{operation}/retry"
    with visitor(api, Role.OPERATOR) as olga:
        assert olga.get(path).status_code == 409
        api.ledger.abandon(failed.command.id)
        form = asked(olga, path)
        api.ledger.abandon_operation(operation)
        assert "The agents have changed meanwhile" in olga.post(path, form).text
        sent = olga.post(path, asked(olga, path)).headers["Location"].rpartition("/")[2]
    assert sorted(it.agent for it in api.ledger.commands(operation_id=sent)) == ["web-01", "web-02"]


def test_what_is_abandoned_twice_is_no_error(api: RunningApi) -> None:
    open_one = api.ledger.add_command("web-01", REQUEST).id
    operation = api.ledger.add_operation(["web-01", "web-02"], "group edge", REQUEST).id
    with visitor(api, Role.OPERATOR) as olga:
        for path in (f"/commands/{open_one}", f"/operations/{operation}"):
            form = asked(olga, f"{path}/abandon")
            for _ in range(2):
                answer = olga.post(f"{path}/abandon", form)
                assert (answer.status_code, answer.headers["Location"]) == (303, path)
        assert olga.get(f"/commands/{open_one}/abandon").status_code == 409
    assert {it.state for it in api.ledger.commands()} == {CommandState.COMPLETED}
    assert {it.result["code"] for it in api.ledger.commands() if it.result} == {ErrorCode.INTERRUPTED}


def test_retrying_and_abandoning_need_the_role_the_token_and_the_groups(api: RunningApi) -> None:
    paths = [
        f"/commands/{abandoned(api, 'db-01')}/retry",
        f"/commands/{api.ledger.add_command('db-01', REQUEST).id}/abandon",
    ]
    with visitor(api, Role.VIEWER) as vera, visitor(api, Role.OPERATOR, "edge", name="eve") as eve:
        for path in paths:
            assert [vera.get(path).status_code, eve.get(path).status_code] == [403, 404]
            assert vera.post(path, {"csrf": vera.csrf()}).status_code == 403
            assert eve.post(path, {"key": "k"}).status_code == 403
            assert eve.post(path, {"csrf": eve.csrf(), "key": "k"}).status_code == 404
        assert "Send it again" not in vera.get(paths[0].removesuffix("/retry")).text


def test_open_command_is_not_retried(api: RunningApi) -> None:
    command = api.ledger.add_command("web-01", REQUEST)
    with visitor(api, Role.OPERATOR) as olga:
        assert olga.get(f"/commands/{command.id}/retry").status_code == 409
