"""What a shell completes in the arguments of acm-agent: the ids of the commands in a state directory."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from broker.errors import CodedError
from consumer.cli.options import STATE_VARIABLE

__all__ = ["complete_queued", "complete_recorded"]


def complete_queued(context: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of the commands that the agent holds; none if they cannot be read."""
    from consumer.store.reader import read_queue

    return _of_state(context, incomplete, lambda state: (stored.command.id for stored in read_queue(state)))


def complete_recorded(context: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of the commands in the agent's journal; none if it cannot be read."""
    from consumer.cli.journal_events import read_events

    return _of_state(
        context, incomplete, lambda state: (event.command_id for event in read_events(state) if event.command_id)
    )


def _of_state(context: typer.Context, incomplete: str, read: Callable[[Path], Iterable[str]]) -> list[str]:
    from consumer.store.state_directory import refuse_exposed

    directory = context.params.get("state") or os.environ.get(STATE_VARIABLE)
    if directory is None:
        return []
    state = Path(directory)
    try:
        refuse_exposed(state, reading=True)
        return sorted({name for name in read(state) if name.startswith(incomplete)})
    except CodedError:
        return []  # a shell would print the sentence into the line that its user writes
