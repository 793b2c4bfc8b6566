"""Reports on the fleet: the shapes that the API and its client share. Times are aware datetimes in UTC."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from broker.contract.messages import JsonObject
from broker.contract.states import AgentState, CommandState
from broker.fleet.described import says
from broker.system.findings import Level

__all__ = [
    "AuditDifference",
    "AuditState",
    "AuditVerdict",
    "Diagnosis",
    "FindingView",
    "FleetSummary",
    "JournalPlace",
    "UnmatchedResultView",
    "WaitingCommand",
]


_ID = "0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"


@dataclass(frozen=True)
class WaitingCommand:
    """A command that no server has sent yet."""

    id: Annotated[str, says("The id of the command.", _ID)]
    agent: Annotated[str, says("The agent that it is for.", "web-01")]
    type: Annotated[str, says("The command type.", "restart-agent")]
    created_at: Annotated[datetime, says("Since when it waits.")]


@dataclass(frozen=True)
class FleetSummary:
    """How many agents and open commands there are in each state. Zeros are left out."""

    agents: Annotated[dict[AgentState, int], says("How many agents are in each state.", {"online": 2})]
    open_commands: Annotated[dict[CommandState, int], says("How many open commands are in each state.", {"queued": 1})]
    oldest_queued: Annotated[
        WaitingCommand | None, says("The oldest command that was never sent; its timeline says why it waits.")
    ]
    servers: Annotated[int, says("How many servers run on the ledger. While none does, no agent is `online`.", 1)]
    connected_servers: Annotated[int, says("How many of them are connected to the broker.", 1)]


@dataclass(frozen=True)
class UnmatchedResultView:
    """A result that answers no open command: of one that is unknown, or has another result already."""

    agent: Annotated[str, says("The agent that has reported it.", "web-01")]
    command_id: Annotated[str, says("The command that it names.", _ID)]
    digest: Annotated[str, says("The digest of the result.")]
    received_at: Annotated[datetime, says("When it arrived.")]
    result: Annotated[JsonObject, says("The result, secrets masked; empty if `acm prune` has removed it.")]


@dataclass(frozen=True)
class JournalPlace:
    """An entry of an agent's audit journal."""

    number: Annotated[int, says("Its number, from 1 on.", 42)]
    hash: Annotated[str, says("The hash that chains it to all before it.")]


@dataclass(frozen=True)
class AuditState:
    """How far an agent's audit journal was compared with the ledger."""

    agent: Annotated[str, says("The agent.", "web-01")]
    head: Annotated[JournalPlace | None, says("The end of its journal, as its last status has it.")]
    verified: Annotated[JournalPlace | None, says("Up to where it was verified last; null: never.")]
    verified_at: Annotated[datetime | None, says("When that was.")]
    accepted: Annotated[JournalPlace | None, says("Up to where an operator has accepted the differences.")]


@dataclass(frozen=True)
class AuditDifference:
    """Where an agent's journal and the ledger disagree."""

    number: Annotated[int, says("The number of the journal's entry.", 42)]
    message: Annotated[str, says("What differs, as a sentence.")]
    at: Annotated[datetime | None, says("The time of the entry, by the agent's clock.")]
    command_id: Annotated[str | None, says("The command that it is about.")]
    code: Annotated[str, says("A stable code.", "other_result")]


@dataclass(frozen=True)
class AuditVerdict:
    """An agent's journal, as it was fetched, compared with the ledger."""

    agent: Annotated[str, says("The agent.", "web-01")]
    agrees: Annotated[bool, says("Whether there is no difference.")]
    differences: Annotated[tuple[AuditDifference, ...], says("The first 100 differences, in the journal's order.")]
    difference_count: Annotated[int, says("How many there are.", 0)]
    notes: Annotated[tuple[str, ...], says("What does not differ, but is worth knowing.")]
    entries: Annotated[int, says("How many entries the journal has.", 42)]
    commands: Annotated[int, says("Of how many commands.", 9)]
    since: Annotated[datetime | None, says("The time of the first entry.")]
    until: Annotated[datetime | None, says("The time of the last one.")]
    head: Annotated[JournalPlace, says("The end of the journal.")]


@dataclass(frozen=True)
class FindingView:
    """The outcome of a check of the doctor."""

    check: Annotated[str, says("What was checked.", "ledger")]
    level: Annotated[Level, says("`warn` will fail later, or is less than it should be; `fail` does not work now.")]
    code: Annotated[str, says("A stable code; `ok` if nothing is wrong. docs/operations.md has them all.", "ok")]
    found: Annotated[str, says("What was found, as a sentence.")]
    fix: Annotated[str | None, says("What fixes it; null if nothing is wrong.")]


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor has found on the machine of the API."""

    checked_at: Annotated[datetime, says("When the checks began.")]
    findings: Annotated[tuple[FindingView, ...], says("One for each thing that was checked.")]
