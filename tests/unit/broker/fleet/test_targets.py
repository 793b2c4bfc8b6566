"""The agents that a command is for, on a ledger in memory."""

from collections.abc import Iterator

import pytest

from broker.app.factories import open_database
from broker.contract.messages import Origin
from broker.contract.topics import InvalidName
from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.errors import CodedError, InvalidArgument
from broker.fleet.targets import Target, UnknownAgent, check_known, resolve_target
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock

REQUEST = CommandRequest("start-agent", {}, Origin("me", "test"))


def split(names: str | None) -> list[str] | None:
    return None if names is None else names.split(",")


@pytest.fixture
def ledger(clock: TurnedClock) -> Iterator[Ledger]:
    with open_database("sqlite://") as database:
        ledger = Ledger(database, now=clock.now)
        for agent in ("db-01", "web-01", "web-02"):
            ledger.add_command(agent, REQUEST)
        yield ledger


@pytest.mark.parametrize(
    ("names", "agents"),
    [
        ("web-*", ["web-01", "web-02"]),
        ("web-0[2-9]", ["web-02"]),
        ("db-01,web-*,web-01", ["db-01", "web-01", "web-02"]),
        ("web-02, db-01", ["web-02", "db-01"]),
    ],
)
def test_names_and_patterns_are_resolved_in_order_without_duplicates(
    ledger: Ledger, names: str, agents: list[str]
) -> None:
    target = resolve_target(ledger, names.split(","), None, everyone=False, allow_unknown=False)
    assert (target.agents, target.single) == (agents, False)


def test_one_name_all_agents_and_a_group_are_resolved(ledger: Ledger) -> None:
    ledger.groups.add("edge", ["web-02", "never-seen"])
    one = resolve_target(ledger, ["web-01"], None, everyone=False, allow_unknown=False)
    everyone = resolve_target(ledger, None, None, everyone=True, allow_unknown=False)
    group = resolve_target(ledger, None, "edge", everyone=False, allow_unknown=False)
    new = resolve_target(ledger, ["new-01"], None, everyone=False, allow_unknown=True)
    assert one == Target(["web-01"], "web-01", single=True)
    assert everyone == Target(["db-01", "web-01", "web-02"], "all agents")
    assert group == Target(["web-02"], "group edge")
    assert new == Target(["new-01"], "new-01", single=True)


def test_agents_outside_of_the_groups_do_not_exist(ledger: Ledger) -> None:
    ledger.groups.add("edge", ["web-02", "db-01"])
    ledger.groups.add("core", ["web-01"])
    within = frozenset({"edge"})
    targets = [
        resolve_target(ledger, names, group, everyone=everyone, allow_unknown=False, within=within).agents
        for names, group, everyone in ((None, None, True), (["web-*"], None, False), (["db-01"], None, False))
    ]
    assert targets == [["db-01", "web-02"], ["web-02"], ["db-01"]]
    for names, group, allow in ((["web-01"], None, False), (["new-01"], None, True), (None, "core", False)):
        with pytest.raises(UnknownAgent):
            resolve_target(ledger, names, group, everyone=False, allow_unknown=allow, within=within)


def test_revoked_agents_are_reached_by_their_name_only(ledger: Ledger) -> None:
    ledger.groups.add("edge", ["web-01", "web-02"])
    with ledger.database.transaction() as connection:
        for name, agent, revoked_at in (("e1", "web-01", 2.0), ("e2", "web-02", 2.0), ("e3", "web-02", None)):
            connection.execute(ENROLMENTS.insert().values(id=name, agent=agent, enrolled_at=1.0, revoked_at=revoked_at))
            certificate = CERTIFICATES.insert().values(serial=name, enrolment_id=name, key="", pem="")
            connection.execute(certificate.values(not_before=1.0, not_after=2.0))
    targets = [
        resolve_target(ledger, split(names), group, everyone=everyone, allow_unknown=False).agents
        for names, group, everyone in (
            (None, None, True),
            ("web-*", None, False),
            (None, "edge", False),
            ("web-01", None, False),
        )
    ]
    assert targets == [["db-01", "web-02"], ["web-02"], ["web-02"], ["web-01"]]


@pytest.mark.parametrize(
    ("names", "group", "everyone", "error", "code", "named"),
    [
        (None, None, False, InvalidArgument, "ambiguous_target", "--group"),
        ("web-01", "edge", False, InvalidArgument, "ambiguous_target", "--group"),
        (None, "edge", True, InvalidArgument, "ambiguous_target", "--all"),
        ("mail-*", None, False, UnknownAgent, "no_agent_matches", "'mail-*'"),
        (None, "nobody", False, UnknownAgent, "no_agent_matches", "'group nobody'"),
        (None, "ghosts", False, UnknownAgent, "no_agent_matches", "'group ghosts'"),
        (None, "No Body", False, InvalidName, "invalid_name", "'No Body'"),
        ("web-01,mail-01", None, False, UnknownAgent, "unknown_agent", "'mail-01'"),
        ("web-01,", None, False, InvalidName, "invalid_name", "''"),
    ],
)
def test_target_that_matches_no_agent_is_rejected(
    ledger: Ledger,
    names: str | None,
    group: str | None,
    everyone: bool,
    error: type[CodedError],
    code: str,
    named: str,
) -> None:
    ledger.groups.add("ghosts", ["never-seen"])
    with raises_code(error, code) as caught:
        resolve_target(ledger, split(names), group, everyone=everyone, allow_unknown=False)
    assert named in str(caught.value)


@pytest.mark.parametrize("can_allow", [True, False])
def test_message_about_unknown_agent_names_only_an_option_that_exists(ledger: Ledger, can_allow: bool) -> None:
    with raises_code(UnknownAgent, "unknown_agent") as caught:
        check_known(ledger, ["mail-01"], can_allow=can_allow)
    assert ("--allow-unknown" in str(caught.value)) is can_allow
