"""Where a command is: its timeline, and of an open one where it waits, why, and what to do."""

from dataclasses import dataclass
from typing import Annotated

from broker.contract.messages import RunningProgress
from broker.fleet.described import says
from broker.fleet.facts import Facts
from broker.fleet.timeline import Hop, Spent, timeline_of
from broker.fleet.waiting import Waiting, waiting_of

__all__ = [
    "CommandTimeline",
    "explain_command",
]


@dataclass(frozen=True)
class CommandTimeline:
    """Every hop of a command, where its time went, and of an open one why it waits."""

    id: Annotated[str, says("The id of the command.", "0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")]
    agent: Annotated[str, says("The agent that it is for.", "web-01")]
    type: Annotated[str, says("The command type.", "restart-agent")]
    state: Annotated[str, says("How far it is; only `completed` is final.", "sent")]
    outcome: Annotated[str | None, says("How it ended; null while it is open.", "success")]
    code: Annotated[str | None, says("The code of its error, if it ended with one.", "timed_out")]
    hops: Annotated[tuple[Hop, ...], says("All hops, in their order.")]
    spent: Annotated[tuple[Spent, ...], says("What its time was spent on, as far as that is known.")]
    total_s: Annotated[float | None, says("Seconds from its creation to its result; null while it is open.", 1.5)]
    agent_ahead_s: Annotated[
        float | None,
        says(
            "By how many seconds the agent's clock must have been ahead of the ledger's at least (negative: behind); "
            "null if the two agree with the order of the hops."
        ),
    ]
    progress: Annotated[
        RunningProgress | None,
        says(
            "How far it is while it runs: the phase, and how much of that is done (null: not known). Null as a whole "
            "if its agent does not report it."
        ),
    ]
    waiting: Annotated[Waiting | None, says("Where it waits and why; null once it has ended.")]


def explain_command(facts: Facts) -> CommandTimeline:
    """Return the timeline of a command, and where it waits if it is open."""
    command, timeline = facts.command, timeline_of(facts.command, facts.agent)
    return CommandTimeline(
        id=command.id,
        agent=command.agent,
        type=command.type,
        state=command.state,
        outcome=command.outcome,
        code=command.code,
        hops=timeline.hops,
        spent=timeline.spent,
        total_s=timeline.total_s,
        agent_ahead_s=timeline.agent_ahead_s,
        progress=facts.progress,
        waiting=waiting_of(facts),
    )
