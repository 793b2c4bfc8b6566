"""An agent with two command types of its own, as a program that embeds the library would register them.

note-once is not safe to repeat: it appends a line to a file, reports that, and waits until it is stopped.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.agent import Agent
from consumer.config import load_config
from consumer.handler import Context, Handler, Interruption, Result


@dataclass(frozen=True)
class NoteOnce:
    path: str
    hold_s: float = 0.0


def _note(command: Command, parameters: NoteOnce, context: Context) -> Result:
    with Path(parameters.path).open("a") as notes:
        notes.write(command.id + "\n")
    context.progress.report("hold", 1, 4)
    if context.cancelled.wait(min(parameters.hold_s, context.deadline - context.clock.monotonic())):
        return Result("The note was cancelled.", code=ErrorCode.CANCELLED)
    if context.clock.monotonic() >= context.deadline:
        return Result("The note took too long.", code=ErrorCode.TIMED_OUT)
    return Result("The note was made.")


HANDLERS = (
    Handler("note-once", Interruption.REPORT, NoteOnce, _note),
    Handler("note-again", Interruption.RERUN, NoteOnce, _note),
)


def main() -> None:
    names = {"--agent": "agent", "--broker": "broker", "--state": "state"}
    words = sys.argv[2:]
    flags = {names[word]: words[i + 1] for i, word in enumerate(words) if word in names}
    Agent(load_config(None, flags), handlers=HANDLERS).run()


if __name__ == "__main__":
    main()
