"""acm explain: the hops of a command, where its time went, and why an open one waits."""

from collections.abc import Iterator
from dataclasses import asdict

import typer

from broker.cli.commands import CommandId
from broker.cli.documents import document_of
from broker.cli.identifiers import find_command_id
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing
from broker.console.output import millisecond, print_text, second, seconds
from broker.fleet.explanation import CommandTimeline
from broker.fleet.timeline import Bound, Hop, Part
from broker.fleet.waiting import Waiting
from broker.text import printable_line

__all__ = [
    "app",
]


_PARTS = {
    Part.UNTIL_SENT: "until it was sent",
    Part.RUNNING: "running, by the agent's clock",
    Part.ELSEWHERE: "on the way to its agent and back, and waiting there",
}
_BOUNDS = {Bound.AT: "", Bound.AFTER: "right after ", Bound.BY: "by "}
app = typer.Typer()


def _time(hop: Hop) -> str:
    return f"{_BOUNDS[hop.bound]}{millisecond(hop.at)}" if hop.at else ""


_HOPS = Listing[Hop](
    "hop",
    (
        Column("hop", lambda it: it.name),
        Column("time", _time),
        Column("clock", lambda it: it.clock if it.at else None),
        Column("took", lambda it: None if it.took_s is None else seconds(it.took_s)),
        Column("note", lambda it: it.note),
    ),
    name=lambda it: it.name,
    document=asdict,
)


@app.command(epilog="Example: acm explain 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER, over_api=True, lists=_HOPS, only_reads=True)
def explain(session: Session, command_id: CommandId) -> None:
    """Show every hop of a command with its time, and why an open one waits."""
    timeline = session.fleet.timeline(find_command_id(session.fleet, command_id))
    document = document_of(timeline)
    session.printer.show_list(_HOPS, lambda: timeline.hops, document=document, title=_title(timeline))
    if not session.printer.for_programs:
        waiting = timeline.waiting
        for sentence in (*_sentences(timeline), *(_waiting_sentences(waiting) if waiting else ())):
            print_text(printable_line(sentence))


def _title(timeline: CommandTimeline) -> str:
    ended = " ".join(word for word in (timeline.outcome, timeline.code) if word)
    return f"{timeline.type} on {timeline.agent}: {timeline.state}{ended and ' · ' + ended}"


def _waiting_sentences(waiting: Waiting) -> Iterator[str]:
    yield f"It has waited to be {waiting.hop} since {second(waiting.since)} UTC ({waiting.reason})."
    yield waiting.why
    yield f"What to do: {waiting.advice}"


def _sentences(timeline: CommandTimeline) -> Iterator[str]:
    if timeline.total_s is not None:
        parts = "; ".join(f"{seconds(it.seconds)} {_PARTS[it.part]}" for it in timeline.spent)
        yield f"{seconds(timeline.total_s)} in total: {parts}."
    if timeline.agent_ahead_s is not None:
        side = "ahead of" if timeline.agent_ahead_s > 0 else "behind"
        by = seconds(abs(timeline.agent_ahead_s))
        yield f"The clock of {timeline.agent} is at least {by} {side} the ledger's."
