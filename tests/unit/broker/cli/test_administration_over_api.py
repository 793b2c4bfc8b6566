"""The commands of an administrator, each on a ledger and over the API of the same ledger: one suite for both."""

from dataclasses import replace

import pytest

from broker.cli.exit_codes import AcmExitCode
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi
from tests.support.makers import result
from tests.support.places import Place
from tests.support.recorded import record_feedback


@pytest.fixture
def ledger(api: RunningApi) -> Ledger:
    return api.ledger


def test_agent_that_is_gone_is_forgotten(place: Place, ledger: Ledger) -> None:
    online = place.acm("agents", "forget", "web-01")
    assert (online.exit_code, online.code) == (AcmExitCode.FAILURE, "agent_is_online")
    unknown = place.acm("agents", "forget", "web-1")
    assert (unknown.exit_code, unknown.code) == (AcmExitCode.UNKNOWN_AGENT, "unknown_agent")
    command = place.acm("send", "web-01", "brew").stdout.strip()
    forgotten = place.acm("agents", "forget", "web-01", "--force")
    assert forgotten.stdout == "Forgot web-01; completed as interrupted: 1 open command.\n"
    codes = {row["id"]: row["result"]["code"] for row in place.acm("commands", "--json").json}
    assert codes == {command: "interrupted"}
    assert place.acm("agents", "-o", "name").stdout == "web-02\n"


def test_unmatched_results_are_listed(places: dict[str, Place], ledger: Ledger) -> None:
    for name in ("web-01", "web-02"):
        record_feedback(ledger, name, [replace(result(f"stray of {name}"), agent=name, message="Done.")])
    for words in (
        ["unmatched"],
        ["unmatched", "--json"],
        ["unmatched", "--agent", "web-01", "-o", "name"],
        ["unmatched", "--limit", "1"],
        ["unmatched", "--agent", "web-1"],
    ):
        assert places["api"].acm(*words) == places["ledger"].acm(*words), words
    assert places["api"].acm("unmatched", "--agent", "web-01", "-o", "name").stdout == "stray of web-01\n"
    assert "there are more" in places["api"].acm("unmatched", "--limit", "1").stderr
    assert "Did you mean web-01?" in places["api"].acm("unmatched", "--agent", "web-1").message
